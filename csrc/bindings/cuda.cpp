// The ops whose arrays lie on a CUDA device. Device arrays cross as addresses (integers): torch made them, and this module
// knows nothing of torch. What the addresses point to is the caller's promise; only host arrays can be checked here.
#include "bindings.hpp"

#ifdef RLSFT_WITH_CUDA

#include "rlsft/cuda/isodata.hpp"
#include "rlsft/cuda/pagerank.hpp"
#include "rlsft/cuda/runtime.hpp"
#include "rlsft/cuda/textrank.hpp"

namespace rlsft::bindings {
namespace {

using Address = std::uintptr_t;  // on the device; 0 is null

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Where the groups lie, from what Python's DeviceGroups holds.
cuda::DeviceGroups device_groups(Address offsets, Address block_offsets, std::int64_t groups, std::int64_t largest) {
  return {at<const std::int64_t>(offsets), at<const std::int64_t>(block_offsets), groups, largest};
}

struct RankAddresses {
  Address values, teleport, start, edges, matrix, scores, n_iter, residual, stream;
};

// Rows of d columns, or weights when d is 0.
template <typename T>
void rank(std::int64_t d, int edge, const cuda::DeviceGroups& groups, const RankOptions& options,
          const RankAddresses& a) {
  const auto* values = at<const T>(a.values);
  const auto *teleport = at<const double>(a.teleport), *start = at<const double>(a.start);
  const cuda::TextrankWorkspace<T> workspace{at<T>(a.edges), at<double>(a.matrix)};
  auto* n_iter = at<std::int64_t>(a.n_iter);
  auto* residual = at<double>(a.residual);
  if (d > 0) {
    cuda::textrank_embeddings<T>(values, d, groups, static_cast<EdgeMap>(edge), teleport, start, options, workspace,
                                 at<T>(a.scores), n_iter, residual, at<void>(a.stream));
  } else {
    cuda::textrank_dense<T>(values, groups, teleport, start, options, workspace, at<T>(a.scores), n_iter, residual,
                            at<void>(a.stream));
  }
}

void bind_textrank(py::module_& m) {
  m.def(
      "cuda_textrank",
      [](bool is_double, Address values, std::int64_t d, Address offsets, Address block_offsets, std::int64_t groups,
         std::int64_t largest, int edge, Address teleport, Address start, double damping, double tol,
         std::int64_t max_iter, int form, int method, Address edges, Address matrix, Address scores, Address n_iter,
         Address residual, Address stream) {
        require(edge >= 0 && edge <= 2, "edge must be 0, 1 or 2");
        const RankOptions options = rank_options(damping, tol, max_iter, form, method);
        const cuda::DeviceGroups layout = device_groups(offsets, block_offsets, groups, largest);
        const RankAddresses addresses{values, teleport, start, edges, matrix, scores, n_iter, residual, stream};
        (is_double ? rank<double> : rank<float>)(d, edge, layout, options, addresses);
      },
      py::kw_only(), py::arg("is_double"), py::arg("values"), py::arg("d"), py::arg("offsets"),
      py::arg("block_offsets"), py::arg("groups"), py::arg("largest"), py::arg("edge"), py::arg("teleport"),
      py::arg("start"), py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("form"), py::arg("method"),
      py::arg("edges"), py::arg("matrix"), py::arg("scores"), py::arg("n_iter"), py::arg("residual"),
      py::arg("stream"));
}

// sweeps = 0 begins: u, the masses and progress from x; otherwise so many sweeps are queued.
void bind_pagerank_sweeps(py::module_& m) {
  m.def(
      "cuda_pagerank_sweeps",
      [](std::int64_t n, std::int64_t segments, Address row_segments, Address segment_begin, Address sources,
         Address weights32, Address weights64, Address inverse, Address teleport, Address dangling, Address x, Address u,
         Address partial, Address sums, Address masses, Address progress, double damping, double tol,
         std::int64_t max_iter, int sweeps, Address stream) {
        const cuda::InEdges in{n,
                               segments,
                               at<const std::int64_t>(row_segments),
                               at<const std::int64_t>(segment_begin),
                               at<const std::int32_t>(sources),
                               at<const float>(weights32),
                               at<const double>(weights64)};
        const cuda::SweepState state{at<const double>(inverse),  at<const double>(teleport),
                                     at<const double>(dangling), at<double>(x),
                                     at<double>(u),              at<double>(partial),
                                     at<double>(sums),           at<double>(masses),
                                     at<std::int64_t>(progress)};
        if (sweeps == 0) cuda::begin_sweeps(n, state, tol, max_iter, at<void>(stream));
        else cuda::queue_sweeps(in, state, damping, tol, max_iter, sweeps, at<void>(stream));
      },
      py::kw_only(), py::arg("n"), py::arg("segments"), py::arg("row_segments"), py::arg("segment_begin"),
      py::arg("sources"), py::arg("weights32"), py::arg("weights64"), py::arg("inverse"), py::arg("teleport"),
      py::arg("dangling"), py::arg("x"), py::arg("u"), py::arg("partial"), py::arg("sums"), py::arg("masses"),
      py::arg("progress"), py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("sweeps"),
      py::arg("stream"));
  m.def(
      "cuda_pagerank_strengths",
      [](std::int64_t n, Address pointers, Address weights32, Address weights64, Address sums, Address stream) {
        cuda::out_strengths(n, at<const std::int64_t>(pointers), at<const float>(weights32),
                            at<const double>(weights64), at<double>(sums), at<void>(stream));
      },
      py::kw_only(), py::arg("n"), py::arg("pointers"), py::arg("weights32"), py::arg("weights64"), py::arg("sums"),
      py::arg("stream"));
}

struct ClusterAddresses {
  Address points, offsets, start, scores, weight, workspace, labels, centers, medoids, counts, steps, n_steps, stops,
      stream;
};

template <typename T>
void cluster(std::int64_t groups, std::int64_t d, std::int64_t rows, std::int64_t starts, const IsodataOptions& options,
             std::int64_t blocks, const ClusterAddresses& a) {
  const cuda::IsodataArrays<T> arrays{at<const T>(a.points),
                                      at<const std::int64_t>(a.offsets),
                                      at<const double>(a.start),
                                      at<const double>(a.scores),
                                      at<const double>(a.weight),
                                      at<double>(a.workspace),
                                      at<std::int32_t>(a.labels),
                                      at<T>(a.centers),
                                      at<std::int64_t>(a.medoids),
                                      at<std::int32_t>(a.counts),
                                      at<std::int32_t>(a.steps),
                                      at<std::int32_t>(a.n_steps),
                                      at<std::int32_t>(a.stops)};
  cuda::isodata<T>(arrays, groups, d, rows, starts, options, blocks, at<void>(a.stream));
}

void bind_isodata_groups(py::module_& m) {
  m.def(
      "cuda_isodata_workspace",
      [](std::int64_t rows, std::int64_t starts, std::int64_t d, const py::dict& options) {
        const IsodataOptions checked = isodata_options(options);
        const std::int64_t most = cuda::most_clusters(rows, starts, checked);
        return std::pair(most, cuda::workspace_doubles(rows, most, d, checked));
      },
      py::kw_only(), py::arg("rows"), py::arg("starts"), py::arg("d"), py::arg("options"));
  m.def(
      "cuda_isodata",
      [](bool is_double, Address points, Address offsets, std::int64_t groups, std::int64_t d, std::int64_t rows,
         Address start, std::int64_t starts, Address scores, Address weight, const py::dict& options, Address workspace,
         std::int64_t blocks, Address labels, Address centers, Address medoids, Address counts, Address steps,
         Address n_steps, Address stops, Address stream) {
        const ClusterAddresses addresses{points,  offsets, start,  scores, weight,  workspace, labels,
                                         centers, medoids, counts, steps,  n_steps, stops,     stream};
        (is_double ? cluster<double> : cluster<float>)(groups, d, rows, starts, isodata_options(options), blocks,
                                                       addresses);
      },
      py::kw_only(), py::arg("is_double"), py::arg("points"), py::arg("offsets"), py::arg("groups"), py::arg("d"),
      py::arg("rows"), py::arg("start"), py::arg("starts"), py::arg("scores"), py::arg("weight"), py::arg("options"),
      py::arg("workspace"), py::arg("blocks"), py::arg("labels"), py::arg("centers"), py::arg("medoids"),
      py::arg("counts"), py::arg("steps"), py::arg("n_steps"), py::arg("stops"), py::arg("stream"));
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("has_cuda", [] { return true; });
  bind_isodata_groups(m);
  bind_textrank(m);
  bind_pagerank_sweeps(m);
}

std::string cuda_facts() { return "built with CUDA " + cuda::toolkit_version() + " (" + cuda::architectures() + ")"; }

}  // namespace rlsft::bindings

#else

namespace rlsft::bindings {

// The functions exist, so that the module has the same names everywhere, and say why they do nothing.
void bind_cuda(py::module_& m) {
  m.def("has_cuda", [] { return false; });
  for (const char* name : {"cuda_isodata", "cuda_isodata_workspace", "cuda_pagerank_strengths", "cuda_pagerank_sweeps",
                           "cuda_textrank"}) {
    m.def(name, [](const py::kwargs&) { throw std::runtime_error("the CUDA kernels were " + cuda_facts()); });
  }
}

std::string cuda_facts() { return "left out: " RLSFT_CUDA_LEFT_OUT; }

}  // namespace rlsft::bindings

#endif
