// ISODATA on a batch: a thread takes whole groups, or the threads share the rows of one large set.
#include "rlsft/isodata.hpp"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <utility>

#include "over_groups.hpp"

namespace rlsft {

template <typename T>
void IsodataOutput<T>::reserve(std::int64_t groups, std::int64_t clusters, std::int64_t d) {
  // a half more than wanted: growing means to copy, and fresh pages cost more than the clustering of small groups
  const std::size_t count = static_cast<std::size_t>(groups * (clusters + (clusters + 1) / 2));
  centers.reserve(count * static_cast<std::size_t>(d));
  medoids.reserve(count);
  for (auto* offsets : {&center_offsets, &step_offsets}) offsets->reserve(static_cast<std::size_t>(groups) + 1);
  stops.reserve(static_cast<std::size_t>(groups));
}

template <typename T>
void IsodataOutput<T>::close_group(const std::vector<IsodataStep>& group_steps, IsodataStop stop) {
  steps.insert(steps.end(), group_steps.begin(), group_steps.end());
  center_offsets.push_back(static_cast<std::int64_t>(medoids.size()));
  step_offsets.push_back(static_cast<std::int64_t>(steps.size()));
  stops.push_back(stop);
}

template <typename T>
void IsodataOutput<T>::append(const IsodataOutput& next) {
  const std::int64_t first_center = center_offsets.back(), first_step = step_offsets.back();
  centers.insert(centers.end(), next.centers.begin(), next.centers.end());
  medoids.insert(medoids.end(), next.medoids.begin(), next.medoids.end());
  steps.insert(steps.end(), next.steps.begin(), next.steps.end());
  stops.insert(stops.end(), next.stops.begin(), next.stops.end());
  for (std::size_t g = 1; g < next.center_offsets.size(); ++g) {
    center_offsets.push_back(first_center + next.center_offsets[g]);
    step_offsets.push_back(first_step + next.step_offsets[g]);
  }
  groups_by_gram += next.groups_by_gram;
  if (bad_group < 0) bad_group = next.bad_group;
}

template <typename T>
IsodataOutput<T> isodata(const IsodataInput<T>& input, const IsodataOptions& options, int threads,
                         std::int32_t* labels) {
  using isodata_detail::GroupClusterer;
  if (input.weight != nullptr && options.variant == IsodataVariant::str) {
    throw std::invalid_argument("isodata: weights are for variant ball_hall");
  }
  return isodata_detail::over_groups(input, options, threads, [&](int inner_threads) {
    auto clusterer = std::make_unique<GroupClusterer<T>>(input, options, inner_threads);
    return [&input, labels, clusterer = std::move(clusterer)](std::int64_t group, IsodataOutput<T>& out) {
      const std::int64_t first = input.offsets[group];
      const double* scores = input.scores == nullptr ? nullptr : input.scores + first;
      return clusterer->cluster(group, nullptr, scores, labels + first, out);
    };
  });
}

template <typename T>
std::int64_t isodata_assign(const T* points, std::int64_t n, std::int64_t d, const std::vector<double>& centers,
                            int threads, int passes, bool with_squares, std::int32_t* labels, double* sums) {
  using namespace isodata_detail;
  const std::vector<double> scale(static_cast<std::size_t>(n), 1.0);
  Rows<T> rows{points, scale.data(), n, d, 0.0, threads};
  const RowFilter<T> filter = make_filter(rows);
  if (!filter.squared_norms.empty()) rows.filter = &filter;
  ClusterSums found;
  found.has_squares = with_squares;
  for (int pass = 0; pass < passes; ++pass) assign_nearest(rows, centers, labels, &found);
  std::copy(found.values.begin(), found.values.end(), sums);
  return found.undecided;
}

template std::int64_t isodata_assign<float>(const float*, std::int64_t, std::int64_t, const std::vector<double>&, int,
                                            int, bool, std::int32_t*, double*);
template std::int64_t isodata_assign<double>(const double*, std::int64_t, std::int64_t, const std::vector<double>&, int,
                                             int, bool, std::int32_t*, double*);
template struct IsodataOutput<float>;
template struct IsodataOutput<double>;
template IsodataOutput<float> isodata(const IsodataInput<float>&, const IsodataOptions&, int, std::int32_t*);
template IsodataOutput<double> isodata(const IsodataInput<double>&, const IsodataOptions&, int, std::int32_t*);

}  // namespace rlsft
