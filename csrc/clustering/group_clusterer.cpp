#include "group_clusterer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

#include "coordinate_space.hpp"
#include "rlsft/parallel.hpp"
#include "str_coordinates.hpp"

namespace rlsft::isodata_detail {
namespace {

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
  for (std::size_t c = 0; c < k; ++c) {
    const double* center = centers.data() + c * static_cast<std::size_t>(rows.d);
    const double norm2 = std::inner_product(center, center + rows.d, center, 0.0);
    nearest[c] = medoid_reach(nearest[c], norm2, std::numeric_limits<T>::epsilon(), rows.floor);
  }
  std::vector<std::int64_t> medoids(k, -1);
  for (std::int64_t i = 0; i < rows.n; ++i) {
    if (!is_member(i) || distances[i] > nearest[labels[i]]) continue;
    std::int64_t& medoid = medoids[labels[i]];
    if (medoid < 0 || (scores != nullptr && scores[i] > scores[medoid])) medoid = i;
  }
  return medoids;
}

template <typename T>
Clustering cluster_rows(const Rows<T>& rows, const IsodataOptions& options, std::vector<double> start) {
  Decider decider;  // without errors it always decides
  if (options.variant == IsodataVariant::ball_hall) {
    CoordinateSpace<T> space(rows, options.cosine, std::move(start));
    BallHall<CoordinateSpace<T>> loop;
    loop.run(space, decider, options, rows.n, rows.d, rows.weight);
    return {std::move(space.centers()), loop.is_noise(), loop.steps(), loop.stop()};
  }
  const std::int64_t starts = static_cast<std::int64_t>(start.size()) / rows.d;
  StrCoordinates<T> space(rows, options.variance_kind, std::move(start));
  StrLoop<StrCoordinates<T>> loop;
  loop.run(space, decider, options, rows.n, starts);
  return {std::move(space.centers()), {}, loop.steps(), loop.stop()};
}

// False for NaN too.
template <typename T>
bool all_within_range(const T* x, std::int64_t count, int threads) {
  constexpr std::int64_t kBlock = 1 << 16;
  const std::int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<std::uint8_t> ok(static_cast<std::size_t>(blocks));
  parallel_for(blocks, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      ok[b] = gram_kernels<T>().within(x + b * kBlock, std::min(kBlock, count - b * kBlock),
                                       static_cast<T>(kLargestMagnitude<T>));
    }
  });
  return std::count(ok.begin(), ok.end(), 0) == 0;
}

}  // namespace

template <typename T>
bool GroupClusterer<T>::suits_gram(std::int64_t n) const {
  const bool is_known = options_.variant == IsodataVariant::ball_hall ||
                        options_.variance_kind == IsodataVarianceKind::trace;
  const bool is_plain = input_.start == nullptr && input_.weight == nullptr && options_.tol == 0;
  return is_known && is_plain && n >= 1 && n <= kMaxGramRows && input_.d >= n / 2;
}

template <typename T>
bool GroupClusterer<T>::cluster(std::int64_t group, const GroupGram<T>* gram, const double* scores,
                                std::int32_t* labels, IsodataOutput<T>& out) {
  const std::int64_t n = size(group);
  if (suits_gram(n)) {
    if (gram == nullptr) {
      if (!own_gram_.compute(points(group), n, input_.d)) return false;
      gram = &own_gram_;
    }
    // scaled by powers of two: products of the rows as given would overflow or vanish
    if (!gram->has_scaled_rows() && by_gram(group, *gram, scores, labels, out)) return true;
  }
  if (!all_within_range(points(group), n * input_.d, threads_)) return false;
  by_coordinates(group, scores, labels, out);
  return true;
}

template <typename T>
bool GroupClusterer<T>::by_gram(std::int64_t group, const GroupGram<T>& gram, const double* scores,
                                std::int32_t* labels, IsodataOutput<T>& out) {
  const bool needs_copy = options_.cosine || sizeof(T) < sizeof(double);
  if (options_.cosine) {
    widen(group);
    if (by_dots(group, wide_rows_.data(), gram, scores, labels, out)) return true;
  } else {
    if (by_dots(group, points(group), gram, scores, labels, out)) return true;
    if (needs_copy) widen(group);
  }
  // most of what float32 leaves open is far from open in float64
  return needs_copy && wide_gram_.compute(wide_rows_.data(), size(group), input_.d) &&
         !wide_gram_.has_scaled_rows() && by_dots(group, wide_rows_.data(), wide_gram_, scores, labels, out);
}

template <typename T>
void GroupClusterer<T>::widen(std::int64_t group) {
  const T* x = points(group);
  const std::int64_t n = size(group), d = input_.d;
  wide_rows_.assign(x, x + n * d);
  if (!options_.cosine) return;
  const std::vector<double> scale = row_scales(x, n, d, true);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t q = 0; q < d; ++q) wide_rows_[i * d + q] *= scale[i];
  }
}

template <typename T>
template <typename X, typename G>
bool GroupClusterer<T>::by_dots(std::int64_t group, const X* rows, const GroupGram<G>& gram, const double* scores,
                                std::int32_t* labels, IsodataOutput<T>& out) {
  const std::int64_t n = size(group), d = input_.d;
  Workspace<X>& space = workspace(rows);
  decider_.reset();
  const auto finish = [&](auto& points, const auto& loop, auto... noise) {
    if (decider_.is_undecided()) return false;
    const std::size_t before = out.medoids.size(), k = static_cast<std::size_t>(points.count());
    out.centers.resize((before + k) * static_cast<std::size_t>(d));
    out.medoids.resize(before + k);
    const std::int64_t used = points.finish(noise..., scores, labels, out.centers.data() + before * d,
                                            out.medoids.data() + before);
    out.medoids.resize(before + static_cast<std::size_t>(used));
    out.centers.resize(out.medoids.size() * static_cast<std::size_t>(d));
    for (std::size_t c = before; c < out.medoids.size(); ++c) out.medoids[c] += input_.offsets[group];
    out.close_group(loop.steps(), loop.stop());
    ++out.groups_by_gram;
    return true;
  };
  if (options_.variant == IsodataVariant::ball_hall) {
    space.ball_hall.bind(rows, n, d, gram, options_.cosine, decider_);
    space.ball_hall.start(options_);
    space.ball_hall_loop.run(space.ball_hall, decider_, options_, n, d);
    return finish(space.ball_hall, space.ball_hall_loop, space.ball_hall_loop.is_noise());
  }
  space.str.bind(rows, n, d, gram, options_.cosine, decider_);
  const std::int64_t starts = space.str.start(options_);
  space.str_loop.run(space.str, decider_, options_, n, starts);
  return finish(space.str, space.str_loop);
}

template <typename T>
void GroupClusterer<T>::by_coordinates(std::int64_t group, const double* scores, std::int32_t* labels,
                                       IsodataOutput<T>& out) {
  const std::int64_t n = size(group), d = input_.d;
  if (n == 0) return out.close_group({}, IsodataStop::stable);
  const std::vector<double> scale = row_scales(points(group), n, d, options_.cosine);
  Rows<T> rows{points(group), scale.data(), n, d, options_.cosine ? kSameDirection : 0.0, threads_};
  if (input_.weight != nullptr) rows.weight = input_.weight + input_.offsets[group];
  RowFilter<T> filter;
  if (n >= kFilterRows) filter = make_filter(rows);
  if (!filter.squared_norms.empty()) rows.filter = &filter;
  std::vector<double> start;
  if (input_.start == nullptr) {
    start = starting_centers(rows, starting_clusters(options_, rows.count_weighted()), options_);
  } else {
    start.assign(input_.start + input_.start_offsets[group] * d, input_.start + input_.start_offsets[group + 1] * d);
    if (start.empty()) throw std::invalid_argument("isodata: no starting centre for group " + std::to_string(group));
  }
  Clustering found = cluster_rows(rows, options_, std::move(start));
  assign_finally(rows, found, labels);
  for (const std::int64_t medoid : find_medoids(rows, found.centers, labels, scores)) {
    out.medoids.push_back(input_.offsets[group] + medoid);
  }
  for (const double value : found.centers) out.centers.push_back(static_cast<T>(value));
  out.close_group(found.steps, found.stop);
}

template class GroupClusterer<float>;
template class GroupClusterer<double>;

}  // namespace rlsft::isodata_detail
