// ISODATA on a batch: runs each group, then assigns once more so that labels belong to the centres returned.
#include "rlsft/isodata.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "isodata_common.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft {
namespace {

using namespace isodata_detail;

struct GroupResult {
  Clustering clustering;
  std::vector<std::int64_t> medoids;  // row within the group
};

template <typename T>
std::vector<double> row_scales(const T* points, std::int64_t n, std::int64_t d, bool cosine) {
  std::vector<double> scale(static_cast<std::size_t>(n), 1.0);
  if (!cosine) return scale;
  const std::vector<double> origin(static_cast<std::size_t>(d), 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    const double squared = squared_distance(points + i * d, 1.0, origin.data(), d);
    scale[i] = squared > 0 ? 1 / std::sqrt(squared) : 0;
  }
  return scale;
}

// Nearest centre for every row that is no noise; centres without a row are removed and the rest renumbered.
template <typename T>
void assign_finally(const Rows<T>& rows, Clustering& clustering, std::int32_t* labels) {
  // rounded first: the caller gets centres of type T, and the labels must be right for those
  for (double& value : clustering.centers) value = static_cast<double>(static_cast<T>(value));
  assign_nearest(rows, clustering.centers, labels);
  const auto is_noise = [&](std::int64_t i) { return !clustering.is_noise.empty() && clustering.is_noise[i]; };
  std::vector<std::int32_t> number(clustering.centers.size() / static_cast<std::size_t>(rows.d), -1);
  for (std::int64_t i = 0; i < rows.n; ++i) {
    if (is_noise(i)) labels[i] = -1;
    if (labels[i] >= 0 && rows.weight_of(i) > 0) number[labels[i]] = 0;
  }
  std::int32_t used = 0;
  for (std::size_t c = 0; c < number.size(); ++c) {
    if (number[c] < 0) continue;
    std::copy_n(clustering.centers.data() + c * rows.d, rows.d, clustering.centers.data() + used * rows.d);
    number[c] = used++;
  }
  clustering.centers.resize(static_cast<std::size_t>(used * rows.d));
  if (rows.weight == nullptr) {
    for (std::int64_t i = 0; i < rows.n; ++i) {
      if (labels[i] >= 0) labels[i] = number[labels[i]];
    }
  } else if (used < static_cast<std::int32_t>(number.size())) {  // a row of weight 0 may have lost its centre
    assign_nearest(rows, clustering.centers, labels);
    for (std::int64_t i = 0; i < rows.n; ++i) {
      if (is_noise(i)) labels[i] = -1;
    }
  }
}

// Per cluster the row with weight nearest its centre; tie: the higher score, then the lower row.
template <typename T>
std::vector<std::int64_t> find_medoids(const Rows<T>& rows, const std::vector<double>& centers,
                                       const std::int32_t* labels, const double* scores) {
  const std::size_t k = centers.size() / static_cast<std::size_t>(rows.d);
  std::vector<double> distances(static_cast<std::size_t>(rows.n)), nearest(k, HUGE_VAL);
  distances_to_own(rows, centers, labels, distances.data());
  const auto is_member = [&](std::int64_t i) { return labels[i] >= 0 && rows.weight_of(i) > 0; };
  for (std::int64_t i = 0; i < rows.n; ++i) {
    if (is_member(i)) nearest[labels[i]] = std::min(nearest[labels[i]], distances[i]);
  }
  std::vector<std::int64_t> medoids(k, -1);
  for (std::int64_t i = 0; i < rows.n; ++i) {
    if (!is_member(i) || !ties_with_smallest(distances[i], nearest[labels[i]], rows.floor)) continue;
    std::int64_t& medoid = medoids[labels[i]];
    if (medoid < 0 || (scores != nullptr && scores[i] > scores[medoid])) medoid = i;
  }
  return medoids;
}

template <typename T>
GroupResult cluster_group(const IsodataInput<T>& input, const IsodataOptions& options, std::int64_t group, int threads,
                          std::int32_t* labels) {
  const std::int64_t first = input.offsets[group], n = input.offsets[group + 1] - first, d = input.d;
  GroupResult result;
  if (n == 0) {
    result.clustering.stop = IsodataStop::stable;
    return result;
  }
  const std::vector<double> scale = row_scales(input.points + first * d, n, d, options.cosine);
  Rows<T> rows{input.points + first * d, scale.data(), n, d, options.cosine ? kSameDirection : 0.0, threads};
  if (input.weight != nullptr) rows.weight = input.weight + first;
  RowFilter<T> filter;
  if (n >= kFilterRows) filter = make_filter(rows);
  if (!filter.squared_norms.empty()) rows.filter = &filter;
  std::vector<double> start;
  if (input.start == nullptr) {
    start = starting_centers(rows, starting_clusters(options, rows.count_weighted()), options);
  } else {
    start.assign(input.start + input.start_offsets[group] * d, input.start + input.start_offsets[group + 1] * d);
    if (start.empty()) throw std::invalid_argument("isodata: no starting centre for group " + std::to_string(group));
  }
  result.clustering = options.variant == IsodataVariant::ball_hall ? cluster_ball_hall(rows, options, std::move(start))
                                                                   : cluster_str(rows, options, std::move(start));
  assign_finally(rows, result.clustering, labels + first);
  result.medoids = find_medoids(rows, result.clustering.centers, labels + first,
                                input.scores ? input.scores + first : nullptr);
  return result;
}

template <typename T>
IsodataOutput pack(const IsodataInput<T>& input, const std::vector<GroupResult>& results) {
  IsodataOutput out;
  out.center_offsets.push_back(0);
  out.step_offsets.push_back(0);
  for (std::size_t g = 0; g < results.size(); ++g) {
    const Clustering& clustering = results[g].clustering;
    out.centers.insert(out.centers.end(), clustering.centers.begin(), clustering.centers.end());
    for (const std::int64_t medoid : results[g].medoids) out.medoids.push_back(input.offsets[g] + medoid);
    out.steps.insert(out.steps.end(), clustering.steps.begin(), clustering.steps.end());
    out.center_offsets.push_back(static_cast<std::int64_t>(out.medoids.size()));
    out.step_offsets.push_back(static_cast<std::int64_t>(out.steps.size()));
    out.stops.push_back(clustering.stop);
  }
  return out;
}

}  // namespace

template <typename T>
IsodataOutput isodata(const IsodataInput<T>& input, const IsodataOptions& options, int threads, std::int32_t* labels) {
  if (input.weight != nullptr && options.variant == IsodataVariant::str) {
    throw std::invalid_argument("isodata: weights are for variant ball_hall");
  }
  const std::int64_t groups = input.num_groups, rows = groups ? input.offsets[groups] : 0;
  const std::int64_t rows_a_group = groups ? std::max<std::int64_t>(1, rows / groups) : 1;
  const double pass_ns =
      static_cast<double>(rows) * static_cast<double>(clusters_wanted(options, rows_a_group) * input.d);
  threads = useful_threads(pass_ns, threads);
  // many groups: a thread takes whole groups; few and large ones: the threads share each group's rows
  const int outer = groups >= threads ? threads : 1;
  std::vector<GroupResult> results(static_cast<std::size_t>(groups));
  parallel_for(groups, outer, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t g = first; g < last; ++g) {
      results[g] = cluster_group(input, options, g, outer > 1 ? 1 : threads, labels);
    }
  });
  return pack(input, results);
}

template <typename T>
std::int64_t isodata_assign(const T* points, std::int64_t n, std::int64_t d, const std::vector<double>& centers,
                            int threads, int passes, bool with_squares, std::int32_t* labels, double* sums) {
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
template IsodataOutput isodata<float>(const IsodataInput<float>&, const IsodataOptions&, int, std::int32_t*);
template IsodataOutput isodata<double>(const IsodataInput<double>&, const IsodataOptions&, int, std::int32_t*);

}  // namespace rlsft
