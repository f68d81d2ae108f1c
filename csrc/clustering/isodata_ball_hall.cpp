// Ball and Hall's ISODATA (1965, textbook form) on one group.
#include <algorithm>
#include <cmath>

#include "isodata_common.hpp"

namespace rlsft::isodata_detail {
namespace {

template <typename T>
class BallHall {
 public:
  BallHall(const Rows<T>& rows, const IsodataOptions& options, std::vector<double> centers)
      : rows_(rows), options_(options), d_(rows.d), wanted_(clusters_wanted(options, rows.count_weighted())),
        centers_(std::move(centers)), labels_(static_cast<std::size_t>(rows.n)),
        is_noise_(static_cast<std::size_t>(rows.n)) {
    for (std::int64_t c = 0; c < count(); ++c) onto_sphere(center(c));
    const double total = options.max_std >= 0 && options.min_distance >= 0 && options.tol == 0 ? 0 : total_variance();
    max_std_ = options.max_std >= 0 ? options.max_std : 0.6 * std::sqrt(total / static_cast<double>(d_));
    min_distance_ = options.min_distance >= 0 ? options.min_distance : 0.75 * std::sqrt(total);
    largest_move_ = options.tol * total / static_cast<double>(d_);
  }

  Clustering run() {
    std::map<std::pair<PartitionKey, int>, int> seen;
    Clustering result;
    bool was_quiet = false;
    PartitionKey previous{};
    int last = options_.max_iter;
    for (int it = 1;; ++it) {
      IsodataStep step{0, 0, assign_and_drop(it), 0};
      const double move = update_means();
      const PartitionKey key = partition_key(labels_, count(), rows_.weight);
      const auto [found, is_new] = seen.try_emplace({key, it % 2}, it);
      if (options_.stop_early && result.stop == IsodataStop::max_iter && !is_new) {
        // go on to the phase of the cycle that max_iter passes end in: stopping early does not change the result
        last = it + (last - it) % (it - found->second);
        result.stop = IsodataStop::cycle;
      }
      const bool is_last = it == last;
      if (!is_last && may_split(it)) step.splits = split();
      if (!is_last && step.splits == 0) step.merges = merge();
      step.clusters = count();
      result.steps.push_back(step);
      const bool is_quiet = !is_last && step.splits + step.merges + step.drops == 0;
      if (is_last) break;
      if (options_.stop_early && is_quiet && was_quiet && key == previous) {
        result.stop = IsodataStop::stable;
        break;
      }
      if (options_.tol > 0 && is_quiet && was_quiet && move <= largest_move_) {
        result.stop = IsodataStop::tol;
        break;
      }
      was_quiet = is_quiet;
      previous = key;
    }
    // sums around the centres of the pass before depend, in the last bit, on how the run came here; these do not
    centers_ = cluster_means(rows_, labels_, sizes_);
    for (std::int64_t c = 0; c < count(); ++c) onto_sphere(center(c));
    result.centers = std::move(centers_);
    result.is_noise = std::move(is_noise_);
    return result;
  }

 private:
  std::int64_t count() const { return static_cast<std::int64_t>(centers_.size()) / d_; }
  double* center(std::int64_t c) { return centers_.data() + c * d_; }
  void onto_sphere(double* c) const {
    if (options_.cosine) scale_to_unit(c, d_);
  }
  bool has_few() const { return 2 * count() <= wanted_; }
  bool may_split(int it) const { return has_few() || (it % 2 == 1 && count() < 2 * wanted_); }

  // Keeps the centres for which keep[c] != 0, in order.
  void keep_centers(const std::vector<std::uint8_t>& keep) {
    std::int64_t kept = 0;
    for (std::int64_t c = 0; c < static_cast<std::int64_t>(keep.size()); ++c) {
      if (keep[c]) std::copy_n(center(c), d_, center(kept++));
    }
    centers_.resize(static_cast<std::size_t>(kept * d_));
  }

  // Drops clusters below min_samples until none is; their rows go to the nearest centre left, or become noise.
  std::int64_t assign_and_drop(int it) {
    sums_.has_squares = may_split(it);  // drops may change that: the squares are then taken from the rows
    for (std::int64_t drops = 0;;) {
      assign_nearest(rows_, centers_, labels_.data(), options_.discard_as_noise ? nullptr : &sums_);
      for (std::size_t i = 0; i < labels_.size(); ++i) {
        if (is_noise_[i]) labels_[i] = -1;
      }
      sizes_ = cluster_sizes(labels_, count(), rows_.weight);
      std::vector<std::uint8_t> keep(sizes_.size());
      for (std::size_t c = 0; c < keep.size(); ++c) keep[c] = sizes_[c] > 0 && sizes_[c] >= options_.min_samples;
      if (std::count(keep.begin(), keep.end(), 1) == 0) {
        keep[std::max_element(sizes_.begin(), sizes_.end()) - sizes_.begin()] = 1;  // the last one is never dropped
      }
      const std::int64_t dropped = std::count(keep.begin(), keep.end(), 0);
      if (dropped == 0) return drops;
      drops += dropped;
      for (std::size_t i = 0; options_.discard_as_noise && i < labels_.size(); ++i) {
        if (labels_[i] >= 0 && !keep[labels_[i]]) is_noise_[i] = 1;
      }
      keep_centers(keep);
    }
  }

  // Returns the sum of the centres' squared moves.
  double update_means() {
    const std::vector<double> before = std::move(centers_);
    centers_ = cluster_means(rows_, labels_, sizes_, &sums_);
    for (std::int64_t c = 0; c < count(); ++c) onto_sphere(center(c));
    double move = 0;
    for (std::size_t j = 0; j < before.size(); ++j) move += (centers_[j] - before[j]) * (centers_[j] - before[j]);
    return move;
  }

  double total_variance() const {
    std::vector<std::int32_t> all(labels_.size(), 0);
    ClusterSums sums;
    if (rows_.filter != nullptr) {
      assign_nearest(rows_, {rows_.filter->anchor.begin(), rows_.filter->anchor.end()}, all.data(), &sums);
    }
    double total = 0;
    for (const double variance : cluster_variances(rows_, all, cluster_sizes(all, 1, rows_.weight), &sums)) {
      total += variance;
    }
    return total;
  }

  struct Widest {
    std::int64_t axis;
    double sigma;  // of that coordinate; 0: the cluster does not exceed max_std
  };

  std::vector<Widest> wide_clusters() const {
    const std::vector<double> variances = cluster_variances(rows_, labels_, sizes_, &sums_);
    std::vector<Widest> wide;
    for (const double* variance = variances.data(); variance != variances.data() + variances.size(); variance += d_) {
      const double largest = *std::max_element(variance, variance + d_);
      double sum = 0;
      for (std::int64_t q = 0; q < d_; ++q) sum += variance[q];
      std::int64_t axis = 0;
      while (!ties_with_largest(variance[axis], largest)) ++axis;
      const double deviation = std::sqrt(options_.split_by_largest ? variance[axis] : sum / static_cast<double>(d_));
      wide.push_back({axis, exceeds(deviation, max_std_) ? std::sqrt(variance[axis]) : 0});
    }
    return wide;
  }

  std::int64_t split() {
    const std::int64_t k = count();
    const std::vector<Widest> wide = wide_clusters();
    const auto is_wide = [](const Widest& widest) { return widest.sigma > 0; };
    if (std::none_of(wide.begin(), wide.end(), is_wide)) return 0;  // spares the pass over the rows for the distances
    const std::vector<std::uint8_t> may_split =
        has_few() ? std::vector<std::uint8_t>(static_cast<std::size_t>(k), 1) : loose_clusters();
    std::vector<double> added;
    for (std::int64_t c = 0; c < k; ++c) {
      if (!may_split[c] || !is_wide(wide[c])) continue;
      const double step = options_.split_factor * wide[c].sigma;
      std::vector<double> other(center(c), center(c) + d_);
      center(c)[wide[c].axis] += step;
      other[wide[c].axis] -= step;
      onto_sphere(center(c));
      onto_sphere(other.data());
      added.insert(added.end(), other.begin(), other.end());
    }
    centers_.insert(centers_.end(), added.begin(), added.end());
    return static_cast<std::int64_t>(added.size()) / d_;
  }

  // D_j > D and N_j > 2 (theta_N + 1), with D weighted by members.
  std::vector<std::uint8_t> loose_clusters() const {
    std::vector<double> spread = cluster_spreads(rows_, labels_, centers_, options_.squared_dispersion);
    double sum = 0, members = 0;
    for (std::size_t c = 0; c < spread.size(); ++c) {
      sum += spread[c];
      members += sizes_[c];
    }
    double overall = sum / members;
    if (options_.squared_dispersion) overall = std::sqrt(overall);
    std::vector<std::uint8_t> is_loose(spread.size());
    for (std::size_t c = 0; c < spread.size(); ++c) {
      double own = spread[c] / sizes_[c];
      if (options_.squared_dispersion) own = std::sqrt(own);
      is_loose[c] = exceeds(own, overall) && sizes_[c] > 2 * (options_.min_samples + 1);
    }
    return is_loose;
  }

  struct Pair {
    double distance;
    std::int64_t a, b;
  };

  // Pairs closer than min_distance, in order of (a, b). Lumps at most max_merges of them, nearest first, each centre
  // at most once.
  std::int64_t merge() {
    std::vector<Pair> close;
    for (std::int64_t a = 0; a < count(); ++a) {
      for (std::int64_t b = a + 1; b < count(); ++b) {
        const double distance = std::sqrt(squared_distance(center(a), 1.0, center(b), d_));
        if (falls_below(distance, min_distance_)) close.push_back({distance, a, b});
      }
    }
    std::vector<std::uint8_t> keep(static_cast<std::size_t>(count()), 1);
    std::int64_t merges = 0;
    while (!close.empty() && merges < options_.max_merges) {
      double smallest = close.front().distance;
      for (const Pair& pair : close) smallest = std::min(smallest, pair.distance);
      const Pair nearest = *std::find_if(close.begin(), close.end(),
                                         [&](const Pair& p) { return ties_with_smallest(p.distance, smallest); });
      lump(nearest.a, nearest.b);
      keep[nearest.b] = 0;
      ++merges;
      const auto touches = [&](const Pair& p) {
        return p.a == nearest.a || p.a == nearest.b || p.b == nearest.a || p.b == nearest.b;
      };
      close.erase(std::remove_if(close.begin(), close.end(), touches), close.end());
    }
    keep_centers(keep);
    return merges;
  }

  void lump(std::int64_t a, std::int64_t b) {
    const double na = sizes_[a], nb = sizes_[b];
    double *ca = center(a), *cb = center(b);
    for (std::int64_t q = 0; q < d_; ++q) ca[q] = (na * ca[q] + nb * cb[q]) / (na + nb);
    onto_sphere(ca);
  }

  const Rows<T>& rows_;
  const IsodataOptions& options_;
  const std::int64_t d_, wanted_;
  std::vector<double> centers_;
  std::vector<std::int32_t> labels_;
  std::vector<double> sizes_;  // sums of weights
  ClusterSums sums_;
  std::vector<std::uint8_t> is_noise_;
  double max_std_, min_distance_, largest_move_;
};

}  // namespace

template <typename T>
Clustering cluster_ball_hall(const Rows<T>& rows, const IsodataOptions& options, std::vector<double> centers) {
  return BallHall<T>(rows, options, std::move(centers)).run();
}

template Clustering cluster_ball_hall(const Rows<float>&, const IsodataOptions&, std::vector<double>);
template Clustering cluster_ball_hall(const Rows<double>&, const IsodataOptions&, std::vector<double>);

}  // namespace rlsft::isodata_detail
