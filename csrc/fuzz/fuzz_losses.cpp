// The element-wise losses and the advantages: against a plain loop in long double, any threads, any width of input.
#include <algorithm>
#include <string>

#include "fuzz_input.hpp"
#include "rlsft/gae.hpp"
#include "rlsft/pair_losses.hpp"
#include "rlsft/policy_value_loss.hpp"

namespace {

using namespace rlsft_fuzz;
using rlsft::Column;
using rlsft::FloatType;

// A column of numbers in some width, misaligned by one value, and what its numbers are.
class Numbers {
 public:
  Numbers(Input& in, std::int64_t count, const Reals& kind) {
    const bool narrow = in.byte() % 4 == 0;
    values_.push_back(0);
    bits_.push_back(0);
    for (std::int64_t i = 0; i < count; ++i) {
      float value = in.real<float>(kind);
      std::uint32_t word;
      std::memcpy(&word, &value, sizeof word);
      bits_.push_back(static_cast<std::uint16_t>(word >> 16));
      if (narrow) {
        word &= 0xffff0000u;
        std::memcpy(&value, &word, sizeof word);
      }
      values_.push_back(value);
    }
    column_ = narrow ? Column{bits_.data() + 1, FloatType::bfloat16} : Column{values_.data() + 1, FloatType::float32};
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;

  const Column& column() const { return column_; }
  long double operator[](std::int64_t i) const { return values_[static_cast<std::size_t>(i) + 1]; }

 private:
  std::vector<float> values_;
  std::vector<std::uint16_t> bits_;
  Column column_;
};

std::vector<std::uint8_t> mask_from(Input& in, std::int64_t count) {
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(count));
  const std::uint8_t mode = in.byte() % 4;
  for (std::uint8_t& bit : mask) bit = mode == 0 ? 0 : mode == 1 ? 1 : in.byte() % 3;
  return mask;
}

bool near(long double found, long double truth, long double size) {
  return std::abs(found - truth) <= 3e-5L * (1 + size) + 1e-30L;
}

// Longer than a chunk now and then: the numbers after the input's end are zeros.
std::int64_t length(Input& in) { return in.byte() % 8 == 0 ? 250 + in.between(0, 20) : in.between(0, 40); }

void run_pairs(Input& in) {
  Reals kind;
  const std::int64_t n = length(in);
  const Numbers real(in, n, kind), generated(in, n, kind);
  const std::vector<std::uint8_t> mask = mask_from(in, n);
  const rlsft::PairSettings s = {in.pick({rlsft::PairKind::logistic, rlsft::PairKind::linear, rlsft::PairKind::hinge,
                                          rlsft::PairKind::bernoulli, rlsft::PairKind::kliep}),
                                 static_cast<float>(in.between(1, 16)) / 8, 0.25f, 0};
  const auto call = [&](int threads, std::vector<float>& first, std::vector<float>& second, double* sums) {
    first.assign(static_cast<std::size_t>(n), NAN);
    second = first;
    return rlsft::pair_loss({real.column(), generated.column(), {nullptr, FloatType::float32}, mask.data(), n}, s,
                            threads, {first.data(), second.data(), 1.0f}, sums);
  };
  std::vector<float> first, second, again, again_second;
  double sums[rlsft::kPairSums], more[rlsft::kPairSums];
  const double loss = call(1, first, second, sums);
  call(3, again, again_second, more);
  REQUIRE(same_bits(first, again) && same_bits(second, again_second) && same_bits(sums, more, rlsft::kPairSums));
  const auto softplus = [](long double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); };
  long double expected = 0, size = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::size_t k = static_cast<std::size_t>(i);
    if (mask[k] == 0) {
      REQUIRE(first[k] == 0 && second[k] == 0);
      continue;
    }
    const long double x = s.beta * (real[i] - generated[i]);
    const long double rho = s.beta * real[i] + s.offset, other = s.beta * generated[i] + s.offset;
    long double one = 0;
    switch (s.kind) {
      case rlsft::PairKind::logistic: one = softplus(-x); break;
      case rlsft::PairKind::linear: one = -x; break;
      case rlsft::PairKind::hinge: one = std::max(0.0L, 1 - x); break;
      case rlsft::PairKind::bernoulli: one = softplus(-rho) + softplus(other); break;
      case rlsft::PairKind::kliep: one = std::exp(std::min(other, 20.0L)) - rho; break;
    }
    expected += one;
    size += std::abs(one) + std::abs(rho) + std::abs(other);
  }
  REQUIRE(near(loss, expected, size));
}

void run_gae(Input& in) {
  Reals kind;
  std::vector<std::int64_t> offsets = in.offsets(4, 60);
  if (in.byte() % 16 == 0) {
    for (std::size_t g = 1; g < offsets.size(); ++g) offsets[g] += static_cast<std::int64_t>(g) * 8192;  // cut rows
  }
  const std::int64_t n = offsets.back(), rows = static_cast<std::int64_t>(offsets.size()) - 1;
  const Numbers scores(in, rows, kind), values(in, n, kind), logp(in, n, kind), ref(in, n, kind);
  const std::vector<std::uint8_t> mask = mask_from(in, n);
  std::vector<float> bootstrap;
  for (std::int64_t g = 0; g < rows; ++g) bootstrap.push_back(in.real<float>(kind));
  const rlsft::GaeSettings s = {0.125f, rlsft::KlEstimator::k1, static_cast<double>(in.between(0, 8)) / 8,
                                static_cast<double>(in.between(0, 8)) / 8, false};
  const rlsft::GaeInputs inputs = {scores.column(), false,       logp.column(),
                                   ref.column(),    values.column(), mask.data(),
                                   {bootstrap.data(), FloatType::float32}, offsets.data(), rows};
  std::vector<float> advantages(static_cast<std::size_t>(n), NAN), returns = advantages, again = advantages,
                     again_returns = advantages;
  float moments[2], more_moments[2];
  double statistics[rlsft::kGaeStatistics], more[rlsft::kGaeStatistics];
  rlsft::kl_shaped_gae(inputs, s, 1, advantages.data(), returns.data(), moments, statistics);
  rlsft::kl_shaped_gae(inputs, s, 3, again.data(), again_returns.data(), more_moments, more);
  REQUIRE(same_bits(advantages, again) && same_bits(returns, again_returns) && same_bits(moments, more_moments, 2));
  REQUIRE(same_bits(statistics, more, rlsft::kGaeStatistics));
  for (std::int64_t g = 0; g < rows; ++g) {
    long double next_advantage = 0, next_value = bootstrap[static_cast<std::size_t>(g)], size = 40;
    bool is_last = true;
    for (std::int64_t i = offsets[static_cast<std::size_t>(g) + 1]; i-- > offsets[static_cast<std::size_t>(g)];) {
      const std::size_t k = static_cast<std::size_t>(i);
      if (mask[k] == 0) {
        REQUIRE(advantages[k] == 0 && returns[k] == 0);
        continue;
      }
      const long double kl = std::min(20.0L, std::max(-20.0L, logp[i] - ref[i]));
      const long double reward = -0.125L * kl + (is_last ? scores[g] : 0.0L);
      next_advantage = reward + s.gamma * next_value - values[i] + s.gamma * s.lam * next_advantage;
      next_value = values[i];
      is_last = false;
      size = std::max(size, std::abs(next_advantage));
      REQUIRE(near(advantages[k], next_advantage, size / 8));
      REQUIRE(near(returns[k], next_advantage + values[i], size / 8));
    }
  }
}

void run_policy(Input& in) {
  Reals kind;
  const std::int64_t n = length(in);
  const Numbers logp(in, n, kind), old(in, n, kind), advantage(in, n, kind), value(in, n, kind), old_value(in, n, kind),
      target(in, n, kind), entropy(in, n, kind), ref(in, n, kind);
  const std::vector<std::uint8_t> mask = mask_from(in, n);
  const std::uint8_t twist = in.byte();
  const rlsft::PolicyValueSettings s = {0.25f, 0.5f,  (twist & 1) != 0, (twist & 2) != 0, 3.0f, 0.25f, 0.5f,
                                        0.125f, 0.25f, rlsft::KlEstimator::k2, 0.5f, 2.0f};
  const rlsft::PolicyValueInputs inputs = {logp.column(),   old.column(),    advantage.column(),
                                           value.column(),  old_value.column(), target.column(),
                                           entropy.column(), ref.column(),   mask.data(), n};
  std::vector<float> by_logp(static_cast<std::size_t>(n), NAN), by_value = by_logp, by_entropy = by_logp,
                     again = by_logp;
  double sums[rlsft::kPolicyValueSums], more[rlsft::kPolicyValueSums];
  const double loss = rlsft::policy_value_loss(inputs, s, 1, {by_logp.data(), by_value.data(), by_entropy.data()}, sums);
  const std::vector<float> kept = by_value;
  rlsft::policy_value_loss(inputs, s, 3, {again.data(), by_value.data(), by_entropy.data()}, more);
  REQUIRE(same_bits(by_logp, again) && same_bits(kept, by_value) && same_bits(sums, more, rlsft::kPolicyValueSums));
  long double expected = 0, size = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::size_t k = static_cast<std::size_t>(i);
    if (mask[k] == 0) {
      REQUIRE(by_logp[k] == 0 && by_value[k] == 0 && by_entropy[k] == 0);
      continue;
    }
    const long double difference = std::min(20.0L, std::max(-20.0L, logp[i] - old[i]));
    const long double ratio = std::exp(difference), a = (advantage[i] - 0.5L) * 2;
    long double policy = std::max(-a * ratio, -a * std::min(1.5L, std::max(0.75L, ratio)));
    if (s.has_dual_clip && a < 0) policy = std::min(policy, -a * 3);
    const long double move = std::min(0.25L, std::max(-0.25L, value[i] - old_value[i]));
    const long double error = value[i] - target[i];
    const long double capped = s.has_value_clip ? old_value[i] + move - target[i] : error;
    const long double kl = std::min(20.0L, std::max(-20.0L, logp[i] - ref[i]));
    const long double one = policy + 0.25L * std::max(error * error, capped * capped) - 0.125L * entropy[i] +
                            0.125L * kl * kl;
    expected += one;
    size += std::abs(one) + std::abs(a) * ratio;
  }
  REQUIRE(near(loss, expected, size));
  REQUIRE(sums[rlsft::kRatioCenteredSquare] >= 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  switch (in.byte() % 3) {
    case 0: run_pairs(in); break;
    case 1: run_gae(in); break;
    default: run_policy(in); break;
  }
  return 0;
}
