// Queues the kernels of isodata.
#include "rlsft/cuda/isodata.hpp"

#include <algorithm>
#include <stdexcept>

#include "isodata_kernels.cuh"
#include "launch.hpp"

namespace rlsft::cuda {
namespace {

template <typename T>
struct Kernels;
template <>
struct Kernels<float> {
  static constexpr auto ball_hall = rlsft_isodata_f32;
  static constexpr auto str = rlsft_isodata_str_f32;
};
template <>
struct Kernels<double> {
  static constexpr auto ball_hall = rlsft_isodata_f64;
  static constexpr auto str = rlsft_isodata_str_f64;
};

void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

}  // namespace

// Ball and Hall split only few clusters, or fewer than 2 K of them, each into two; empty ones are dropped before. STR
// drops the empty ones of the start, and splits off rows that have company.
std::int64_t most_clusters(std::int64_t rows, std::int64_t starts, const IsodataOptions& options) {
  std::int64_t wanted = options.n_clusters > 0 ? options.n_clusters : std::int64_t{8};
  if (options.n_clusters == 0 && options.default_is_sqrt) {
    wanted = 0;
    while (wanted * wanted < rows) ++wanted;
  }
  const std::int64_t drawn = options.n_init_clusters > 0 ? options.n_init_clusters : wanted;
  const std::int64_t first = starts > 0 ? starts : std::min(drawn, rows);
  if (options.variant == IsodataVariant::str) return std::max<std::int64_t>({1, first, rows});
  return std::max<std::int64_t>({1, first, std::min(2 * rows, 4 * std::min(wanted, rows))});
}

std::int64_t workspace_doubles(std::int64_t rows, std::int64_t clusters, std::int64_t d,
                               const IsodataOptions& options) {
  return clusters * (2 * d + std::max(clusters, rows)) + 2 * static_cast<std::int64_t>(options.max_iter);
}

template <typename T>
void isodata(const IsodataArrays<T>& a, std::int64_t groups, std::int64_t d, std::int64_t rows, std::int64_t starts,
             const IsodataOptions& o, std::int64_t blocks, void* stream) {
  const std::int64_t most = most_clusters(rows, starts, o);
  require(o.variant == IsodataVariant::ball_hall || a.weight == nullptr, "weights are for variant ball_hall");
  require(rows <= kMostRows && most <= kMostClusters, "isodata on CUDA takes groups of up to 256 rows, 512 clusters");
  require(d >= 1 && most * d <= 0x7fffffff, "isodata on CUDA takes fewer than 2^31 numbers of a group's centres");
  require(blocks >= 1 && blocks <= 0x7fffffff, "isodata on CUDA takes 1 to 2^31 - 1 blocks");
  if (groups == 0) return;
  const auto queue = [&](auto kernel, auto... settings) {
    kernel<<<static_cast<unsigned>(blocks), kClusterThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        a.points, a.offsets, a.start, a.scores, a.weight, a.workspace, a.labels, a.centers, a.medoids, a.counts,
        a.steps, a.n_steps, a.stops, groups, static_cast<int>(d), static_cast<int>(starts), static_cast<int>(most),
        workspace_doubles(rows, most, d, o), o.n_clusters, o.n_init_clusters, o.seed, o.max_iter, o.default_is_sqrt,
        o.init == IsodataInit::random, o.cosine, settings...);
  };
  if (o.variant == IsodataVariant::str) {
    queue(Kernels<T>::str, o.min_size, o.max_size, o.var_threshold, static_cast<int>(o.variance_kind));
  } else {
    queue(Kernels<T>::ball_hall, o.max_merges, o.min_samples, o.max_std, o.min_distance, o.split_factor, o.tol,
          o.split_by_largest, o.squared_dispersion, o.discard_as_noise, o.stop_early);
  }
  require_launched("isodata");
}

template void isodata<float>(const IsodataArrays<float>&, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                             const IsodataOptions&, std::int64_t, void*);
template void isodata<double>(const IsodataArrays<double>&, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                              const IsodataOptions&, std::int64_t, void*);

}  // namespace rlsft::cuda
