// The inner loops of the graph ops, compiled once for each instruction set and chosen at run time.
//
// Bits: a dot product is summed in one fixed order (16 float or 8 double lanes, then a fixed tree) wherever the pair
// lies in a tile. So equal rows give equal numbers, and batching changes nothing. Instruction sets differ from each
// other in the last bits, because only some have FMA.
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

  // gram[i, j] = rows_i . rows_j for i in begin..end and j >= i; with `mirror` gram[j, i] too. rows [m, stride] at any
  // address; m, begin and end are multiples of kRowTile, d of kLanes; gram [m, ld]. `next` (or null): m * d values that
  // are brought into the cache meanwhile.
  void (*gram)(const T* rows, std::int64_t m, std::int64_t d, std::int64_t stride, std::int64_t begin,
               std::int64_t end, const T* next, bool mirror, T* gram, std::int64_t ld);

  // out[i] = 1 / sqrt(gram[i, i]), 0 where that is 0 and for i >= m; out [m rounded up to 8].
  void (*inverse_norms)(const T* gram, std::int64_t m, std::int64_t ld, double* out);

  // edges[i, j] = map(cosine) for rows i in begin..end and columns j from `column` (a multiple of 8) on, 0 on the
  // diagonal and in columns m..ld-1; sums[j] = sum of edges[i, j] over these rows. gram and edges [m, ld], 64-byte
  // aligned, may be the same; inverse_norms and sums [ld].
  void (*map_edges)(const T* gram, std::int64_t begin, std::int64_t end, std::int64_t column, std::int64_t m,
                    std::int64_t ld, const double* inverse_norms, EdgeMap map, T* edges, double* sums);
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
