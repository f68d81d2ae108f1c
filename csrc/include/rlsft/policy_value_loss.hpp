// PPO's clipped policy and value loss, entropy bonus and KL penalty with their gradients, in one pass over the tokens.
#pragma once

#include "rlsft/columns.hpp"

namespace rlsft {

struct PolicyValueInputs {
  Column logprobs, old_logprobs, advantages;
  Column values, old_values, returns;  // all three or none
  Column entropy, ref_logprobs;        // optional
  const std::uint8_t* mask;            // nonzero where a token counts
  std::int64_t count;
};

struct PolicyValueSettings {
  float clip_low, clip_high;
  bool has_dual_clip, has_value_clip;
  float dual_clip, value_clip;  // > 1, > 0
  float vf_coef, entropy_coef, kl_coef;
  KlEstimator kl_estimator;
  float advantage_mean, advantage_scale;  // advantages count as (A - mean) * scale
};

// Gradients of the sum, `count` floats each, 0 at masked tokens; null where the input is left out.
struct PolicyValueGradients {
  float *logprobs, *values, *entropy;
};

// Sums over the tokens that count, in this order; ratio_max is a maximum (at least 0).
enum PolicyValueSum {
  kTokens, kPolicyLoss, kValueLoss, kEntropy, kKlRef, kApproxKl1, kApproxKl2, kApproxKl3, kClipped, kClippedLower,
  kValueClipped, kRatio, kRatioCenteredSquare, kRatioMax, kPolicyValueSums
};

// Fills the gradients and sums[kPolicyValueSums] and returns the summed loss. Masked tokens add exactly zero, whatever
// they hold. Time and traffic are one pass: O(count), no temporary. The result does not depend on `threads`: blocks of
// a fixed size are merged in order, in float64.
double policy_value_loss(const PolicyValueInputs& inputs, const PolicyValueSettings& settings, int threads,
                         const PolicyValueGradients& gradients, double* sums);

}  // namespace rlsft
