// The inner loops of the element-wise losses, compiled once for each instruction set and chosen at run time.
#pragma once

#include <cstdint>

#include "rlsft/gae.hpp"
#include "rlsft/pair_losses.hpp"
#include "rlsft/policy_value_loss.hpp"

namespace rlsft::losses_detail {

// Tokens that one call works on at most, and whose sums are rounded together.
constexpr std::int64_t kBlock = 8192;

// Count, mean and sum of squared deviations, merged without cancellation (Chan, Golub, LeVeque 1979).
struct Moments {
  double count, mean, squares;
};
// Static: a copy in each file that includes it, so that no instruction set's copy can serve another.
static inline void merge(Moments& into, const Moments& other) {
  if (other.count == 0) return;
  const double count = into.count + other.count, step = other.mean - into.mean;
  into.mean += step * (other.count / count);
  into.squares += other.squares + step * step * (into.count * (other.count / count));
  into.count = count;
}

// A piece of one row. `score_at` is the token that takes the row's score, -1 when it lies elsewhere.
struct GaeSegment {
  std::int64_t row, begin, end, score_at;
  float next_value;  // the bootstrap value in the rightmost piece of a row, 0 in the others until they are connected
  bool is_whole_row;
};
// What the segment passes to the left when nothing comes in from the right; gae.cpp adds what does come in.
struct GaeSummary {
  std::int64_t tokens;      // that count
  double advantage, value;  // at the first of them
};
struct GaeSums {
  double kl, score, value;
  Moments advantages, returns;
};

struct LossKernels {
  // Tokens [begin, end) of at most kBlock; sums[kPolicyValueSums] is written, kRatioCenteredSquare around its own mean.
  void (*policy_value)(const PolicyValueInputs& in, const PolicyValueSettings& settings, std::int64_t begin,
                       std::int64_t end, const PolicyValueGradients& out, double* sums);
  // The segment's advantages and returns as if nothing came in from the right; moments only of whole rows.
  void (*gae)(const GaeInputs& in, const GaeSettings& settings, const GaeSegment& segment, float* advantages,
              float* returns, GaeSums* sums, GaeSummary* summary);
  // Adds what comes in: `incoming` at the last token that counts, times `decay` at each one before; then the moments.
  void (*connect)(const GaeInputs& in, const GaeSegment& segment, double incoming, double decay, float* advantages,
                  float* returns, GaeSums* sums);
  // x = (x - mean) * scale where the mask is set
  void (*whiten)(float* x, const std::uint8_t* mask, std::int64_t count, float mean, float scale);
  void (*reward_pairs)(const PairInputs& in, float center_coef, std::int64_t begin, std::int64_t end,
                       const PairGradients& out, double* sums);
  void (*pairs)(const PairInputs& in, const PairSettings& settings, std::int64_t begin, std::int64_t end,
                const PairGradients& out, double* sums);
};

// The kernels of active_isa().
const LossKernels& loss_kernels();

namespace scalar {
const LossKernels& loss_kernels();
}
namespace avx2 {
const LossKernels& loss_kernels();
}
namespace avx512 {
const LossKernels& loss_kernels();
}

}  // namespace rlsft::losses_detail
