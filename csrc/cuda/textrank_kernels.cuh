// The kernels of textrank: one block a group. The small ones keep the edges in shared memory, the wide ones in global
// memory; each leaves the other's groups alone.
#pragma once

#include "gram.cuh"
#include "group_ranker.cuh"
#include "rlsft/cuda/textrank.hpp"

namespace rlsft::cuda {

constexpr int kSmallThreads = 128, kWideThreads = 256;

struct RankArguments {
  const std::int64_t *offsets, *block_offsets;
  const double *teleport, *start;
  RankSettings settings;
  double* matrix;
  std::int64_t* n_iter;
  double* residual;
};

// The group of this block.
struct BlockGroup {
  std::int64_t first, block;
  int m;
  __device__ __forceinline__ explicit BlockGroup(const RankArguments& a) {
    const std::int64_t g = blockIdx.x;
    first = a.offsets[g];
    m = static_cast<int>(a.offsets[g + 1] - first);
    block = a.block_offsets[g];
  }
};

__device__ __forceinline__ const double* part(const double* all, std::int64_t first) {
  return all == nullptr ? nullptr : all + first;
}

__device__ __forceinline__ void report(const RankArguments& a, RankOutcome outcome) {
  if (thread_id() != 0) return;
  a.n_iter[blockIdx.x] = outcome.n_iter;
  a.residual[blockIdx.x] = outcome.residual;
}

// Edges and sums of the rows' cosines. False, for all threads, when there is a value or an edge that cannot be used.
template <typename T, int N>
__device__ __forceinline__ bool edges_of_rows(const T* rows, int d, EdgeMap map, bool allows_negative, int m,
                                              RankVectors<N>& vectors, T* edges, int ld) {
  if (!make_edges(rows, m, d, map, vectors.exponents, vectors.votes, vectors.y, edges, ld, vectors.sums)) return false;
  if (map != EdgeMap::cosine || allows_negative) return true;
  bool negative = false;
  for (int i = 0; thread_id() < m && i < m; ++i) negative = negative || edges[i * ld + thread_id()] < T(0);
  return !block_any(negative, vectors.votes);
}

// The same for weights [m, m] that are given.
template <typename T, int N>
__device__ __forceinline__ bool copy_weights(const T* weights, int m, RankVectors<N>& vectors, T* edges, int ld) {
  bool valid = true;
  for (int e = thread_id(); e < m * m; e += static_cast<int>(blockDim.x)) {
    const T weight = weights[e];
    valid = valid && weight >= T(0) && is_finite(static_cast<double>(weight));
    edges[e / m * ld + e % m] = weight;
  }
  if (block_any(!valid, vectors.votes)) return false;
  if (thread_id() < m) vectors.sums[thread_id()] = row_sum(edges, m, ld, thread_id());
  __syncthreads();
  return true;
}

// d: columns of the rows in `values`; 0 when they are weights.
template <typename T, int N>
__device__ __forceinline__ RankOutcome rank_group(const T* values, int d, EdgeMap map, const RankArguments& a,
                                                  const BlockGroup& group, RankVectors<N>& vectors, T* edges, int ld,
                                                  T* scores) {
  const bool is_usable = d > 0 ? edges_of_rows(values + group.first * d, d, map, a.settings.allows_negative, group.m,
                                               vectors, edges, ld)
                               : copy_weights(values + group.block, group.m, vectors, edges, ld);
  if (!is_usable) return {kBadInput, 0.0};
  BlockRanker<T, N> ranker(vectors, edges, group.m, ld, a.settings);
  return ranker.rank(part(a.teleport, group.first), part(a.start, group.first), d > 0, a.matrix + group.block,
                     scores + group.first);
}

#define RLSFT_RANK_PARAMETERS                                                                                        \
  const std::int64_t *offsets, const std::int64_t *block_offsets, const double *teleport, const double *start,       \
      double damping, double tol, std::int64_t max_iter, int form, int method, int allows_negative, double *matrix,  \
      std::int64_t *n_iter, double *residual
#define RLSFT_RANK_ARGUMENTS                                                                                         \
  {offsets, block_offsets, teleport, start,                                                                          \
   {damping, tol, max_iter, static_cast<RankForm>(form), static_cast<RankMethod>(method), allows_negative != 0},     \
   matrix, n_iter, residual}

// small: edges in shared memory with an odd number of columns, so that the readers of a column meet in no bank
#define RLSFT_TEXTRANK_KERNELS(T, suffix)                                                                            \
  extern "C" __global__ void __launch_bounds__(kSmallThreads, 1)                                                     \
      rlsft_textrank_small_##suffix(const T* values, int d, int map, T* scores, RLSFT_RANK_PARAMETERS) {             \
    const RankArguments a RLSFT_RANK_ARGUMENTS;                                                                      \
    const BlockGroup group(a);                                                                                       \
    if (group.m > kSmallGroup) return;                                                                               \
    if (group.m == 0) return report(a, {0, 0.0});                                                                    \
    __shared__ RankVectors<kSmallGroup> vectors;                                                                     \
    __shared__ T edges[kSmallGroup * (kSmallGroup + 1)];                                                             \
    report(a, rank_group(values, d, static_cast<EdgeMap>(map), a, group, vectors, edges, group.m | 1, scores));      \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(kWideThreads, 1)                                                      \
      rlsft_textrank_wide_##suffix(const T* values, int d, int map, T* workspace, T* scores,                         \
                                   RLSFT_RANK_PARAMETERS) {                                                          \
    const RankArguments a RLSFT_RANK_ARGUMENTS;                                                                      \
    const BlockGroup group(a);                                                                                       \
    if (group.m <= kSmallGroup) return;                                                                              \
    __shared__ RankVectors<kMaxGroup> vectors;                                                                       \
    report(a, rank_group(values, d, static_cast<EdgeMap>(map), a, group, vectors, workspace + group.block, group.m,  \
                         scores));                                                                                   \
  }

RLSFT_TEXTRANK_KERNELS(float, f32)
RLSFT_TEXTRANK_KERNELS(double, f64)
#undef RLSFT_TEXTRANK_KERNELS
#undef RLSFT_RANK_ARGUMENTS
#undef RLSFT_RANK_PARAMETERS

}  // namespace rlsft::cuda
