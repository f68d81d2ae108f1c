// Jacobi sweeps of pagerank() (rlsft/pagerank.hpp) over a graph whose edges lie on a CUDA device.
#pragma once

#include <cstdint>

namespace rlsft::cuda {

constexpr std::int64_t kSegmentEdges = 256;  // of a node's in-edges that one part of a warp adds up
constexpr int kUpdateThreads = 256;          // nodes a block updates

// Edges by target: node j's in-edges are segments row_segments[j] .. row_segments[j + 1], segment s the edges
// segment_begin[s] .. segment_begin[s + 1], at most kSegmentEdges of them. Device arrays.
struct InEdges {
  std::int64_t n, segments;
  const std::int64_t* row_segments;   // [n + 1]
  const std::int64_t* segment_begin;  // [segments + 1]
  const std::int32_t* sources;        // [edges]
  const float* weights32;             // [edges], or null
  const double* weights64;            // [edges], or null; all weights are 1 when both are null
};

// What a sweep reads and writes. Device arrays.
struct SweepState {
  const double* inverse;   // [n] 1 / sum of a node's outgoing weights, 0 without any
  const double* teleport;  // [n] sums to 1
  const double* dangling;  // [n] sums to 1
  double* x;               // [n] scores
  double* u;               // [n] x * inverse
  double* partial;         // [segments]
  double* sums;            // [3, blocks of kUpdateThreads nodes]
  double* masses;          // [3] L1 step of the last sweep, mass on nodes without outgoing weight, total mass
  std::int64_t* progress;  // [2] sweeps done, and 1 when the step fell below tol or max_iter was reached
};

// sums[i] = sum of weights[pointers[i] .. pointers[i + 1]): exactly one of the two kinds of weights is given.
void out_strengths(std::int64_t n, const std::int64_t* pointers, const float* weights32, const double* weights64,
                   double* sums, void* stream);

// From x alone: u, the masses, and progress 0.
void begin_sweeps(std::int64_t n, const SweepState& state, double tol, std::int64_t max_iter, void* stream);

// Queues `count` sweeps x_j <- (1-a) v_j + a (sum_i u_i w_ij + D d_j); those after progress[1] became 1 do nothing, so
// that the result does not depend on how many are queued between two looks at it. Sums in a fixed order, no atomics.
// Throws Error when a launch fails.
void queue_sweeps(const InEdges& in, const SweepState& state, double damping, double tol, std::int64_t max_iter,
                  int count, void* stream);

}  // namespace rlsft::cuda
