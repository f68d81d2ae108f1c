// Dot products and edges of one group of rows, by one block: what GroupGram does, in the order of its scalar kernels.
#pragma once

#include "block.cuh"
#include "rlsft/edges.hpp"

namespace rlsft::cuda {

// A dot product has 64 bytes of lanes that sum in steps of their number, then fold in halves.
template <typename T>
constexpr int kLanes = 64 / static_cast<int>(sizeof(T));
// Rows whose largest value lies outside of 2^-k .. 2^k are scaled by a power of two: kSafeExponent of similarity.cpp.
template <typename T>
constexpr int kSafeExponent = sizeof(T) == 4 ? 30 : 400;
constexpr int kTile = 4;  // rows and columns of a tile

// exponents[i]: 2^-that scales row i, 0 for ordinary rows. False, for all threads, when a value is NaN or inf.
template <typename T>
__device__ __forceinline__ bool row_exponents(const T* rows, int m, int d, int* exponents, int* votes, bool* has_scaled) {
  const int warps = static_cast<int>(blockDim.x) >> 5;
  bool finite = true, scaled = false;
  for (int first = 0; first < m; first += warps) {  // every warp goes round equally often
    const int i = first + warp_id();
    T largest = 0;
    for (int k = lane_id(); i < m && k < d; k += 32) {
      const T value = rows[static_cast<std::int64_t>(i) * d + k];
      const T size = value < 0 ? -value : value;
      finite = finite && is_finite(static_cast<double>(value));
      largest = size > largest ? size : largest;
    }
    largest = warp_max(largest);
    if (i < m && lane_id() == 0) {
      int exponent = 0;
      if (largest > 0 && is_finite(static_cast<double>(largest))) exponent = ilogb(static_cast<double>(largest));
      if (exponent >= -kSafeExponent<T> && exponent <= kSafeExponent<T>) exponent = 0;
      exponents[i] = exponent;
      scaled = scaled || exponent != 0;
    }
  }
  *has_scaled = block_any(scaled, votes);
  return !block_any(!finite, votes);
}

// Row and column of the tile with this number, counted along the rows of the upper triangle of `side` tiles.
__device__ __forceinline__ int2 tile_place(int number, int side) {
  int row = 0;
  while (number >= side - row) {
    number -= side - row;
    ++row;
  }
  return {row, row + number};
}

template <typename T, bool Scaled>
__device__ __forceinline__ T load_value(const T* rows, int d, int i, int k, const int* exponents) {
  const T value = rows[static_cast<std::int64_t>(i) * d + k];
  if (!Scaled) return value;
  const int exponent = exponents[i];
  return exponent == 0 ? value : static_cast<T>(scale_by_power(static_cast<double>(value), -exponent));
}

// Folds the lanes of sixteen sums at once, each lane keeping half of them a step: lane l ends with the sums
// l * (16 / kLanes) and following, in `sums[0..]`.
template <typename T>
__device__ __forceinline__ void fold_lanes(T (&sums)[kTile * kTile]) {
  int kept = kTile * kTile;
#pragma unroll
  for (int step = kLanes<T> / 2; step > 0; step >>= 1) {
    kept /= 2;
    const bool upper = (lane_id() & step) != 0;
#pragma unroll
    for (int e = 0; e < kTile * kTile / 2; ++e) {
      if (e < kept) {
        const T sent = upper ? sums[e] : sums[e + kept];
        const T own = upper ? sums[e + kept] : sums[e];
        sums[e] = own + __shfl_xor_sync(kFullWarp, sent, step);
      }
    }
  }
}

// gram[i * ld + j] = rows_i . rows_j for all i, j < m. A part of a warp with kLanes threads takes a tile at a time.
template <typename T, bool Scaled>
__device__ __forceinline__ void gram_tiles(const T* rows, int m, int d, const int* exponents, T* gram, int ld) {
  constexpr int kParts = 32 / kLanes<T>;
  const int side = (m + kTile - 1) / kTile, tiles = side * (side + 1) / 2;
  const int lane = lane_id() % kLanes<T>, step = (static_cast<int>(blockDim.x) >> 5) * kParts;
  for (int first = warp_id() * kParts; first < tiles; first += step) {
    const int number = first + lane_id() / kLanes<T>;
    const bool is_tile = number < tiles;
    const int2 place = tile_place(is_tile ? number : 0, side);
    const int i0 = place.x * kTile, j0 = place.y * kTile;
    T sums[kTile * kTile] = {};
    for (int k = lane; k < d; k += kLanes<T>) {
      T left[kTile], right[kTile];
#pragma unroll
      for (int r = 0; r < kTile; ++r) {
        left[r] = load_value<T, Scaled>(rows, d, i0 + r < m ? i0 + r : m - 1, k, exponents);
        right[r] = load_value<T, Scaled>(rows, d, j0 + r < m ? j0 + r : m - 1, k, exponents);
      }
#pragma unroll
      for (int e = 0; e < kTile * kTile; ++e) sums[e] += left[e / kTile] * right[e % kTile];
    }
    fold_lanes(sums);
    constexpr int kOwn = kTile * kTile / kLanes<T>;
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int e = lane * kOwn + own, i = i0 + e / kTile, j = j0 + e % kTile;
      if (!is_tile || i > j || j >= m) continue;
      gram[i * ld + j] = sums[own];
      gram[j * ld + i] = sums[own];
    }
  }
}

template <typename T>
__device__ __forceinline__ double edge_of(double cosine, EdgeMap map) {
  cosine = cosine > 1.0 ? 1.0 : cosine;
  cosine = cosine < -1.0 ? -1.0 : cosine;
  if (map == EdgeMap::shifted_cosine) cosine = 0.5 + 0.5 * cosine;
  if (map == EdgeMap::relu_cosine) cosine = cosine > 0.0 ? cosine : 0.0;
  return cosine;
}

// edges[i * ld + j] = map(cosine), 0 on the diagonal, and their sums [m]. False, for all threads, when a value is NaN or
// inf. exponents, inverse_norms [m] and votes are scratch.
template <typename T>
__device__ __forceinline__ bool make_edges(const T* rows, int m, int d, EdgeMap map, int* exponents, int* votes,
                                           double* inverse_norms, T* edges, int ld, double* sums) {
  bool has_scaled = false;
  if (!row_exponents(rows, m, d, exponents, votes, &has_scaled)) return false;
  if (has_scaled) gram_tiles<T, true>(rows, m, d, exponents, edges, ld);
  else gram_tiles<T, false>(rows, m, d, exponents, edges, ld);
  __syncthreads();
  const int j = thread_id();
  if (j < m) {
    const double square = static_cast<double>(edges[j * ld + j]);
    inverse_norms[j] = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
  }
  __syncthreads();
  if (j < m) {
    const double scale = inverse_norms[j];
    double total = 0.0;
    for (int i = 0; i < m; ++i) {
      const double cosine = static_cast<double>(edges[i * ld + j]) * (scale * inverse_norms[i]);
      const T edge = i == j ? T(0) : static_cast<T>(edge_of<T>(cosine, map));
      edges[i * ld + j] = edge;
      total += static_cast<double>(edge);
    }
    sums[j] = total;
  }
  __syncthreads();
  return true;
}

}  // namespace rlsft::cuda
