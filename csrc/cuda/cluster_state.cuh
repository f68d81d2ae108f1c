// What a block remembers of the group it clusters, and the settings of isodata.
#pragma once

#include "block.cuh"
#include "rlsft/cuda/isodata.hpp"

namespace rlsft::cuda {

constexpr int kClusterThreads = 128;
constexpr double kTie = 1e-10, kSameDirection = 1e-28;  // as in isodata_common.hpp

__device__ __forceinline__ bool exceeds(double value, double threshold) { return value - threshold * (1 + kTie) > 0; }
__device__ __forceinline__ bool ties_with_smallest(double value, double smallest) {
  return !(value - smallest * (1 + kTie) > 0);
}
__device__ __forceinline__ double root(double value) { return value <= 0.0 ? 0.0 : sqrt(value); }

// SplitMix64 of isodata_common.hpp.
__device__ __forceinline__ std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Of both variants.
struct ClusterSettings {
  std::int64_t n_clusters, n_init_clusters;
  std::uint64_t seed;
  int max_iter, default_is_sqrt, init_is_random, cosine;
};

struct BallHallSettings {
  std::int64_t max_merges;
  double min_samples, max_std, min_distance, split_factor, tol;
  int split_by_largest, squared_dispersion, discard_as_noise, stop_early;
};

struct StrSettings {
  std::int64_t min_size, max_size;
  double var_threshold;
  int variance_kind;
};

// Of the group in work; shared memory.
struct ClusterState {
  double scale[kMostRows], to_own[kMostRows];
  double sizes[kMostClusters], spreads[kMostClusters];
  double scalar[2], warp_sums[kMostWarps];
  std::uint64_t random, key[2];
  int labels[kMostRows], is_noise[kMostRows], members[kMostRows];
  int begin[kMostClusters + 1], keep[kMostClusters], wide[kMostClusters];
  int votes[kMostWarps], count;
};

}  // namespace rlsft::cuda
