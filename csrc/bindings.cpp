// The only file that knows Python. It checks arrays, drops the GIL and calls the core; it holds no algorithm.
// Arguments cross as NumPy arrays without conversion (py::arg().noconvert()): a silently converted copy of an output
// would be filled and thrown away.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "rlsft/cpu.hpp"
#include "rlsft/isodata.hpp"
#include "rlsft/parallel.hpp"
#include "rlsft/similarity.hpp"
#include "rlsft/text_edges.hpp"
#include "rlsft/textrank.hpp"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool ok, const std::string& message) {
  if (!ok) throw std::invalid_argument(message);
}

// ---- build facts -----------------------------------------------------------------------------------------------

py::dict build_info() {
  py::dict info;
  info["compiler"] = RLSFT_COMPILER;
  info["flags"] = RLSFT_FLAGS;
  return info;
}

void bind_build_info(py::module_& m) {
  m.def("build_info", &build_info);
  m.def("cpu_isa", &rlsft::active_isa_name);
}

// ---- similarity and textrank -----------------------------------------------------------------------------------

using Offsets = Array<std::int64_t>;
template <typename T>
using Optional = std::optional<Array<T>>;

template <typename T>
const T* pointer_or_null(const Optional<T>& array) {
  return array ? array->data() : nullptr;
}

// offsets must be [0, .., rows], never decreasing: whatever Python checked, C++ must not read out of bounds.
std::int64_t count_groups(const Offsets& offsets, std::int64_t rows) {
  require(offsets.ndim() == 1 && offsets.size() >= 1, "offsets must be one-dimensional and not empty");
  const std::int64_t groups = offsets.size() - 1;
  bool ok = offsets.at(0) == 0 && offsets.at(groups) == rows;
  for (std::int64_t g = 0; g < groups; ++g) ok = ok && offsets.data()[g] <= offsets.data()[g + 1];
  require(ok, "offsets must rise from 0 to the number of rows");
  return groups;
}

std::int64_t count_block_entries(const Offsets& offsets) {
  std::int64_t entries = 0;
  for (std::int64_t g = 0; g + 1 < offsets.size(); ++g) {
    const std::int64_t m = offsets.data()[g + 1] - offsets.data()[g];
    entries += m * m;
  }
  return entries;
}

rlsft::RankOptions rank_options(double damping, double tol, std::int64_t max_iter, int form) {
  require(form == 0 || form == 1, "form must be 0 (stochastic) or 1 (eigenvector)");
  return {damping, tol, max_iter, static_cast<rlsft::RankForm>(form)};
}

// Runs `rank(outcome)` without the GIL, then spreads the outcomes over the two arrays.
template <typename Rank>
void fill_outcomes(std::int64_t groups, Array<std::int64_t>& n_iter, Array<double>& residual, Rank rank) {
  require(n_iter.size() == groups && residual.size() == groups, "n_iter and residual must have one entry a group");
  std::int64_t* n_iter_out = n_iter.mutable_data();
  double* residual_out = residual.mutable_data();
  py::gil_scoped_release release;
  std::vector<rlsft::RankOutcome> outcome(static_cast<std::size_t>(groups));
  rank(outcome.data());
  for (std::size_t g = 0; g < outcome.size(); ++g) {
    n_iter_out[g] = outcome[g].n_iter;
    residual_out[g] = outcome[g].residual;
  }
}

template <typename T>
void bind_ranking_for(py::module_& m) {
  m.def(
      "textrank_embeddings",
      [](const Array<T>& rows, const Offsets& offsets, int edge, const Optional<double>& teleport,
         const Optional<double>& start, double damping, double tol, std::int64_t max_iter, int form, int threads,
         Array<T>& scores, Array<std::int64_t>& n_iter, Array<double>& residual) {
        require(rows.ndim() == 2, "rows must be [M, d]");
        require(edge >= 0 && edge <= 2, "edge must be 0, 1 or 2");
        const std::int64_t count = rows.shape(0), d = rows.shape(1);
        const std::int64_t groups = count_groups(offsets, count);
        require(scores.size() == count, "scores must be [M]");
        require(!teleport || teleport->size() == count, "teleport must be [M]");
        require(!start || start->size() == count, "start must be [M]");
        T* out = scores.mutable_data();
        const rlsft::RankOptions options = rank_options(damping, tol, max_iter, form);
        fill_outcomes(groups, n_iter, residual, [&](rlsft::RankOutcome* outcome) {
          rlsft::textrank_embeddings<T>(rows.data(), d, offsets.data(), groups, static_cast<rlsft::EdgeMap>(edge),
                                        pointer_or_null(teleport), pointer_or_null(start), options, threads, out,
                                        outcome);
        });
      },
      py::arg("rows").noconvert(), py::arg("offsets").noconvert(), py::arg("edge"), py::arg("teleport").noconvert(),
      py::arg("start").noconvert(), py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("form"),
      py::arg("threads"), py::arg("scores").noconvert(), py::arg("n_iter").noconvert(),
      py::arg("residual").noconvert());
  m.def(
      "textrank_dense",
      [](const Array<T>& weights, const Offsets& offsets, const Optional<double>& teleport,
         const Optional<double>& start, double damping, double tol, std::int64_t max_iter, int form, int threads,
         Array<T>& scores, Array<std::int64_t>& n_iter, Array<double>& residual) {
        const std::int64_t count = scores.size(), groups = count_groups(offsets, count);
        require(weights.size() == count_block_entries(offsets), "weights must hold one m x m block a group");
        require(!teleport || teleport->size() == count, "teleport must be [M]");
        require(!start || start->size() == count, "start must be [M]");
        T* out = scores.mutable_data();
        const rlsft::RankOptions options = rank_options(damping, tol, max_iter, form);
        fill_outcomes(groups, n_iter, residual, [&](rlsft::RankOutcome* outcome) {
          rlsft::textrank_dense<T>(weights.data(), offsets.data(), groups, pointer_or_null(teleport),
                                   pointer_or_null(start), options, threads, out, outcome);
        });
      },
      py::arg("weights").noconvert(), py::arg("offsets").noconvert(), py::arg("teleport").noconvert(),
      py::arg("start").noconvert(), py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("form"),
      py::arg("threads"), py::arg("scores").noconvert(), py::arg("n_iter").noconvert(),
      py::arg("residual").noconvert());
  m.def(
      "similarity_groups",
      [](const Array<T>& rows, const Offsets& offsets, int edge, int threads, Array<T>& edges, Array<bool>& ok) {
        require(rows.ndim() == 2, "rows must be [M, d]");
        require(edge >= 0 && edge <= 2, "edge must be 0, 1 or 2");
        const std::int64_t groups = count_groups(offsets, rows.shape(0)), d = rows.shape(1);
        require(edges.size() == count_block_entries(offsets), "edges must hold one m x m block a group");
        require(ok.size() == groups, "ok must have one entry a group");
        T* out = edges.mutable_data();
        bool* ok_out = ok.mutable_data();
        py::gil_scoped_release release;
        rlsft::similarity_groups<T>(rows.data(), d, offsets.data(), groups, static_cast<rlsft::EdgeMap>(edge), threads,
                                    out, ok_out);
      },
      py::arg("rows").noconvert(), py::arg("offsets").noconvert(), py::arg("edge"), py::arg("threads"),
      py::arg("edges").noconvert(), py::arg("ok").noconvert());
}

void text_edges_groups(const Array<std::int64_t>& tokens, const Offsets& token_offsets, const Offsets& group_offsets,
                       int kind, int threads, Array<double>& edges) {
  require(kind >= 0 && kind <= 2, "kind must be 0, 1 or 2");
  const std::int64_t responses = count_groups(token_offsets, tokens.size());
  const std::int64_t groups = count_groups(group_offsets, responses);
  require(edges.size() == count_block_entries(group_offsets), "edges must hold one m x m block a group");
  double* out = edges.mutable_data();
  py::gil_scoped_release release;
  rlsft::text_edges_groups(tokens.data(), token_offsets.data(), group_offsets.data(), groups,
                           static_cast<rlsft::TextEdge>(kind), threads, out);
}

void bind_ranking(py::module_& m) {
  bind_ranking_for<float>(m);
  bind_ranking_for<double>(m);
  m.def("text_edges_groups", &text_edges_groups, py::arg("tokens").noconvert(), py::arg("token_offsets").noconvert(),
        py::arg("group_offsets").noconvert(), py::arg("kind"), py::arg("threads"), py::arg("edges").noconvert());
}

// ---- isodata ---------------------------------------------------------------------------------------------------

rlsft::IsodataOptions isodata_options(const py::dict& given) {
  const auto integer = [&](const char* name) { return given[name].cast<std::int64_t>(); };
  const auto number = [&](const char* name) { return given[name].cast<double>(); };
  const auto flag = [&](const char* name) { return given[name].cast<bool>(); };
  rlsft::IsodataOptions options;
  options.variant = flag("is_str") ? rlsft::IsodataVariant::str : rlsft::IsodataVariant::ball_hall;
  options.init = flag("init_is_random") ? rlsft::IsodataInit::random : rlsft::IsodataInit::kmeans_plus_plus;
  options.n_clusters = integer("n_clusters");
  options.n_init_clusters = integer("n_init_clusters");
  options.default_is_sqrt = flag("default_is_sqrt");
  options.max_iter = given["max_iter"].cast<int>();
  options.cosine = flag("cosine");
  options.seed = given["seed"].cast<std::uint64_t>();
  options.min_samples = integer("min_samples");
  options.max_std = number("max_std");
  options.split_by_largest = flag("split_by_largest");
  options.min_distance = number("min_distance");
  options.max_merges = integer("max_merges");
  options.split_factor = number("split_factor");
  options.squared_dispersion = flag("squared_dispersion");
  options.discard_as_noise = flag("discard_as_noise");
  options.stop_early = flag("stop_early");
  options.min_size = integer("min_size");
  options.max_size = integer("max_size");
  options.var_threshold = number("var_threshold");
  const std::int64_t kind = integer("variance_kind");
  require(kind >= 0 && kind <= 2, "variance_kind must be 0, 1 or 2");
  options.variance_kind = static_cast<rlsft::IsodataVarianceKind>(kind);
  require(options.max_iter >= 1 && options.min_samples >= 1, "max_iter and min_samples must be >= 1");
  return options;
}

template <typename U>
py::array_t<U> to_array(const std::vector<U>& values) {
  return py::array_t<U>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::dict isodata_result(const rlsft::IsodataOutput& out, std::int64_t d) {
  std::vector<std::int64_t> steps, stops;
  for (const rlsft::IsodataStep& step : out.steps) {
    steps.insert(steps.end(), {step.splits, step.merges, step.drops, step.clusters});
  }
  for (const rlsft::IsodataStop stop : out.stops) stops.push_back(static_cast<std::int64_t>(stop));
  py::dict result;
  result["centers"] = to_array(out.centers).reshape({static_cast<py::ssize_t>(out.medoids.size()),
                                                     static_cast<py::ssize_t>(d)});
  result["center_offsets"] = to_array(out.center_offsets);
  result["medoids"] = to_array(out.medoids);
  result["steps"] = to_array(steps).reshape({static_cast<py::ssize_t>(out.steps.size()), py::ssize_t{4}});
  result["step_offsets"] = to_array(out.step_offsets);
  result["stops"] = to_array(stops);
  return result;
}

template <typename T>
void bind_isodata_for(py::module_& m) {
  m.def(
      "isodata",
      [](const Array<T>& points, const Offsets& offsets, const Optional<double>& start,
         const std::optional<Offsets>& start_offsets, const Optional<double>& scores, const py::dict& options,
         int threads, Array<std::int32_t>& labels) {
        require(points.ndim() == 2 && points.shape(1) >= 1, "points must be [N, d] with d >= 1");
        rlsft::IsodataInput<T> input{points.data(), points.shape(1), offsets.data(), 0};
        input.num_groups = count_groups(offsets, points.shape(0));
        require(start.has_value() == start_offsets.has_value(), "start and start_offsets go together");
        if (start) {
          require(start->ndim() == 2 && start->shape(1) == input.d, "start must be [sum k, d]");
          require(count_groups(*start_offsets, start->shape(0)) == input.num_groups, "start_offsets: one a group");
          input.start = start->data();
          input.start_offsets = start_offsets->data();
        }
        require(!scores || scores->size() == points.shape(0), "scores must be [N]");
        input.scores = pointer_or_null(scores);
        require(labels.size() == points.shape(0), "labels must be [N]");
        std::int32_t* labels_out = labels.mutable_data();
        const rlsft::IsodataOptions core_options = isodata_options(options);
        rlsft::IsodataOutput out;
        {
          py::gil_scoped_release release;
          out = rlsft::isodata<T>(input, core_options, threads, labels_out);
        }
        return isodata_result(out, input.d);
      },
      py::arg("points").noconvert(), py::arg("offsets").noconvert(), py::arg("start").noconvert(),
      py::arg("start_offsets").noconvert(), py::arg("scores").noconvert(), py::arg("options"), py::arg("threads"),
      py::arg("labels").noconvert());
}

void bind_isodata(py::module_& m) {
  bind_isodata_for<float>(m);
  bind_isodata_for<double>(m);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native core of rlsft_kernels. Private: use the functions of rlsft_kernels.";
  bind_build_info(m);
  bind_ranking(m);
  bind_isodata(m);
}
