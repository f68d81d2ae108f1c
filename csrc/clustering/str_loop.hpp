// STR's ISODATA (arXiv 2402.18284, Algorithm 2, with thresholds on variance and an added merge) on one group.
//
// The loop is written once, over a Space: StrCoordinates (always right) and StrGram (dot products; undecided where a
// comparison is too close for its rounding errors). A Space has a type Cluster with `members` (ascending rows) and its
// own statistics, and
//   assign(labels)                       the nearest of the present centres: the start, then the means given to set_means
//   set_means(clusters)
//   describe(cluster)                    brings its statistics up to date with its members
//   variance(cluster), union_variance(a, b)        as variance_kind says
//   distance(a, b)                       squared, between means
//   distance(i, cluster)                 squared, from a row to a mean
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "bounded.hpp"
#include "isodata_common.hpp"

namespace rlsft::isodata_detail {

template <typename Space>
class StrLoop {
 public:
  using Cluster = typename Space::Cluster;

  // Stops early, with useless results, when the decider is left undecided.
  void run(Space& space, Decider& decider, const IsodataOptions& options, std::int64_t n, std::int64_t starts) {
    space_ = &space;
    decider_ = &decider;
    options_ = &options;
    max_size_ = options.max_size ? options.max_size : std::numeric_limits<std::int64_t>::max();
    labels_.assign(static_cast<std::size_t>(n), 0);
    num_centers_ = starts;
    steps_.clear();
    seen_.clear();
    stop_ = IsodataStop::max_iter;
    iterate();
  }

  const std::vector<Cluster>& clusters() const { return clusters_; }
  const std::vector<IsodataStep>& steps() const { return steps_; }
  IsodataStop stop() const { return stop_; }

 private:
  void iterate() {
    bool was_quiet = false;
    PartitionKey previous{};
    for (int it = 0; it < options_->max_iter && !decider_->is_undecided(); ++it) {
      IsodataStep step{0, 0, assign(), 0};
      const PartitionKey key = partition_key(labels_, num_centers_);
      const bool is_repeat = std::find(seen_.begin(), seen_.end(), key) != seen_.end();
      if (is_repeat) {
        stop_ = was_quiet && key == previous ? IsodataStop::stable : IsodataStop::cycle;
      } else {
        seen_.push_back(key);
        is_frozen_.assign(labels_.size(), 0);
        step.merges = merge_small();
        step.splits = split_wide();
        step.merges += merge_alike();
      }
      num_centers_ = static_cast<std::int64_t>(clusters_.size());
      space_->set_means(clusters_);
      step.clusters = num_centers_;
      steps_.push_back(step);
      if (is_repeat) break;
      was_quiet = step.splits + step.merges == 0;
      previous = key;
    }
  }

  // Returns how many centres got no row.
  std::int64_t assign() {
    space_->assign(labels_.data());
    clusters_.assign(static_cast<std::size_t>(num_centers_), Cluster{});
    for (std::size_t i = 0; i < labels_.size(); ++i) {
      clusters_[labels_[i]].members.push_back(static_cast<std::int64_t>(i));
    }
    remove_if([](const Cluster& cluster) { return cluster.members.empty(); });
    for (Cluster& cluster : clusters_) space_->describe(cluster);
    return num_centers_ - static_cast<std::int64_t>(clusters_.size());
  }

  template <typename Condition>
  void remove_if(Condition condition) {
    clusters_.erase(std::remove_if(clusters_.begin(), clusters_.end(), condition), clusters_.end());
  }

  static std::int64_t size(const Cluster& cluster) { return static_cast<std::int64_t>(cluster.members.size()); }

  bool is_wide(const Cluster& cluster) {
    return size(cluster) >= max_size_ || decider_->exceeds(space_->variance(cluster), {options_->var_threshold});
  }

  // Whether the union of two clusters keeps both bounds.
  bool union_fits(const Cluster& a, const Cluster& b) {
    if (size(a) + size(b) >= max_size_) return false;
    return !decider_->exceeds(space_->union_variance(a, b), {options_->var_threshold});
  }

  void absorb(Cluster& target, const Cluster& source) {
    std::vector<std::int64_t> members(target.members.size() + source.members.size());
    std::merge(target.members.begin(), target.members.end(), source.members.begin(), source.members.end(),
               members.begin());
    target.members = std::move(members);
    space_->describe(target);
  }

  std::int64_t merge_small() {
    const auto smaller = [](const Cluster& a, const Cluster& b) { return size(a) < size(b); };
    for (std::int64_t merges = 0;; ++merges) {
      const auto small = std::min_element(clusters_.begin(), clusters_.end(), smaller);
      if (clusters_.size() < 2 || size(*small) > options_->min_size) return merges;
      const std::size_t at = static_cast<std::size_t>(small - clusters_.begin());
      candidates_.clear();
      for (std::size_t c = 0; c < clusters_.size(); ++c) {
        if (c != at) candidates_.push_back({static_cast<std::int64_t>(c), space_->distance(clusters_[c], *small)});
      }
      Cluster& target = clusters_[nearest_candidate().index];
      for (const std::int64_t i : small->members) is_frozen_[i] = 1;  // merged in this pass: not split off again in it
      absorb(target, *small);
      clusters_.erase(small);
    }
  }

  std::int64_t split_wide() {
    std::int64_t splits = 0;
    for (std::size_t c = 0; c < clusters_.size() && !decider_->is_undecided();) {
      const std::int64_t farthest = size(clusters_[c]) >= 2 && is_wide(clusters_[c]) ? farthest_free(clusters_[c]) : -1;
      if (farthest < 0) {
        ++c;
        continue;
      }
      std::vector<std::int64_t>& members = clusters_[c].members;
      members.erase(std::lower_bound(members.begin(), members.end(), farthest));
      space_->describe(clusters_[c]);
      Cluster alone;
      alone.members = {farthest};
      space_->describe(alone);
      clusters_.push_back(std::move(alone));
      ++splits;
    }
    return splits;
  }

  // The member farthest from the mean that was not merged in this pass; -1 when all were.
  std::int64_t farthest_free(const Cluster& cluster) {
    candidates_.clear();
    for (const std::int64_t i : cluster.members) {
      if (!is_frozen_[i]) candidates_.push_back({i, space_->distance(i, cluster)});
    }
    if (candidates_.empty()) return -1;
    if (size(cluster) == 2) return candidates_.front().index;  // both are equally far from their mean
    const Candidate* farthest = &candidates_.front();
    for (const Candidate& c : candidates_) farthest = c.distance.value > farthest->distance.value ? &c : farthest;
    for (const Candidate& c : candidates_) {
      if (&c == farthest || decider_->ties_with_largest(c.distance, farthest->distance)) return c.index;
    }
    return -1;
  }

  struct Candidate {
    std::int64_t index = -1;
    Bounded distance{std::numeric_limits<double>::infinity()};
  };

  // The first of the nearest of candidates_, which are in order of their index; an infinite one when there is none.
  Candidate nearest_candidate() {
    Candidate nearest;
    for (const Candidate& c : candidates_) nearest = c.distance.value < nearest.distance.value ? c : nearest;
    for (const Candidate& c : candidates_) {
      if (c.index == nearest.index || decider_->ties_with_smallest(c.distance, nearest.distance)) return c;
    }
    return nearest;
  }

  // The nearest later cluster whose union with cluster `a` fits.
  Candidate best_partner(std::int64_t a) {
    candidates_.clear();
    for (std::int64_t b = a + 1; b < static_cast<std::int64_t>(clusters_.size()); ++b) {
      if (!clusters_[b].is_alive || !union_fits(clusters_[a], clusters_[b])) continue;
      candidates_.push_back({b, space_->distance(clusters_[a], clusters_[b])});
    }
    return nearest_candidate();
  }

  // Merges the nearest pair that fits until no pair does. Only the best partner of each cluster is remembered, so
  // memory stays linear in the number of clusters.
  std::int64_t merge_alike() {
    const std::int64_t k = static_cast<std::int64_t>(clusters_.size());
    best_.assign(clusters_.size(), {});
    for (std::int64_t a = 0; a < k && !decider_->is_undecided(); ++a) best_[a] = best_partner(a);
    std::int64_t merges = 0;
    for (; !decider_->is_undecided(); ++merges) {
      candidates_.clear();
      for (std::int64_t a = 0; a < k; ++a) {
        if (best_[a].index >= 0) candidates_.push_back({a, best_[a].distance});
      }
      const std::int64_t a = nearest_candidate().index;
      if (a < 0) break;
      const std::int64_t b = best_[a].index;
      absorb(clusters_[a], clusters_[b]);
      clusters_[b].is_alive = false;
      best_[b] = {};
      best_[a] = best_partner(a);
      for (std::int64_t c = 0; c < b; ++c) {
        if (c != a && clusters_[c].is_alive && is_outdated(best_[c], c, a, b)) best_[c] = best_partner(c);
      }
    }
    remove_if([](const Cluster& cluster) { return !cluster.is_alive; });
    return merges;
  }

  // After b was merged into a: did c's best partner vanish or move, or is the new a a better one?
  bool is_outdated(const Candidate& partner, std::int64_t c, std::int64_t a, std::int64_t b) {
    if (partner.index == a || partner.index == b) return true;
    if (c > a) return false;
    return partner.index < 0 || decider_->ties_with_smallest(space_->distance(clusters_[c], clusters_[a]), partner.distance);
  }

  Space* space_ = nullptr;
  Decider* decider_ = nullptr;
  const IsodataOptions* options_ = nullptr;
  std::int64_t max_size_ = 0, num_centers_ = 0;
  IsodataStop stop_ = IsodataStop::max_iter;
  std::vector<Cluster> clusters_;
  std::vector<Candidate> candidates_, best_;
  std::vector<std::int32_t> labels_;
  std::vector<std::uint8_t> is_frozen_;
  std::vector<IsodataStep> steps_;
  std::vector<PartitionKey> seen_;
};

}  // namespace rlsft::isodata_detail
