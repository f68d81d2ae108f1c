// The inner loops of ISODATA on a Gram matrix, compiled once for each instruction set and chosen at run time.
// Arrays over the rows of a group have `stride` entries: the rows, then padding up to a multiple of 8.
#pragma once

#include <cstdint>

namespace rlsft::isodata_detail {

template <typename T>
struct GramKernels {
  // sums[s * stride + i] = sum of gram[j, i] over the rows j with set[j] == s; rows with set[j] < 0 are left out.
  void (*member_sums)(const double* gram, std::int64_t ld, std::int64_t n, const std::int32_t* set, std::int64_t num_sets,
                      std::int64_t stride, double* sums);

  // distances[i] = diagonal[i] - scale * sums[i] + constant
  void (*distances)(const double* diagonal, const double* sums, double scale, double constant, std::int64_t stride,
                    double* distances);

  // labels[i] = the centre c < k with the smallest distances[c * stride + i]. False when the runner-up of some row
  // lies within `margin` plus a relative `tie` of the smallest.
  bool (*nearest)(const double* distances, std::int64_t k, std::int64_t n, std::int64_t stride, double margin,
                  double tie, std::int32_t* labels);

  // mean[q] = first[q] + mean over the members of (x[q] - first[q]): equal rows have exactly that mean.
  void (*mean)(const T* const* members, std::int64_t count, std::int64_t d, double* mean);

  // variance[q] around mean[q], divisor count; returns the largest.
  double (*variance)(const T* const* members, std::int64_t count, std::int64_t d, const double* mean,
                     double* variance);

  // sum over q of (x[q] - c[q])^2 in float64
  double (*squared_distance)(const T* x, const double* c, std::int64_t d);

  // to[q] = from[q], rounded
  void (*narrow)(const double* from, std::int64_t d, float* to);

  // Whether every |x[i]| <= limit; false for NaN. limit above the largest T means finite.
  bool (*within)(const T* x, std::int64_t count, T limit);
};

// The kernels of active_isa(). T is float or double.
template <typename T>
const GramKernels<T>& gram_kernels();

namespace scalar {
template <typename T>
const GramKernels<T>& gram_kernels();
}
namespace avx2 {
template <typename T>
const GramKernels<T>& gram_kernels();
}
namespace avx512 {
template <typename T>
const GramKernels<T>& gram_kernels();
}

}  // namespace rlsft::isodata_detail
