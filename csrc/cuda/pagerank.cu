// Queues the kernels of pagerank.
#include "rlsft/cuda/pagerank.hpp"

#include <stdexcept>

#include "launch.hpp"
#include "pagerank_kernels.cuh"

namespace rlsft::cuda {
namespace {

unsigned blocks_for(std::int64_t count, std::int64_t a_block) {
  const std::int64_t blocks = (count + a_block - 1) / a_block;
  if (blocks > 0x7fffffff) throw std::invalid_argument("pagerank on CUDA: the graph needs 2^31 blocks or more");
  return static_cast<unsigned>(blocks);
}

void gather(const InEdges& in, const SweepState& state, cudaStream_t queue) {
  if (in.segments == 0) return;
  const unsigned blocks = blocks_for(in.segments, kGatherThreads / kGatherLanes);
  if (in.weights32 != nullptr) {
    rlsft_pagerank_gather_f32<<<blocks, kGatherThreads, 0, queue>>>(in.segments, in.segment_begin, in.sources,
                                                                    in.weights32, state.u, state.partial,
                                                                    state.progress);
  } else if (in.weights64 != nullptr) {
    rlsft_pagerank_gather_f64<<<blocks, kGatherThreads, 0, queue>>>(in.segments, in.segment_begin, in.sources,
                                                                    in.weights64, state.u, state.partial,
                                                                    state.progress);
  } else {
    rlsft_pagerank_gather_ones<<<blocks, kGatherThreads, 0, queue>>>(in.segments, in.segment_begin, in.sources, nullptr,
                                                                     state.u, state.partial, state.progress);
  }
  require_launched("pagerank_gather");
}

void update(std::int64_t n, const std::int64_t* row_segments, const SweepState& s, double damping, double tol,
            std::int64_t max_iter, bool is_start, cudaStream_t queue) {
  const unsigned blocks = blocks_for(n, kUpdateThreads);
  rlsft_pagerank_update<<<blocks, kUpdateThreads, 0, queue>>>(n, row_segments, s.partial, s.inverse, s.teleport,
                                                              s.dangling, damping, is_start, s.x, s.u, s.sums,
                                                              s.masses, s.progress);
  require_launched("pagerank_update");
  rlsft_pagerank_finish<<<1, kUpdateThreads, 0, queue>>>(static_cast<int>(blocks), s.sums, tol, max_iter, is_start,
                                                         s.masses, s.progress);
  require_launched("pagerank_finish");
}

}  // namespace

void out_strengths(std::int64_t n, const std::int64_t* pointers, const float* weights32, const double* weights64,
                   double* sums, void* stream) {
  if (n == 0) return;
  const unsigned blocks = blocks_for(n, kStrengthThreads / 32);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (weights32 != nullptr) {
    rlsft_pagerank_strengths_f32<<<blocks, kStrengthThreads, 0, queue>>>(n, pointers, weights32, sums);
  } else {
    rlsft_pagerank_strengths_f64<<<blocks, kStrengthThreads, 0, queue>>>(n, pointers, weights64, sums);
  }
  require_launched("pagerank_strengths");
}

void begin_sweeps(std::int64_t n, const SweepState& state, double tol, std::int64_t max_iter, void* stream) {
  if (n > 0) update(n, nullptr, state, 0.0, tol, max_iter, true, static_cast<cudaStream_t>(stream));
}

void queue_sweeps(const InEdges& in, const SweepState& state, double damping, double tol, std::int64_t max_iter,
                  int count, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  for (int sweep = 0; in.n > 0 && sweep < count; ++sweep) {
    gather(in, state, queue);
    update(in.n, in.row_segments, state, damping, tol, max_iter, false, queue);
  }
}

}  // namespace rlsft::cuda
