// Losses on pairs of numbers, forward and gradients in one pass: of a reward model, and of log-ratio sums.
#pragma once

#include "rlsft/columns.hpp"

namespace rlsft {

struct PairInputs {
  Column first, second;      // chosen and rejected, or real and generated
  Column margin;             // optional
  const std::uint8_t* mask;  // optional: nonzero where a pair counts
  std::int64_t count;
};

struct PairGradients {  // of scale * the sum, `count` floats each, 0 at masked pairs
  float *first, *second;
  float scale;
};

enum RewardPairSum {
  kRewardPairs, kRanking, kCentering, kCorrect, kDifference, kChosen, kRejected, kRewardPairSums
};

// Sum of -log sigmoid(first - second - margin) + center_coef * (first + second)^2; fills sums[kRewardPairSums].
double pairwise_reward_loss(const PairInputs& inputs, float center_coef, int threads, const PairGradients& gradients,
                            double* sums);

enum class PairKind { logistic, linear, hinge, bernoulli, kliep };

struct PairSettings {
  PairKind kind;
  float beta, offset, label_smoothing;
};

enum PairSum { kPairs, kPairLoss, kPairCorrect, kRewardReal, kRewardGenerated, kMargin, kSaturated, kPairSums };

// kliep exponentiates; its exponent is at most this, and beyond it a pair pulls on the generated side no more.
constexpr float kMaxPairExponent = 20.0f;
// A pair is saturated when what is left of the pull of a sigmoid is below this share of its largest.
constexpr float kSaturatedPull = 0.01f;

// With h = first - second and rho = beta * x + offset, the sum over pairs of
//   logistic   (1 - smoothing) * softplus(-beta h) + smoothing * softplus(beta h)
//   linear     -beta h
//   hinge      max(0, 1 - beta h)
//   bernoulli  softplus(-rho_first) + softplus(rho_second)
//   kliep      -rho_first + exp(min(rho_second, kMaxPairExponent))
// Fills sums[kPairSums]. Masked pairs add exactly zero, whatever they hold.
//
// Both: O(count), no temporary; fixed blocks merged in order, so the result does not depend on `threads`.
double pair_loss(const PairInputs& inputs, const PairSettings& settings, int threads, const PairGradients& gradients,
                 double* sums);

}  // namespace rlsft
