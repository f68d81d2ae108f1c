#include "rlsft/policy_value_loss.hpp"

#include "block_sums.hpp"

namespace rlsft {
namespace {

using namespace losses_detail;

constexpr double kNsPerToken = 1.5;

// A maximum that keeps a NaN once met.
double larger(double a, double b) { return b > a || b != b ? b : a; }

void merge_blocks(const std::vector<double>& blocks, double* sums) {
  add_blocks(blocks, kPolicyValueSums, sums);
  Moments ratios = {0, 0, 0};
  double largest = 0;
  for (std::size_t b = 0; b < blocks.size(); b += kPolicyValueSums) {
    const double* block = blocks.data() + b;
    const double tokens = block[kTokens];
    merge(ratios, {tokens, tokens > 0 ? block[kRatio] / tokens : 0, block[kRatioCenteredSquare]});
    largest = larger(largest, block[kRatioMax]);
  }
  sums[kRatioCenteredSquare] = ratios.squares;
  sums[kRatioMax] = largest;
}

}  // namespace

double policy_value_loss(const PolicyValueInputs& inputs, const PolicyValueSettings& settings, int threads,
                         const PolicyValueGradients& gradients, double* sums) {
  const LossKernels& kernels = loss_kernels();
  merge_blocks(sums_of_blocks(inputs.count, kPolicyValueSums, kNsPerToken, threads,
                              [&](std::int64_t begin, std::int64_t end, double* block) {
                                kernels.policy_value(inputs, settings, begin, end, gradients, block);
                              }),
               sums);
  double total = sums[kPolicyLoss];
  if (inputs.values.data != nullptr) total += static_cast<double>(settings.vf_coef) * sums[kValueLoss];
  if (inputs.entropy.data != nullptr) total -= static_cast<double>(settings.entropy_coef) * sums[kEntropy];
  if (inputs.ref_logprobs.data != nullptr) total += static_cast<double>(settings.kl_coef) * sums[kKlRef];
  return total;
}

}  // namespace rlsft
