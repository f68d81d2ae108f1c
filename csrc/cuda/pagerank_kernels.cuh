// The kernels of pagerank. A sweep is three: gather (a segment of in-edges for each part of a warp), update (a node for
// each thread) and finish (one block, which decides whether the next sweep still does anything).
#pragma once

#include "block.cuh"
#include "rlsft/cuda/pagerank.hpp"

namespace rlsft::cuda {

constexpr int kGatherThreads = 256;
constexpr int kGatherLanes = 8;  // threads of a segment: graphs have about ten edges a node
constexpr int kStrengthThreads = 128;

template <typename W>
__device__ __forceinline__ double weight_at(const W* weights, std::int64_t e) {
  return static_cast<double>(weights[e]);
}
struct Unweighted {};
__device__ __forceinline__ double weight_at(const Unweighted*, std::int64_t) { return 1.0; }

// The same sum in all `Lanes` neighbouring threads.
template <int Lanes>
__device__ __forceinline__ double fold(double sum) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step >>= 1) sum += __shfl_xor_sync(kFullWarp, sum, step);
  return sum;
}

template <typename W>
__device__ __forceinline__ void gather(std::int64_t segments, const std::int64_t* segment_begin,
                                       const std::int32_t* sources, const W* weights, const double* u, double* partial,
                                       const std::int64_t* progress) {
  if (progress[1] != 0) return;
  const std::int64_t s = (static_cast<std::int64_t>(blockIdx.x) * kGatherThreads + thread_id()) / kGatherLanes;
  const int lane = thread_id() % kGatherLanes;
  double sum = 0.0;
  if (s < segments) {
    const std::int64_t end = segment_begin[s + 1];
    for (std::int64_t e = segment_begin[s] + lane; e < end; e += kGatherLanes) {
      sum += u[sources[e]] * weight_at(weights, e);
    }
  }
  sum = fold<kGatherLanes>(sum);
  if (s < segments && lane == 0) partial[s] = sum;
}

#define RLSFT_GATHER(T, suffix)                                                                                       \
  extern "C" __global__ void __launch_bounds__(kGatherThreads, 4)                                                     \
      rlsft_pagerank_gather_##suffix(std::int64_t segments, const std::int64_t* segment_begin,                        \
                                     const std::int32_t* sources, const T* weights, const double* u, double* partial, \
                                     const std::int64_t* progress) {                                                  \
    gather(segments, segment_begin, sources, weights, u, partial, progress);                                          \
  }
RLSFT_GATHER(Unweighted, ones)
RLSFT_GATHER(float, f32)
RLSFT_GATHER(double, f64)
#undef RLSFT_GATHER

// A warp for each node.
template <typename W>
__device__ __forceinline__ void strengths(std::int64_t n, const std::int64_t* pointers, const W* weights, double* sums) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kStrengthThreads + thread_id()) / 32;
  double sum = 0.0;
  if (i < n) {
    for (std::int64_t e = pointers[i] + lane_id(); e < pointers[i + 1]; e += 32) sum += weight_at(weights, e);
  }
  sum = fold<32>(sum);
  if (i < n && lane_id() == 0) sums[i] = sum;
}

#define RLSFT_STRENGTHS(T, suffix)                                                                                    \
  extern "C" __global__ void __launch_bounds__(kStrengthThreads, 1)                                                   \
      rlsft_pagerank_strengths_##suffix(std::int64_t n, const std::int64_t* pointers, const T* weights, double* sums) { \
    strengths(n, pointers, weights, sums);                                                                            \
  }
RLSFT_STRENGTHS(float, f32)
RLSFT_STRENGTHS(double, f64)
#undef RLSFT_STRENGTHS

// Sums over the block, in a fixed order; valid in thread 0. warp_sums: shared, one for each warp.
__device__ __forceinline__ double block_sum(double value, double* warp_sums) {
  value = fold<32>(value);
  if (lane_id() == 0) warp_sums[warp_id()] = value;
  __syncthreads();
  double sum = 0.0;
  if (thread_id() == 0) {
    for (int warp = 0; warp < kUpdateThreads / 32; ++warp) sum += warp_sums[warp];
  }
  return sum;
}

// is_start: only u and the masses, from x as it is.
extern "C" __global__ void __launch_bounds__(kUpdateThreads, 1)
    rlsft_pagerank_update(std::int64_t n, const std::int64_t* row_segments, const double* partial,
                          const double* inverse, const double* teleport, const double* dangling, double damping,
                          int is_start, double* x, double* u, double* sums, const double* masses,
                          const std::int64_t* progress) {
  if (is_start == 0 && progress[1] != 0) return;
  __shared__ double warp_sums[3][kUpdateThreads / 32];
  const std::int64_t j = static_cast<std::int64_t>(blockIdx.x) * kUpdateThreads + thread_id();
  double next = 0.0, moved = 0.0, lost = 0.0;
  if (j < n) {
    next = x[j];
    if (is_start == 0) {
      double entered = 0.0;
      for (std::int64_t s = row_segments[j]; s < row_segments[j + 1]; ++s) entered += partial[s];
      const double before = next;
      next = (1.0 - damping) * teleport[j] + damping * (entered + masses[1] * dangling[j]);
      moved = magnitude(next - before);
      x[j] = next;
    }
    const double inverse_strength = inverse[j];
    u[j] = next * inverse_strength;
    lost = inverse_strength == 0.0 ? next : 0.0;
  }
  const double step = block_sum(moved, warp_sums[0]);
  const double dangling_mass = block_sum(lost, warp_sums[1]);
  const double total = block_sum(next, warp_sums[2]);
  if (thread_id() == 0) {
    sums[blockIdx.x] = step;
    sums[gridDim.x + blockIdx.x] = dangling_mass;
    sums[2 * gridDim.x + blockIdx.x] = total;
  }
}

extern "C" __global__ void __launch_bounds__(kUpdateThreads, 1)
    rlsft_pagerank_finish(int blocks, const double* sums, double tol, std::int64_t max_iter, int is_start,
                          double* masses, std::int64_t* progress) {
  if (is_start == 0 && progress[1] != 0) return;
  __shared__ double warp_sums[3][kUpdateThreads / 32];
  double found[3] = {0.0, 0.0, 0.0};
#pragma unroll
  for (int kind = 0; kind < 3; ++kind) {
    double sum = 0.0;
    for (int b = thread_id(); b < blocks; b += kUpdateThreads) {
      sum += sums[static_cast<std::int64_t>(kind) * blocks + b];
    }
    found[kind] = block_sum(sum, warp_sums[kind]);
  }
  if (thread_id() != 0) return;
  masses[0] = is_start != 0 ? kInfinity : found[0];
  masses[1] = found[1];
  masses[2] = found[2];
  const std::int64_t done = is_start != 0 ? 0 : progress[0] + 1;
  progress[0] = done;
  progress[1] = done >= max_iter || (is_start == 0 && found[0] < tol) ? 1 : 0;
}

}  // namespace rlsft::cuda
