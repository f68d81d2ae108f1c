// Queues the kernels of textrank.
#include "rlsft/cuda/textrank.hpp"

#include <stdexcept>
#include <string>

#include "launch.hpp"
#include "textrank_kernels.cuh"

namespace rlsft::cuda {
namespace {

template <typename T>
struct Kernels;
template <>
struct Kernels<float> {
  static constexpr auto small = rlsft_textrank_small_f32;
  static constexpr auto wide = rlsft_textrank_wide_f32;
};
template <>
struct Kernels<double> {
  static constexpr auto small = rlsft_textrank_small_f64;
  static constexpr auto wide = rlsft_textrank_wide_f64;
};

// Rows of d columns, or weights when d is 0.
template <typename T>
void rank(const T* values, int d, EdgeMap map, const DeviceGroups& groups, const double* teleport, const double* start,
          const RankOptions& options, const TextrankWorkspace<T>& workspace, T* scores, std::int64_t* n_iter,
          double* residual, void* stream) {
  if (groups.largest > kMaxGroup) {
    throw std::invalid_argument("textrank on CUDA takes groups of up to " + std::to_string(kMaxGroup) + " rows, got " +
                                std::to_string(groups.largest));
  }
  if (groups.count > 0x7fffffff) throw std::invalid_argument("textrank on CUDA takes fewer than 2^31 groups");
  if (groups.count == 0) return;
  const auto count = static_cast<unsigned>(groups.count);
  const auto queue = static_cast<cudaStream_t>(stream);
  const int edge = static_cast<int>(map), form = static_cast<int>(options.form);
  const int method = static_cast<int>(options.method);
  const int negative = d > 0 && map == EdgeMap::cosine && options.form == RankForm::eigenvector;
  Kernels<T>::small<<<count, kSmallThreads, 0, queue>>>(
      values, d, edge, scores, groups.offsets, groups.block_offsets, teleport, start, options.damping, options.tol,
      options.max_iter, form, method, negative, workspace.matrix, n_iter, residual);
  require_launched("textrank_small");
  if (groups.largest <= kSmallGroup) return;
  Kernels<T>::wide<<<count, kWideThreads, 0, queue>>>(
      values, d, edge, workspace.edges, scores, groups.offsets, groups.block_offsets, teleport, start, options.damping,
      options.tol, options.max_iter, form, method, negative, workspace.matrix, n_iter, residual);
  require_launched("textrank_wide");
}

}  // namespace

template <typename T>
void textrank_embeddings(const T* rows, std::int64_t d, const DeviceGroups& groups, EdgeMap map,
                         const double* teleport, const double* start, const RankOptions& options,
                         const TextrankWorkspace<T>& workspace, T* scores, std::int64_t* n_iter, double* residual,
                         void* stream) {
  if (d < 1 || d > 0x7fffffff) throw std::invalid_argument("rows must have 1 to 2^31 - 1 columns");
  rank(rows, static_cast<int>(d), map, groups, teleport, start, options, workspace, scores, n_iter, residual, stream);
}

template <typename T>
void textrank_dense(const T* weights, const DeviceGroups& groups, const double* teleport, const double* start,
                    const RankOptions& options, const TextrankWorkspace<T>& workspace, T* scores,
                    std::int64_t* n_iter, double* residual, void* stream) {
  rank(weights, 0, EdgeMap::cosine, groups, teleport, start, options, workspace, scores, n_iter, residual, stream);
}

#define RLSFT_INSTANTIATE(T)                                                                                         \
  template void textrank_embeddings<T>(const T*, std::int64_t, const DeviceGroups&, EdgeMap, const double*,          \
                                       const double*, const RankOptions&, const TextrankWorkspace<T>&, T*,           \
                                       std::int64_t*, double*, void*);                                               \
  template void textrank_dense<T>(const T*, const DeviceGroups&, const double*, const double*, const RankOptions&,   \
                                  const TextrankWorkspace<T>&, T*, std::int64_t*, double*, void*);
RLSFT_INSTANTIATE(float)
RLSFT_INSTANTIATE(double)
#undef RLSFT_INSTANTIATE

}  // namespace rlsft::cuda
