#include "rlsft/pair_losses.hpp"

#include "block_sums.hpp"

namespace rlsft {
namespace {

using namespace losses_detail;

constexpr double kNsPerPair = 2;

}  // namespace

double pairwise_reward_loss(const PairInputs& inputs, float center_coef, int threads, const PairGradients& gradients,
                            double* sums) {
  const LossKernels& kernels = loss_kernels();
  add_blocks(sums_of_blocks(inputs.count, kRewardPairSums, kNsPerPair, threads,
                            [&](std::int64_t begin, std::int64_t end, double* block) {
                              kernels.reward_pairs(inputs, center_coef, begin, end, gradients, block);
                            }),
             kRewardPairSums, sums);
  // without centring its square must not enter: it overflows for scores that the ranking term still takes
  return center_coef == 0 ? sums[kRanking] : sums[kRanking] + static_cast<double>(center_coef) * sums[kCentering];
}

double pair_loss(const PairInputs& inputs, const PairSettings& settings, int threads, const PairGradients& gradients,
                 double* sums) {
  const LossKernels& kernels = loss_kernels();
  add_blocks(sums_of_blocks(inputs.count, kPairSums, kNsPerPair, threads,
                            [&](std::int64_t begin, std::int64_t end, double* block) {
                              kernels.pairs(inputs, settings, begin, end, gradients, block);
                            }),
             kPairSums, sums);
  return sums[kPairLoss];
}

}  // namespace rlsft
