// What the kernels share: threads of a block, and sums whose order is fixed.
#pragma once

#include <cstdint>

namespace rlsft::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x) & 31; }
__device__ __forceinline__ int warp_id() { return static_cast<int>(threadIdx.x) >> 5; }
__device__ __forceinline__ int thread_id() { return static_cast<int>(threadIdx.x); }

template <typename T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    const T other = __shfl_xor_sync(kFullWarp, value, step);
    value = other > value ? other : value;
  }
  return value;
}

__device__ __forceinline__ int lowest_bit(unsigned bits) { return __popc((bits & (0u - bits)) - 1u); }

constexpr int kMostWarps = 8;

// Whether any thread of the block says so. All threads call it; votes [kMostWarps] is shared scratch.
__device__ __forceinline__ bool block_any(bool vote, int* votes) {
  const bool any = __any_sync(kFullWarp, vote) != 0;
  __syncthreads();
  if (lane_id() == 0) votes[warp_id()] = any;
  __syncthreads();
  int found = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) >> 5; ++warp) found |= votes[warp];
  return found != 0;
}

__device__ __forceinline__ double magnitude(double x) { return x < 0.0 ? -x : x; }
__device__ __forceinline__ bool is_finite(double x) { return magnitude(x) <= 1.7976931348623157e308; }
constexpr double kInfinity = __builtin_huge_val();

// x * 2^exponent, rounded once. Two factors, because 2^exponent itself may lie outside of double's range.
__device__ __forceinline__ double scale_by_power(double x, int exponent) { return ldexp(x, exponent); }

}  // namespace rlsft::cuda
