// Ball and Hall's ISODATA (1965, textbook form) on one group.
//
// The loop is written once, over a Space that knows where points and centres are. CoordinateSpace computes with the
// coordinates in float64 and without error; GramSpace computes with dot products, much faster for small groups, and
// leaves the group to CoordinateSpace when a comparison is too close for its rounding errors. So both give the same
// clusters.
//
// A Space has centres, and labels that refer to them:
//   expect(may_split, may_be_noise)             what the pass that begins will ask for
//   count(), assign(labels)                     centres; nearest one of each row
//   keep(flags), split(c, axis, step), lump(a, b, sizes)        remove, split (the other half goes last), unite centres
//   move_to_means(labels, sizes)                the centres become the means of the rows that have their label
//   moved()                                     sum of the squared moves of the last move_to_means
//   settle(labels, sizes)                       the same means, without trace of how the run came to them
//   total_variance(c)                           summed over coordinates, of the rows of centre c after move_to_means
//   most_variance(c)                            at least the largest variance of a coordinate; cheap
//   widest(c)                                   the coordinate of the largest variance, and that variance, without error
//   spread(c, squared)                          sum of the distances (or their squares) of c's rows to it
//   center_distance(a, b)
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "bounded.hpp"
#include "isodata_common.hpp"

namespace rlsft::isodata_detail {

template <typename Space>
class BallHall {
 public:
  // Clusters the n rows of `space` from its present centres; weight [n] or null. Stops early, with useless results, when
  // the decider is left undecided.
  void run(Space& space, Decider& decider, const IsodataOptions& options, std::int64_t n, std::int64_t d,
           const double* weight = nullptr) {
    space_ = &space;
    decider_ = &decider;
    options_ = &options;
    weight_ = weight;
    wanted_ = clusters_wanted(options, weight == nullptr ? n : n - std::count(weight, weight + n, 0.0));
    labels_.assign(static_cast<std::size_t>(n), 0);
    is_noise_.assign(static_cast<std::size_t>(n), 0);
    steps_.clear();
    seen_.clear();
    stop_ = IsodataStop::max_iter;
    const bool needs_overall = options.max_std < 0 || options.min_distance < 0 || options.tol > 0;
    const Bounded overall = needs_overall ? space.overall_variance() : Bounded{0};
    max_std_ = options.max_std >= 0 ? Bounded{options.max_std}
                                    : 0.6 * root((1.0 / static_cast<double>(d)) * overall);
    min_distance_ = options.min_distance >= 0 ? Bounded{options.min_distance} : 0.75 * root(overall);
    dimension_ = static_cast<double>(d);
    largest_move_ = options.tol * overall.value / dimension_;
    iterate();
  }

  const std::vector<std::int32_t>& labels() const { return labels_; }
  const std::vector<double>& sizes() const { return sizes_; }
  const std::vector<std::uint8_t>& is_noise() const { return is_noise_; }
  const std::vector<IsodataStep>& steps() const { return steps_; }
  IsodataStop stop() const { return stop_; }

 private:
  struct Visit {
    PartitionKey key;
    int parity, it;
  };

  void iterate() {
    bool was_quiet = false;
    PartitionKey previous{};
    int last = options_->max_iter;
    for (int it = 1; !decider_->is_undecided(); ++it) {
      space_->expect(may_split(it), options_->discard_as_noise);
      IsodataStep step{0, 0, assign_and_drop(), 0};
      space_->move_to_means(labels_, sizes_);
      const PartitionKey key = partition_key(labels_, count(), weight_);
      const int before = first_visit(key, it);
      if (options_->stop_early && stop_ == IsodataStop::max_iter && before < it) {
        // go on to the phase of the cycle that max_iter passes end in: stopping early does not change the result
        last = it + (last - it) % (it - before);
        stop_ = IsodataStop::cycle;
      }
      const bool is_last = it == last;
      if (!is_last && may_split(it)) step.splits = split();
      if (!is_last && step.splits == 0) step.merges = merge();
      step.clusters = count();
      steps_.push_back(step);
      const bool is_quiet = !is_last && step.splits + step.merges + step.drops == 0;
      if (is_last) break;
      if (options_->stop_early && is_quiet && was_quiet && key == previous) {
        stop_ = IsodataStop::stable;
        break;
      }
      if (options_->tol > 0 && is_quiet && was_quiet && space_->moved() <= largest_move_) {
        stop_ = IsodataStop::tol;
        break;
      }
      was_quiet = is_quiet;
      previous = key;
    }
    if (!decider_->is_undecided()) space_->settle(labels_, sizes_);
  }

  // The pass of the same parity in which this partition was first seen; `it` itself when it is new. A cycle is looked
  // for only until it is found, and few runs have more than some dozen passes.
  int first_visit(const PartitionKey& key, int it) {
    if (!options_->stop_early || stop_ != IsodataStop::max_iter) return it;
    for (const Visit& visit : seen_) {
      if (visit.parity == it % 2 && visit.key == key) return visit.it;
    }
    seen_.push_back({key, it % 2, it});
    return it;
  }

  std::int64_t count() const { return space_->count(); }
  bool has_few() const { return 2 * count() <= wanted_; }
  bool may_split(int it) const { return has_few() || (it % 2 == 1 && count() < 2 * wanted_); }

  // Drops clusters below min_samples until none is; their rows go to the nearest centre left, or become noise.
  std::int64_t assign_and_drop() {
    for (std::int64_t drops = 0;;) {
      space_->assign(labels_.data());
      for (std::size_t i = 0; i < labels_.size(); ++i) {
        if (is_noise_[i]) labels_[i] = -1;
      }
      count_members();
      keep_.resize(sizes_.size());
      for (std::size_t c = 0; c < keep_.size(); ++c) keep_[c] = sizes_[c] > 0 && sizes_[c] >= options_->min_samples;
      if (std::count(keep_.begin(), keep_.end(), 1) == 0) {
        keep_[std::max_element(sizes_.begin(), sizes_.end()) - sizes_.begin()] = 1;  // the last one is never dropped
      }
      const std::int64_t dropped = std::count(keep_.begin(), keep_.end(), 0);
      if (dropped == 0) return drops;
      drops += dropped;
      for (std::size_t i = 0; options_->discard_as_noise && i < labels_.size(); ++i) {
        if (labels_[i] >= 0 && !keep_[labels_[i]]) is_noise_[i] = 1;
      }
      space_->keep(keep_);
    }
  }

  void count_members() {
    sizes_.assign(static_cast<std::size_t>(count()), 0);
    for (std::size_t i = 0; i < labels_.size(); ++i) {
      if (labels_[i] >= 0) sizes_[labels_[i]] += weight_ == nullptr ? 1 : weight_[i];
    }
  }

  std::int64_t split() {
    const std::int64_t k = count();
    wide_.assign(static_cast<std::size_t>(k), 0);
    for (std::int64_t c = 0; c < k; ++c) wide_[c] = may_be_wide(c);
    if (std::count(wide_.begin(), wide_.end(), 1) == 0) return 0;  // spares the distances to the means
    if (has_few()) {
      keep_.assign(static_cast<std::size_t>(k), 1);
    } else {
      find_loose();
    }
    std::int64_t splits = 0;
    for (std::int64_t c = 0; c < k && !decider_->is_undecided(); ++c) {
      if (wide_[c] && keep_[c]) splits += split_if_wide(c);
    }
    return splits;
  }

  // False only when the cluster does not exceed max_std.
  bool may_be_wide(std::int64_t c) {
    if (!options_->split_by_largest) return decider_->exceeds(root((1.0 / dimension_) * space_->total_variance(c)), max_std_);
    const Bounded most = root(space_->most_variance(c));
    return most.value + most.error >= max_std_.value;
  }

  bool split_if_wide(std::int64_t c) {
    const Widest widest = space_->widest(c);
    const double deviation = std::sqrt(widest.variance);
    if (options_->split_by_largest && !decider_->exceeds({deviation}, max_std_)) return false;
    space_->split(c, widest.axis, options_->split_factor * deviation);
    return true;
  }

  // keep_[c]: D_j > D and N_j > 2 (theta_N + 1), with D weighted by members.
  void find_loose() {
    const std::int64_t k = count();
    keep_.assign(static_cast<std::size_t>(k), 0);
    const auto is_large = [&](double size) { return size > 2 * (options_->min_samples + 1); };
    if (k == 1 || std::none_of(sizes_.begin(), sizes_.end(), is_large)) return;  // one cluster's D_j is D
    const bool squared = options_->squared_dispersion;
    spreads_.resize(static_cast<std::size_t>(k));
    Bounded sum{0};
    double members = 0;
    for (std::int64_t c = 0; c < k; ++c) {
      spreads_[c] = space_->spread(c, squared);
      sum = sum + spreads_[c];
      members += sizes_[c];
    }
    Bounded overall = (1 / members) * sum;
    if (squared) overall = root(overall);
    for (std::int64_t c = 0; c < k; ++c) {
      if (!is_large(sizes_[c])) continue;
      Bounded own = (1 / sizes_[c]) * spreads_[c];
      if (squared) own = root(own);
      keep_[c] = decider_->exceeds(own, overall);
    }
  }

  struct Pair {
    Bounded distance;
    std::int64_t a, b;
  };

  // Lumps at most max_merges pairs closer than min_distance, nearest first, each centre at most once; of equally near
  // ones the lowest pair.
  std::int64_t merge() {
    close_.clear();
    for (std::int64_t a = 0; a < count(); ++a) {
      for (std::int64_t b = a + 1; b < count(); ++b) {
        const Bounded distance = space_->center_distance(a, b);
        if (decider_->falls_below(distance, min_distance_)) close_.push_back({distance, a, b});
      }
    }
    keep_.assign(static_cast<std::size_t>(count()), 1);
    std::int64_t merges = 0;
    while (!close_.empty() && merges < options_->max_merges) {
      const Pair nearest = nearest_pair();
      space_->lump(nearest.a, nearest.b, sizes_);
      keep_[nearest.b] = 0;
      ++merges;
      const auto touches = [&](const Pair& p) {
        return p.a == nearest.a || p.a == nearest.b || p.b == nearest.a || p.b == nearest.b;
      };
      close_.erase(std::remove_if(close_.begin(), close_.end(), touches), close_.end());
    }
    if (merges > 0) space_->keep(keep_);
    return merges;
  }

  Pair nearest_pair() {
    const Pair* smallest = &close_.front();
    for (const Pair& pair : close_) smallest = pair.distance.value < smallest->distance.value ? &pair : smallest;
    const Pair* first = smallest;
    for (const Pair& pair : close_) {  // in order of (a, b)
      if (&pair == smallest || !decider_->ties_with_smallest(pair.distance, smallest->distance)) continue;
      if (&pair < first) first = &pair;
    }
    return *first;
  }

  Space* space_ = nullptr;
  Decider* decider_ = nullptr;
  const IsodataOptions* options_ = nullptr;
  std::int64_t wanted_ = 0;
  double dimension_ = 0, largest_move_ = 0;
  const double* weight_ = nullptr;
  Bounded max_std_{0}, min_distance_{0};
  IsodataStop stop_ = IsodataStop::max_iter;
  std::vector<std::int32_t> labels_;
  std::vector<double> sizes_;  // sums of weights
  std::vector<std::uint8_t> is_noise_, keep_, wide_;
  std::vector<Bounded> spreads_;
  std::vector<Pair> close_;
  std::vector<IsodataStep> steps_;
  std::vector<Visit> seen_;
};

}  // namespace rlsft::isodata_detail
