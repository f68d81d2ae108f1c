// The kernels of isodata: a block takes one group after another.
#pragma once

#include "ball_hall_clusters.cuh"
#include "rlsft/cuda/isodata.hpp"
#include "str_clusters.cuh"

namespace rlsft::cuda {

template <typename Clusters, typename T>
__device__ __forceinline__ void cluster_groups(const IsodataArrays<T>& a, std::int64_t groups, int d, int starts,
                                               int most, std::int64_t stride, const ClusterSettings& common,
                                               const typename Clusters::Settings& settings,
                                               typename Clusters::State& state) {
  for (std::int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
    __syncthreads();
    const std::int64_t first = a.offsets[g];
    const int n = static_cast<int>(a.offsets[g + 1] - first);
    if (n == 0) {
      if (thread_id() == 0) a.counts[g] = a.n_steps[g] = a.stops[g] = 0;
      continue;
    }
    Clusters clusters(state, common, settings, a.points + first * d, n, d,
                      a.weight == nullptr ? nullptr : a.weight + first, a.workspace + blockIdx.x * stride, most);
    if (!clusters.prepare()) {
      if (thread_id() == 0) {
        a.counts[g] = a.stops[g] = 0;
        a.n_steps[g] = kBadPoints;
      }
      continue;
    }
    clusters.run(a.start == nullptr ? nullptr : a.start + g * starts * d, starts, a.steps + g * common.max_iter * 4,
                 a.n_steps + g, a.stops + g);
    const int count = clusters.finish(a.scores == nullptr ? nullptr : a.scores + first, first, a.labels + first,
                                      a.centers + first * d, a.medoids + first);
    if (thread_id() == 0) a.counts[g] = count;
  }
}

// What both kernels are given, before the settings of their variant.
#define RLSFT_ISODATA_PARAMETERS(T)                                                                                    \
  const T *points, const std::int64_t *offsets, const double *start, const double *scores, const double *weight,       \
      double *workspace, std::int32_t *labels, T *centers, std::int64_t *medoids, std::int32_t *counts,                \
      std::int32_t *steps, std::int32_t *n_steps, std::int32_t *stops, std::int64_t groups, int d, int starts,         \
      int most, std::int64_t stride, std::int64_t n_clusters, std::int64_t n_init_clusters, std::uint64_t seed,        \
      int max_iter, int default_is_sqrt, int init_is_random, int cosine
#define RLSFT_ISODATA_CLUSTER(Clusters, T, ...)                                                                        \
  __shared__ Clusters<T>::State state;                                                                                 \
  const IsodataArrays<T> arrays{points,  offsets, start,  scores, weight,  workspace, labels,                          \
                                centers, medoids, counts, steps,  n_steps, stops};                                     \
  const ClusterSettings common{n_clusters, n_init_clusters, seed, max_iter, default_is_sqrt, init_is_random, cosine};  \
  const Clusters<T>::Settings settings{__VA_ARGS__};                                                                   \
  cluster_groups<Clusters<T>>(arrays, groups, d, starts, most, stride, common, settings, state)

#define RLSFT_ISODATA_KERNELS(T, suffix)                                                                               \
  extern "C" __global__ void __launch_bounds__(kClusterThreads, 1)                                                     \
      rlsft_isodata_##suffix(RLSFT_ISODATA_PARAMETERS(T), std::int64_t max_merges, double min_samples, double max_std, \
                             double min_distance, double split_factor, double tol, int split_by_largest,               \
                             int squared_dispersion, int discard_as_noise, int stop_early) {                           \
    RLSFT_ISODATA_CLUSTER(BallHallClusters, T, max_merges, min_samples, max_std, min_distance, split_factor, tol,      \
                          split_by_largest, squared_dispersion, discard_as_noise, stop_early);                         \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(kClusterThreads, 1)                                                     \
      rlsft_isodata_str_##suffix(RLSFT_ISODATA_PARAMETERS(T), std::int64_t min_size, std::int64_t max_size,            \
                                 double var_threshold, int variance_kind) {                                            \
    RLSFT_ISODATA_CLUSTER(StrClusters, T, min_size, max_size, var_threshold, variance_kind);                           \
  }
RLSFT_ISODATA_KERNELS(float, f32)
RLSFT_ISODATA_KERNELS(double, f64)
#undef RLSFT_ISODATA_KERNELS
#undef RLSFT_ISODATA_CLUSTER
#undef RLSFT_ISODATA_PARAMETERS

}  // namespace rlsft::cuda
