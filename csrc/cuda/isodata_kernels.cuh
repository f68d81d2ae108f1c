// The kernels of isodata: a block takes one group after another.
#pragma once

#include "group_clusters.cuh"
#include "rlsft/cuda/isodata.hpp"

namespace rlsft::cuda {

template <typename T>
__device__ __forceinline__ void cluster_groups(const IsodataArrays<T>& a, std::int64_t groups, int d, int starts,
                                               int most, std::int64_t stride, const ClusterSettings& settings,
                                               ClusterState& state) {
  for (std::int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
    __syncthreads();
    const std::int64_t first = a.offsets[g];
    const int n = static_cast<int>(a.offsets[g + 1] - first);
    if (n == 0) {
      if (thread_id() == 0) a.counts[g] = a.n_steps[g] = a.stops[g] = 0;
      continue;
    }
    BlockClusters<T> clusters(state, settings, a.points + first * d, n, d,
                              a.weight == nullptr ? nullptr : a.weight + first, a.workspace + blockIdx.x * stride, most,
                              settings.max_iter);
    if (!clusters.prepare()) {
      if (thread_id() == 0) {
        a.counts[g] = a.stops[g] = 0;
        a.n_steps[g] = kBadPoints;
      }
      continue;
    }
    clusters.run(a.start == nullptr ? nullptr : a.start + g * starts * d, starts, a.steps + g * settings.max_iter * 4,
                 a.n_steps + g, a.stops + g);
    const int count = clusters.finish(a.scores == nullptr ? nullptr : a.scores + first, first, a.labels + first,
                                      a.centers + first * d, a.medoids + first);
    if (thread_id() == 0) a.counts[g] = count;
  }
}

#define RLSFT_ISODATA_KERNEL(T, suffix)                                                                              \
  extern "C" __global__ void __launch_bounds__(kClusterThreads, 1) rlsft_isodata_##suffix(                           \
      const T* points, const std::int64_t* offsets, const double* start, const double* scores, const double* weight, \
      double* workspace, std::int32_t* labels, T* centers, std::int64_t* medoids, std::int32_t* counts,              \
      std::int32_t* steps, std::int32_t* n_steps, std::int32_t* stops, std::int64_t groups, int d, int starts,       \
      int most, std::int64_t stride, std::int64_t n_clusters, std::int64_t n_init_clusters, std::int64_t max_merges, \
      std::uint64_t seed, double min_samples, double max_std, double min_distance, double split_factor, double tol,  \
      int max_iter, int default_is_sqrt, int init_is_random, int cosine, int split_by_largest,                       \
      int squared_dispersion, int discard_as_noise, int stop_early) {                                                \
    __shared__ ClusterState state;                                                                                   \
    const IsodataArrays<T> arrays{points, offsets, start,  scores, weight,  workspace, labels,                       \
                                  centers, medoids, counts, steps,  n_steps, stops};                                 \
    const ClusterSettings settings{n_clusters,   n_init_clusters, max_merges,     seed,             min_samples,     \
                                   max_std,      min_distance,    split_factor,   tol,              max_iter,        \
                                   default_is_sqrt, init_is_random, cosine, split_by_largest, squared_dispersion,    \
                                   discard_as_noise, stop_early};                                                    \
    cluster_groups(arrays, groups, d, starts, most, stride, settings, state);                                        \
  }
RLSFT_ISODATA_KERNEL(float, f32)
RLSFT_ISODATA_KERNEL(double, f64)
#undef RLSFT_ISODATA_KERNEL

}  // namespace rlsft::cuda
