// The row loops of head_rows.hpp, compiled once for each instruction set and chosen at run time.
#pragma once

#include <cstdint>

#include "rlsft/head_rows.hpp"

namespace rlsft::head_detail {

// What one row of a tile needs; null pointers and flags as in head_rows.hpp.
struct RowTransform {
  const float* bias;
  float logit_scale, softcap, temperature;
};

struct RowFold {
  double row_max, sum_exp, target_logit, sum_exp_shifted, sum_exp_sq, sum_logit;
  std::int64_t first_largest;
  bool want_shifted, want_sq, want_sum, want_first;
};

struct RowGradient {
  std::int64_t target;  // of the tile's columns, or negative
  float row_max, log_sum, logprob, entropy, by_logprob, by_entropy, by_lse;
  bool has_entropy;
};

template <typename T>
struct HeadKernels {
  void (*fold)(const T* row, std::int64_t columns, std::int64_t column_start, std::int64_t target,
               const RowTransform& transform, RowFold& fold);
  void (*gradient)(const T* row, std::int64_t columns, const RowTransform& transform, const RowGradient& gradient,
                   T* out);
};

// The kernels of active_isa(). T is float, or std::uint16_t for bfloat16.
template <typename T>
const HeadKernels<T>& head_kernels();

namespace scalar {
template <typename T>
const HeadKernels<T>& head_kernels();
}
namespace avx2 {
template <typename T>
const HeadKernels<T>& head_kernels();
}
namespace avx512 {
template <typename T>
const HeadKernels<T>& head_kernels();
}

}  // namespace rlsft::head_detail
