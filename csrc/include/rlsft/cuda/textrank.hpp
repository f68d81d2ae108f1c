// textrank_embeddings() and textrank_dense() (rlsft/textrank.hpp) for groups whose numbers lie on a CUDA device.
#pragma once

#include <cstdint>

#include "rlsft/textrank.hpp"

namespace rlsft::cuda {

constexpr std::int64_t kSmallGroup = 64;   // rows whose edges fit into shared memory
constexpr std::int64_t kMaxGroup = 256;    // rows a block can rank

// Device memory that a call works in, one m x m block a group at block_offsets of it.
template <typename T>
struct TextrankWorkspace {
  T* edges;        // for groups of more than kSmallGroup rows; may be null without such
  double* matrix;  // for the Katz system of form eigenvector; may be null otherwise
};

// Where the groups lie: device arrays, and what the host knows of them.
struct DeviceGroups {
  const std::int64_t* offsets;        // [count + 1] from 0, never decreasing
  const std::int64_t* block_offsets;  // [count + 1], square_block_offsets() of them
  std::int64_t count;
  std::int64_t largest;  // rows of the largest group, at most kMaxGroup
};

// All pointers are device pointers, and the work is queued on `stream` (a cudaStream_t): nothing is waited for.
// One block a group; no atomics, and every sum in the order of the scalar C++ kernels without fused multiply-adds, so
// the results are those of RLSFT_ISA=scalar bit for bit. n_iter [count] holds kBadInput or kOverflow as there, and the
// scores of such a group are not written. O(m^2 (d + sweeps)) operations a group.
// Throws Error when a launch fails, std::invalid_argument for a group that is too large.
template <typename T>
void textrank_embeddings(const T* rows, std::int64_t d, const DeviceGroups& groups, EdgeMap map,
                         const double* teleport, const double* start, const RankOptions& options,
                         const TextrankWorkspace<T>& workspace, T* scores, std::int64_t* n_iter, double* residual,
                         void* stream);

template <typename T>
void textrank_dense(const T* weights, const DeviceGroups& groups, const double* teleport, const double* start,
                    const RankOptions& options, const TextrankWorkspace<T>& workspace, T* scores,
                    std::int64_t* n_iter, double* residual, void* stream);

}  // namespace rlsft::cuda
