// The inner loops of the graph ops, compiled once for each instruction set and chosen at run time.
//
// Bits: a dot product is summed in one fixed order (16 float or 8 double lanes, then a fixed tree) wherever the pair
// lies in a tile, and a sweep sums over i = 0, 1, 2, ... for every column. So equal rows give equal numbers, and
// batching changes nothing. Instruction sets differ from each other in the last bits, because only some have FMA.
#pragma once

#include <cstdint>

#include "rlsft/edges.hpp"

namespace rlsft {

// Rows in scratch are padded with zeros: 4 rows to a tile, one 64-byte vector to a step.
constexpr std::int64_t kRowTile = 4;
template <typename T>
constexpr std::int64_t kLanes = 64 / static_cast<std::int64_t>(sizeof(T));

constexpr std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

template <typename T>
struct DenseKernels {
  // Copies d values; returns the largest |value|, NaN or inf if any value is not finite.
  T (*copy_row)(const T* source, std::int64_t d, T* destination);

  // gram[i, j] = rows_i . rows_j, both triangles. rows [m_padded, d_padded], 64-byte aligned; gram [m_padded, ld].
  void (*gram)(const T* rows, std::int64_t m_padded, std::int64_t d_padded, T* gram, std::int64_t ld);

  // edges[i, j] = map(cosine), 0 on the diagonal and in columns m..ld-1. gram and edges [m, ld]; inverse_norms [ld],
  // 0 for a zero row and for the padding.
  void (*map_edges)(const T* gram, std::int64_t m, std::int64_t ld, const double* inverse_norms, EdgeMap map, T* edges);

  // y[j] = sum_i u[i] * weights[i, j] for j < columns.
  void (*sweep)(const T* weights, std::int64_t m, std::int64_t columns, std::int64_t ld, const double* u, double* y);

  // sums[i] = sum_j weights[i, j]. False when some weight is negative, NaN or inf.
  bool (*row_sums)(const T* weights, std::int64_t m, std::int64_t ld, double* sums);
};

// The kernels of active_isa(). T is float or double.
template <typename T>
const DenseKernels<T>& dense_kernels();

namespace scalar {
template <typename T>
const DenseKernels<T>& kernels();
}
namespace avx2 {
template <typename T>
const DenseKernels<T>& kernels();
}
namespace avx512 {
template <typename T>
const DenseKernels<T>& kernels();
}

}  // namespace rlsft
