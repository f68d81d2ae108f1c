// How many clusters ISODATA wants, and the distinct rows it starts from.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "isodata_common.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft::isodata_detail {
namespace {

std::int64_t ceil_sqrt(std::int64_t n) {
  std::int64_t root = static_cast<std::int64_t>(std::sqrt(static_cast<double>(n)));
  while (root * root < n) ++root;
  while ((root - 1) * (root - 1) >= n) --root;
  return root;
}

template <typename T>
std::vector<double> as_center(const Rows<T>& rows, std::int64_t row) {
  std::vector<double> center(static_cast<std::size_t>(rows.d));
  for (std::int64_t q = 0; q < rows.d; ++q) center[q] = rows.at(row, q);
  return center;
}

template <typename T>
double distance_to(const Rows<T>& rows, std::int64_t row, const double* center) {
  const double squared = squared_distance(rows.row(row), rows.scale[row], center, rows.d);
  return squared <= rows.floor ? 0 : squared;
}

// The first entry of a running sum that exceeds the mark; the last one that adds something where rounding put the mark
// at the end.
std::int64_t place_of(const std::vector<double>& cumulative, double mark) {
  const auto end = std::lower_bound(cumulative.begin(), cumulative.end(), cumulative.back());
  return std::min(std::upper_bound(cumulative.begin(), cumulative.end(), mark), end) - cumulative.begin();
}

// Distinct rows, each draw proportional to the weights of the rows not drawn yet.
template <typename T>
std::vector<double> random_rows(const Rows<T>& rows, std::int64_t count, SplitMix64 random) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows.n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::vector<double> centers, left, cumulative(order.size());
  if (rows.weight != nullptr) left.assign(rows.weight, rows.weight + rows.n);
  const std::int64_t draws = rows.count_weighted();
  for (std::int64_t i = 0; i < draws && static_cast<std::int64_t>(centers.size()) < count * rows.d; ++i) {
    std::int64_t row = 0;
    if (left.empty()) {
      std::swap(order[i], order[i + random.below(rows.n - i)]);
      row = order[i];
    } else {
      std::partial_sum(left.begin(), left.end(), cumulative.begin());
      row = place_of(cumulative, random.uniform() * cumulative.back());
      left[row] = 0;
    }
    bool is_new = true;
    for (std::size_t c = 0; c < centers.size() && is_new; c += rows.d) {
      is_new = distance_to(rows, row, centers.data() + c) > 0;
    }
    if (!is_new) continue;
    const std::vector<double> center = as_center(rows, row);
    centers.insert(centers.end(), center.begin(), center.end());
  }
  return centers;
}

template <typename T>
std::int64_t first_row(const Rows<T>& rows, SplitMix64& random) {
  if (rows.weight == nullptr) return random.below(rows.n);
  std::vector<double> cumulative(static_cast<std::size_t>(rows.n));
  std::partial_sum(rows.weight, rows.weight + rows.n, cumulative.begin());
  return place_of(cumulative, random.uniform() * cumulative.back());
}

// D-squared sampling (Arthur and Vassilvitskii 2007): a row equal to a chosen one, or without weight, has no chance.
template <typename T>
std::vector<double> spread_rows(const Rows<T>& rows, std::int64_t count, SplitMix64 random) {
  std::vector<double> centers = as_center(rows, first_row(rows, random));
  std::vector<double> to_chosen(static_cast<std::size_t>(rows.n), HUGE_VAL), to_newest(to_chosen.size());
  std::vector<double>& cumulative = to_newest;
  while (static_cast<std::int64_t>(centers.size()) < count * rows.d) {
    const double* newest = centers.data() + centers.size() - rows.d;
    parallel_for(rows.n, rows.threads, [&](std::int64_t first, std::int64_t last) {
      nearest::kernels<T>().distances(rows.span(first, last - first), nullptr, newest, to_newest.data() + first);
      for (std::int64_t i = first; i < last; ++i) {
        to_chosen[i] = to_newest[i] <= rows.floor ? 0 : std::min(to_chosen[i], to_newest[i]);
      }
    });
    double sum = 0;
    for (std::int64_t i = 0; i < rows.n; ++i) cumulative[i] = sum += to_chosen[i] * rows.weight_of(i);
    if (!(sum > 0)) break;
    const std::vector<double> center = as_center(rows, place_of(cumulative, random.uniform() * sum));
    centers.insert(centers.end(), center.begin(), center.end());
  }
  return centers;
}

}  // namespace

std::int64_t clusters_wanted(const IsodataOptions& options, std::int64_t n) {
  const std::int64_t wanted = options.n_clusters       ? options.n_clusters
                              : options.default_is_sqrt ? ceil_sqrt(n)
                                                        : std::int64_t{8};
  return std::min(wanted, n);
}

std::int64_t starting_clusters(const IsodataOptions& options, std::int64_t n) {
  return options.n_init_clusters ? std::min(options.n_init_clusters, n) : clusters_wanted(options, n);
}

template <typename T>
std::vector<double> starting_centers(const Rows<T>& rows, std::int64_t count, const IsodataOptions& options) {
  const SplitMix64 random(options.seed);
  return options.init == IsodataInit::random ? random_rows(rows, count, random) : spread_rows(rows, count, random);
}

template std::vector<double> starting_centers(const Rows<float>&, std::int64_t, const IsodataOptions&);
template std::vector<double> starting_centers(const Rows<double>&, std::int64_t, const IsodataOptions&);

}  // namespace rlsft::isodata_detail
