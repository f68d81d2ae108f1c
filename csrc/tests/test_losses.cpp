// The losses by hand through their contracts, and what their contracts promise about masks and threads.
#include <limits>
#include <vector>

#include "check.hpp"
#include "rlsft/gae.hpp"
#include "rlsft/pair_losses.hpp"
#include "rlsft/policy_value_loss.hpp"

namespace {

using rlsft::Column;
using rlsft::FloatType;

const Column kNone = {nullptr, FloatType::float32};
Column column(const std::vector<float>& values) { return {values.data(), FloatType::float32}; }

void two_pairs_of_scores() {
  const float third = std::log(3.0f);
  const std::vector<float> chosen{third, 0}, rejected{0, third};
  float by_chosen[2], by_rejected[2];
  double sums[rlsft::kRewardPairSums];
  const double loss = rlsft::pairwise_reward_loss({column(chosen), column(rejected), kNone, nullptr, 2}, 0, 1,
                                                  {by_chosen, by_rejected, 0.5f}, sums);
  CHECK_NEAR(loss, -std::log(0.75) - std::log(0.25), 1e-6);
  CHECK_NEAR(by_chosen[0], -0.125f, 1e-7f);
  CHECK_NEAR(by_rejected[1], 0.375f, 1e-7f);
  CHECK(sums[rlsft::kRewardPairs] == 2 && sums[rlsft::kCorrect] == 1);
}

void a_hinge_and_a_masked_pair_of_infinities() {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> real{1, infinity}, generated{0, infinity};
  const std::uint8_t mask[] = {1, 0};
  float by_real[2], by_generated[2];
  double sums[rlsft::kPairSums];
  const double loss = rlsft::pair_loss({column(real), column(generated), kNone, mask, 2},
                                       {rlsft::PairKind::hinge, 0.5f, 0, 0}, 1, {by_real, by_generated, 1}, sums);
  CHECK(loss == 0.5 && by_real[0] == -0.5f && by_generated[0] == 0.5f);
  CHECK(by_real[1] == 0 && by_generated[1] == 0 && sums[rlsft::kPairs] == 1);
}

void three_tokens_of_advantages() {
  const std::vector<float> scores{2}, values{9, 0.5f, 0.25f, 9};
  const std::uint8_t mask[] = {0, 1, 1, 0};
  const std::int64_t offsets[] = {0, 4};
  float advantages[4], returns[4], moments[2];
  double statistics[rlsft::kGaeStatistics];
  rlsft::kl_shaped_gae({column(scores), false, kNone, kNone, column(values), mask, kNone, offsets, 1},
                       {0, rlsft::KlEstimator::k1, 1.0, 0.5, false}, 1, advantages, returns, moments, statistics);
  CHECK(advantages[0] == 0 && advantages[3] == 0 && returns[3] == 0);
  CHECK(advantages[2] == 1.75f && returns[2] == 2);
  CHECK(advantages[1] == -0.25f + 0.5f * 1.75f && returns[1] == advantages[1] + 0.5f);
  CHECK(statistics[rlsft::kGaeCount] == 2 && statistics[rlsft::kGaeSequences] == 1);
}

void ratios_of_one_have_no_variance() {
  const std::int64_t n = 3 * 8192 + 5;
  const std::vector<float> logp(static_cast<std::size_t>(n), -1.25f), advantage(static_cast<std::size_t>(n), 1);
  const std::vector<std::uint8_t> mask(static_cast<std::size_t>(n), 1);
  std::vector<float> slope(static_cast<std::size_t>(n), 7);
  double sums[rlsft::kPolicyValueSums];
  const rlsft::PolicyValueSettings settings = {0.2f, 0.2f, false, false, 0, 0, 0, 0, 0, rlsft::KlEstimator::k1, 0, 1};
  const double loss = rlsft::policy_value_loss(
      {column(logp), column(logp), column(advantage), kNone, kNone, kNone, kNone, kNone, mask.data(), n}, settings, 2,
      {slope.data(), nullptr, nullptr}, sums);
  CHECK(loss == -static_cast<double>(n) && sums[rlsft::kTokens] == static_cast<double>(n));
  CHECK(sums[rlsft::kRatioCenteredSquare] == 0 && sums[rlsft::kRatioMax] == 1);
  bool all_minus_one = true;
  for (const float x : slope) all_minus_one = all_minus_one && x == -1;
  CHECK(all_minus_one);
}

}  // namespace

int main() {
  two_pairs_of_scores();
  a_hinge_and_a_masked_pair_of_infinities();
  three_tokens_of_advantages();
  ratios_of_one_have_no_variance();
  return rlsft_test::finish();
}
