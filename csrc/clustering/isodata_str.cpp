// STR's ISODATA (arXiv 2402.18284, Algorithm 2, with thresholds on variance and an added merge) on one group.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "isodata_common.hpp"

namespace rlsft::isodata_detail {
namespace {

struct Cluster {
  std::vector<std::int64_t> members;  // ascending
  std::vector<double> mean;           // [d]
  std::vector<double> variance;       // [d]
  bool is_alive = true;

  std::int64_t size() const { return static_cast<std::int64_t>(members.size()); }
};

double measure_of(IsodataVarianceKind kind, double trace, double largest) {
  if (kind == IsodataVarianceKind::trace) return trace;
  return kind == IsodataVarianceKind::max_component_variance ? largest : std::sqrt(largest);
}

template <typename T>
class Str {
 public:
  Str(const Rows<T>& rows, const IsodataOptions& options, std::vector<double> centers)
      : rows_(rows), options_(options), d_(rows.d),
        max_size_(options.max_size ? options.max_size : std::numeric_limits<std::int64_t>::max()),
        centers_(std::move(centers)), labels_(static_cast<std::size_t>(rows.n)) {}

  Clustering run() {
    std::set<PartitionKey> seen;
    Clustering result;
    bool was_quiet = false;
    PartitionKey previous{};
    for (int it = 0; it < options_.max_iter; ++it) {
      IsodataStep step{0, 0, assign(), 0};
      const PartitionKey key = partition_key(labels_, static_cast<std::int64_t>(centers_.size()) / d_);
      const bool is_repeat = !seen.insert(key).second;
      if (is_repeat) {
        result.stop = was_quiet && key == previous ? IsodataStop::stable : IsodataStop::cycle;
      } else {
        is_frozen_.assign(labels_.size(), 0);
        step.merges = merge_small();
        step.splits = split_wide();
        step.merges += merge_alike();
      }
      collect_centers();
      step.clusters = static_cast<std::int64_t>(clusters_.size());
      result.steps.push_back(step);
      if (is_repeat) break;
      was_quiet = step.splits + step.merges == 0;
      previous = key;
    }
    result.centers = std::move(centers_);
    return result;
  }

 private:
  // Returns how many centres got no row.
  std::int64_t assign() {
    assign_nearest(rows_, centers_, labels_.data());
    const std::size_t k = centers_.size() / static_cast<std::size_t>(d_);
    std::vector<Cluster> all(k);
    for (std::size_t i = 0; i < labels_.size(); ++i) all[labels_[i]].members.push_back(static_cast<std::int64_t>(i));
    clusters_.clear();
    for (Cluster& cluster : all) {
      if (cluster.members.empty()) continue;
      describe(cluster);
      clusters_.push_back(std::move(cluster));
    }
    return static_cast<std::int64_t>(k - clusters_.size());
  }

  void collect_centers() {
    centers_.clear();
    for (const Cluster& cluster : clusters_) centers_.insert(centers_.end(), cluster.mean.begin(), cluster.mean.end());
  }

  void describe(Cluster& cluster) const {
    const double size = static_cast<double>(cluster.size());
    const std::int64_t anchor = cluster.members.front();
    cluster.mean.assign(static_cast<std::size_t>(d_), 0);
    cluster.variance.assign(static_cast<std::size_t>(d_), 0);
    for (const std::int64_t i : cluster.members) {
      for (std::int64_t q = 0; q < d_; ++q) cluster.mean[q] += rows_.at(i, q) - rows_.at(anchor, q);
    }
    for (std::int64_t q = 0; q < d_; ++q) cluster.mean[q] = rows_.at(anchor, q) + cluster.mean[q] / size;
    for (const std::int64_t i : cluster.members) {
      for (std::int64_t q = 0; q < d_; ++q) {
        const double difference = rows_.at(i, q) - cluster.mean[q];
        cluster.variance[q] += difference * difference;
      }
    }
    for (double& variance : cluster.variance) {
      variance /= size;
      if (variance <= rows_.floor) variance = 0;
    }
  }

  bool is_wide(const Cluster& cluster) const {
    if (cluster.size() >= max_size_) return true;
    double trace = 0, largest = 0;
    for (const double variance : cluster.variance) {
      trace += variance;
      largest = std::max(largest, variance);
    }
    return exceeds(measure_of(options_.variance_kind, trace, largest), options_.var_threshold);
  }

  // Whether the union of two clusters keeps both bounds; its variance from the parts', without a pass over rows.
  bool union_fits(const Cluster& a, const Cluster& b) const {
    if (a.size() + b.size() >= max_size_) return false;
    const double na = static_cast<double>(a.size()), nb = static_cast<double>(b.size()), n = na + nb;
    double trace = 0, largest = 0;
    for (std::int64_t q = 0; q < d_; ++q) {
      const double gap = a.mean[q] - b.mean[q];
      double variance = (na * a.variance[q] + nb * b.variance[q]) / n + na * nb / (n * n) * gap * gap;
      if (variance <= rows_.floor) variance = 0;
      trace += variance;
      largest = std::max(largest, variance);
    }
    return !exceeds(measure_of(options_.variance_kind, trace, largest), options_.var_threshold);
  }

  double distance(const Cluster& a, const Cluster& b) const {
    return squared_distance(a.mean.data(), 1.0, b.mean.data(), d_);
  }

  void absorb(Cluster& target, const Cluster& source) const {
    std::vector<std::int64_t> members(target.members.size() + source.members.size());
    std::merge(target.members.begin(), target.members.end(), source.members.begin(), source.members.end(),
               members.begin());
    target.members = std::move(members);
    describe(target);
  }

  std::int64_t merge_small() {
    const auto smaller = [](const Cluster& a, const Cluster& b) { return a.size() < b.size(); };
    for (std::int64_t merges = 0;; ++merges) {
      const auto small = std::min_element(clusters_.begin(), clusters_.end(), smaller);
      if (clusters_.size() < 2 || small->size() > options_.min_size) return merges;
      double nearest = std::numeric_limits<double>::infinity();
      for (const Cluster& other : clusters_) {
        if (&other != &*small) nearest = std::min(nearest, distance(other, *small));
      }
      auto target = clusters_.begin();
      while (target == small || !ties_with_smallest(distance(*target, *small), nearest)) ++target;
      for (const std::int64_t i : small->members) is_frozen_[i] = 1;  // merged in this pass: not split off again in it
      absorb(*target, *small);
      clusters_.erase(small);
    }
  }

  std::int64_t split_wide() {
    std::int64_t splits = 0;
    for (std::size_t c = 0; c < clusters_.size();) {
      const std::int64_t farthest = clusters_[c].size() >= 2 && is_wide(clusters_[c]) ? farthest_free(clusters_[c]) : -1;
      if (farthest < 0) {
        ++c;
        continue;
      }
      std::vector<std::int64_t>& members = clusters_[c].members;
      members.erase(std::lower_bound(members.begin(), members.end(), farthest));
      describe(clusters_[c]);
      Cluster alone;
      alone.members = {farthest};
      describe(alone);
      clusters_.push_back(std::move(alone));
      ++splits;
    }
    return splits;
  }

  // The member farthest from the mean that was not merged in this pass; -1 when all were.
  std::int64_t farthest_free(const Cluster& cluster) const {
    std::vector<double> distances;
    double largest = -1;
    for (const std::int64_t i : cluster.members) {
      const double squared =
          is_frozen_[i] ? -1 : squared_distance(rows_.row(i), rows_.scale[i], cluster.mean.data(), d_);
      distances.push_back(squared);
      largest = std::max(largest, squared);
    }
    if (largest < 0) return -1;
    std::size_t at = 0;
    while (distances[at] < 0 || !ties_with_largest(distances[at], largest)) ++at;
    return cluster.members[at];
  }

  struct Partner {
    std::int64_t index = -1;
    double distance = std::numeric_limits<double>::infinity();
  };

  // The nearest later cluster whose union with cluster `a` fits.
  Partner best_partner(std::int64_t a) const {
    std::vector<Partner> fitting;
    double nearest = std::numeric_limits<double>::infinity();
    for (std::size_t b = a + 1; b < clusters_.size(); ++b) {
      if (!clusters_[b].is_alive || !union_fits(clusters_[a], clusters_[b])) continue;
      fitting.push_back({static_cast<std::int64_t>(b), distance(clusters_[a], clusters_[b])});
      nearest = std::min(nearest, fitting.back().distance);
    }
    for (const Partner& partner : fitting) {
      if (ties_with_smallest(partner.distance, nearest)) return partner;
    }
    return {};
  }

  // Merges the nearest pair that fits until no pair does. Only the best partner of each cluster is remembered, so
  // memory stays linear in the number of clusters.
  std::int64_t merge_alike() {
    const std::int64_t k = static_cast<std::int64_t>(clusters_.size());
    std::vector<Partner> best(clusters_.size());
    for (std::int64_t a = 0; a < k; ++a) best[a] = best_partner(a);
    std::int64_t merges = 0;
    for (;; ++merges) {
      double nearest = std::numeric_limits<double>::infinity();
      for (const Partner& partner : best) nearest = std::min(nearest, partner.distance);
      std::int64_t a = 0;
      while (a < k && (best[a].index < 0 || !ties_with_smallest(best[a].distance, nearest))) ++a;
      if (a == k) break;
      const std::int64_t b = best[a].index;
      absorb(clusters_[a], clusters_[b]);
      clusters_[b].is_alive = false;
      best[b] = {};
      best[a] = best_partner(a);
      for (std::int64_t c = 0; c < b; ++c) {
        if (c != a && clusters_[c].is_alive && is_outdated(best[c], c, a, b)) best[c] = best_partner(c);
      }
    }
    clusters_.erase(std::remove_if(clusters_.begin(), clusters_.end(), [](const Cluster& c) { return !c.is_alive; }),
                    clusters_.end());
    return merges;
  }

  // After b was merged into a: did c's best partner vanish or move, or is the new a a better one?
  bool is_outdated(const Partner& partner, std::int64_t c, std::int64_t a, std::int64_t b) const {
    if (partner.index == a || partner.index == b) return true;
    return c < a && ties_with_smallest(distance(clusters_[c], clusters_[a]), partner.distance);
  }

  const Rows<T>& rows_;
  const IsodataOptions& options_;
  const std::int64_t d_, max_size_;
  std::vector<double> centers_;
  std::vector<std::int32_t> labels_;
  std::vector<Cluster> clusters_;
  std::vector<std::uint8_t> is_frozen_;
};

}  // namespace

template <typename T>
Clustering cluster_str(const Rows<T>& rows, const IsodataOptions& options, std::vector<double> centers) {
  return Str<T>(rows, options, std::move(centers)).run();
}

template Clustering cluster_str(const Rows<float>&, const IsodataOptions&, std::vector<double>);
template Clustering cluster_str(const Rows<double>&, const IsodataOptions&, std::vector<double>);

}  // namespace rlsft::isodata_detail
