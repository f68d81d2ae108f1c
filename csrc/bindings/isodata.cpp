#include "rlsft/isodata.hpp"

#include <utility>

#include "bindings.hpp"
#include "rlsft/rank_and_cluster.hpp"

namespace rlsft::bindings {

IsodataOptions isodata_options(const py::dict& given) {
  const auto integer = [&](const char* name) { return given[name].cast<std::int64_t>(); };
  const auto number = [&](const char* name) { return given[name].cast<double>(); };
  const auto flag = [&](const char* name) { return given[name].cast<bool>(); };
  IsodataOptions options;
  options.variant = flag("is_str") ? IsodataVariant::str : IsodataVariant::ball_hall;
  options.init = flag("init_is_random") ? IsodataInit::random : IsodataInit::kmeans_plus_plus;
  options.n_clusters = integer("n_clusters");
  options.n_init_clusters = integer("n_init_clusters");
  options.default_is_sqrt = flag("default_is_sqrt");
  options.max_iter = given["max_iter"].cast<int>();
  options.cosine = flag("cosine");
  options.seed = given["seed"].cast<std::uint64_t>();
  options.min_samples = number("min_samples");
  options.max_std = number("max_std");
  options.split_by_largest = flag("split_by_largest");
  options.min_distance = number("min_distance");
  options.max_merges = integer("max_merges");
  options.split_factor = number("split_factor");
  options.squared_dispersion = flag("squared_dispersion");
  options.discard_as_noise = flag("discard_as_noise");
  options.stop_early = flag("stop_early");
  options.tol = number("tol");
  options.min_size = integer("min_size");
  options.max_size = integer("max_size");
  options.var_threshold = number("var_threshold");
  const std::int64_t kind = integer("variance_kind");
  require(kind >= 0 && kind <= 2, "variance_kind must be 0, 1 or 2");
  options.variance_kind = static_cast<IsodataVarianceKind>(kind);
  require(options.max_iter >= 1, "max_iter must be >= 1");
  return options;
}

namespace {

template <typename T>
py::dict isodata_result(IsodataOutput<T>&& out, std::int64_t d) {
  std::vector<std::int64_t> steps, stops;
  for (const IsodataStep& step : out.steps) {
    steps.insert(steps.end(), {step.splits, step.merges, step.drops, step.clusters});
  }
  for (const IsodataStop stop : out.stops) stops.push_back(static_cast<std::int64_t>(stop));
  py::dict result;
  const py::ssize_t k = static_cast<py::ssize_t>(out.medoids.size());
  result["centers"] = own_array(std::move(out.centers)).reshape({k, static_cast<py::ssize_t>(d)});
  result["center_offsets"] = to_array(out.center_offsets);
  result["medoids"] = to_array(out.medoids);
  result["steps"] = to_array(steps).reshape({static_cast<py::ssize_t>(out.steps.size()), py::ssize_t{4}});
  result["step_offsets"] = to_array(out.step_offsets);
  result["stops"] = to_array(stops);
  result["groups_by_gram"] = out.groups_by_gram;
  result["bad_group"] = out.bad_group;
  return result;
}

template <typename T>
void bind_isodata_for(py::module_& m) {
  m.def(
      "isodata",
      [](const Array<T>& points, const Offsets& offsets, const Optional<double>& start,
         const std::optional<Offsets>& start_offsets, const Optional<double>& scores, const Optional<double>& weight,
         const py::dict& options, int threads, Array<std::int32_t>& labels) {
        require(points.ndim() == 2 && points.shape(1) >= 1, "points must be [N, d] with d >= 1");
        IsodataInput<T> input{points.data(), points.shape(1), offsets.data(), 0};
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
        require(!weight || weight->size() == points.shape(0), "weight must be [N]");
        input.weight = pointer_or_null(weight);
        require(labels.size() == points.shape(0), "labels must be [N]");
        std::int32_t* labels_out = labels.mutable_data();
        const IsodataOptions core_options = isodata_options(options);
        IsodataOutput<T> out;
        {
          py::gil_scoped_release release;
          out = isodata<T>(input, core_options, threads, labels_out);
        }
        return isodata_result(std::move(out), input.d);
      },
      py::arg("points").noconvert(), py::arg("offsets").noconvert(), py::arg("start").noconvert(),
      py::arg("start_offsets").noconvert(), py::arg("scores").noconvert(), py::arg("weight").noconvert(),
      py::arg("options"), py::arg("threads"), py::arg("labels").noconvert());
}

template <typename T>
void bind_isodata_assign_for(py::module_& m) {
  m.def(
      "isodata_assign",
      [](const Array<T>& points, const Array<double>& centers, int threads, int passes, bool with_squares,
         Array<std::int32_t>& labels, Array<double>& sums) {
        require(points.ndim() == 2 && points.size() > 0, "points must be [n, d] with n, d >= 1");
        require(centers.ndim() == 2 && centers.shape(0) >= 1 && centers.shape(1) == points.shape(1),
                "centers must be [k, d] with k >= 1");
        require(labels.size() == points.shape(0), "labels must be [n]");
        require(sums.size() == 2 * centers.size(), "sums must be [k, 2, d]");
        const std::vector<double> start(centers.data(), centers.data() + centers.size());
        std::int32_t* labels_out = labels.mutable_data();
        double* sums_out = sums.mutable_data();
        const T* rows = points.data();
        const std::int64_t n = points.shape(0), d = points.shape(1);
        py::gil_scoped_release release;
        return isodata_assign<T>(rows, n, d, start, threads, passes, with_squares, labels_out, sums_out);
      },
      py::arg("points").noconvert(), py::arg("centers").noconvert(), py::arg("threads"), py::arg("passes"),
      py::arg("with_squares"), py::arg("labels").noconvert(), py::arg("sums").noconvert());
}

template <typename T>
void bind_rank_and_cluster_for(py::module_& m) {
  m.def(
      "rank_and_cluster",
      [](const Array<T>& points, const Offsets& offsets, int edge, const Optional<double>& teleport,
         const Optional<double>& start, double damping, double tol, std::int64_t max_iter, int form,
         const py::dict& options, int threads, Array<T>& scores, Array<std::int64_t>& n_iter, Array<double>& residual,
         Array<std::int32_t>& labels) {
        require(points.ndim() == 2 && points.shape(1) >= 1, "points must be [N, d] with d >= 1");
        require(edge >= 0 && edge <= 2 && (form == 0 || form == 1), "edge must be 0, 1 or 2 and form 0 or 1");
        const std::int64_t rows = points.shape(0), groups = count_groups(offsets, rows);
        require(scores.size() == rows && labels.size() == rows, "scores and labels must be [N]");
        require(n_iter.size() == groups && residual.size() == groups, "n_iter and residual must have one entry a group");
        require(!teleport || teleport->size() == rows, "teleport must be [N]");
        require(!start || start->size() == rows, "start must be [N]");
        const IsodataInput<T> input{points.data(), points.shape(1), offsets.data(), groups};
        const RankInput rank{static_cast<EdgeMap>(edge), pointer_or_null(teleport), pointer_or_null(start),
                             {damping, tol, max_iter, static_cast<RankForm>(form)}};
        const IsodataOptions core_options = isodata_options(options);
        T* scores_out = scores.mutable_data();
        std::int32_t* labels_out = labels.mutable_data();
        std::vector<RankOutcome> outcome(static_cast<std::size_t>(groups));
        IsodataOutput<T> out;
        {
          py::gil_scoped_release release;
          out = rank_and_cluster<T>(input, rank, core_options, threads, scores_out, outcome.data(), labels_out);
        }
        for (std::int64_t g = 0; g < groups; ++g) {
          n_iter.mutable_data()[g] = outcome[g].n_iter;
          residual.mutable_data()[g] = outcome[g].residual;
        }
        return isodata_result(std::move(out), input.d);
      },
      py::arg("points").noconvert(), py::arg("offsets").noconvert(), py::arg("edge"), py::arg("teleport").noconvert(),
      py::arg("start").noconvert(), py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("form"),
      py::arg("options"), py::arg("threads"), py::arg("scores").noconvert(), py::arg("n_iter").noconvert(),
      py::arg("residual").noconvert(), py::arg("labels").noconvert());
}

}  // namespace

void bind_isodata(py::module_& m) {
  bind_isodata_for<float>(m);
  bind_isodata_for<double>(m);
  bind_rank_and_cluster_for<float>(m);
  bind_rank_and_cluster_for<double>(m);
  bind_isodata_assign_for<float>(m);
  bind_isodata_assign_for<double>(m);
}

}  // namespace rlsft::bindings
