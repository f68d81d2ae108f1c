// Rewards shaped by a KL penalty, generalised advantages, returns and whitening moments.
#pragma once

#include "rlsft/columns.hpp"

namespace rlsft {

struct GaeInputs {
  Column scores;            // one a row, or one a token
  bool has_token_scores;
  Column logprobs, ref_logprobs;  // ref_logprobs optional: no penalty without
  Column values;
  const std::uint8_t* mask;       // nonzero at action tokens
  Column bootstrap_values;        // float32, one a row, optional: the value after the last token
  const std::int64_t* offsets;    // [rows + 1], tokens of each row
  std::int64_t rows;
};

struct GaeSettings {
  float kl_coef;
  KlEstimator kl_estimator;
  double gamma, lam;
  bool whiten;
};

enum GaeStatistic {
  kGaeCount, kGaeSequences, kGaeKl, kGaeKlSum, kGaeNonScoreReward, kGaeScores, kGaeRlhfReward, kGaeAdvantagesMean,
  kGaeAdvantagesVar, kGaeReturnsMean, kGaeReturnsVar, kGaeValuesMean, kGaeTooFewToWhiten, kGaeStatistics
};

// With r_t = -kl_coef * kl_t + score: A_t = r_t + gamma * V_next - V_t + gamma * lam * A_next over the unmasked tokens
// of a row, returns_t = A_t + V_t; 0 at masked tokens, whatever they hold. Whitened advantages are
// (A - mean) * rsqrt(var + 1e-8) with the unbiased variance; fewer than two tokens stay as they are.
// `advantages` and `returns` hold one float a token, `moments` mean and reciprocal deviation ((0, 1) for fewer than
// two), `statistics` kGaeStatistics numbers.
//
// One pass, and one more over the advantages when they are whitened. Rows longer than a fixed segment are cut: each
// segment runs as if nothing came in from the right, then takes on what did, so that threads help few long rows. The
// cut, and so the result, does not depend on `threads`.
void kl_shaped_gae(const GaeInputs& inputs, const GaeSettings& settings, int threads, float* advantages, float* returns,
                   float* moments, double* statistics);

}  // namespace rlsft
