// STR's loop on one group by one block: StrLoop over StrCoordinates (csrc/clustering), step by step. centers_ holds the
// means of the clusters, other_ their variances per coordinate; the members of a cluster are the rows with its label.
#pragma once

#include "cluster_ends.cuh"

namespace rlsft::cuda {

// After the first assignment a group has at most as many clusters as rows.
struct StrState : ClusterState {
  double gaps[kMostRows];    // squared distance to the best partner
  int partners[kMostRows];   // the nearest later cluster whose union with this one fits, or -1
  int is_frozen[kMostRows];  // rows merged in this pass: not split off again in it
};

template <typename T>
class StrClusters : public ClusterEnds<T> {
 public:
  using Settings = StrSettings;
  using State = StrState;

  __device__ StrClusters(State& state, const ClusterSettings& common, const Settings& settings, const T* x, int n, int d,
                         const double* weight, double* workspace, int most)
      : Base(state, common, x, n, d, weight, workspace, most), s_(state), o_(settings) {}

  // start as in begin().
  __device__ void run(const double* start, int starts, std::int32_t* steps, std::int32_t* n_steps, std::int32_t* stop) {
    this->begin(start, starts);
    iterate(steps, n_steps, stop);
  }

 private:
  using Base = ClusterEnds<T>;
  using Base::add_sizes, Base::assign, Base::center, Base::centers_, Base::common_, Base::d_, Base::distances_,
      Base::drop_unused, Base::each_folded, Base::find_key, Base::first_of, Base::folded, Base::keep_flagged,
      Base::keep_rows, Base::largest_of, Base::mean_of, Base::n_, Base::other_, Base::set_count, Base::sort_members,
      Base::square, Base::to_point, Base::variance_of;

  __device__ void iterate(std::int32_t* steps, std::int32_t* n_steps, std::int32_t* stopped) {
    IsodataStop stop = IsodataStop::max_iter;
    bool was_quiet = false;
    int seen = 0, it = 1;
    for (;; ++it) {
      const int drops = assign_rows();
      const bool is_same = find_key();
      const int before = seen;
      const bool is_repeat = this->visit_of_key(0, 1, &seen) < before;
      int splits = 0, merges = 0;
      if (is_repeat) {
        stop = was_quiet && is_same ? IsodataStop::stable : IsodataStop::cycle;
      } else {
        merges = merge_small();
        splits = split_wide();
        merges += merge_alike();
      }
      this->note_step(steps, it, splits, merges, drops);
      if (is_repeat || it == common_.max_iter) break;
      was_quiet = splits + merges == 0;
    }
    if (thread_id() == 0) {
      *n_steps = it;
      *stopped = static_cast<std::int32_t>(stop);
    }
    __syncthreads();
  }

  // The clusters of the nearest centres; returns how many centres got no row.
  __device__ int assign_rows() {
    assign();
    const int before = s_.count, k = drop_unused(before);
    add_sizes(k);
    sort_members(k);
    for (int e = thread_id(); e < k * d_; e += blockDim.x) describe(e / d_, e % d_);
    return before - k;
  }

  __device__ void flag_all(int k) {
    __syncthreads();
    for (int c = thread_id(); c < k; c += blockDim.x) s_.keep[c] = 1;
    __syncthreads();
  }

  // ---- statistics

  __device__ void describe(int c, int q) {
    const double mean = mean_of(c, q);
    const std::int64_t at = static_cast<std::int64_t>(c) * d_ + q;
    centers_[at] = mean;
    other_[at] = variance_of(c, q, mean);
  }

  // s_.members = the rows of cluster c alone.
  __device__ void gather(int c) {
    __syncthreads();
    for (int i = thread_id(); i < n_; i += blockDim.x) {
      if (s_.labels[i] != c) continue;
      int place = 0;
      for (int j = 0; j < i; ++j) place += s_.labels[j] == c;
      s_.members[place] = i;
    }
    if (thread_id() == 0) {
      s_.begin[c] = 0;
      s_.begin[c + 1] = static_cast<int>(s_.sizes[c]);
    }
    __syncthreads();
  }

  // After its members changed.
  __device__ void describe_again(int c) {
    gather(c);
    for (int q = thread_id(); q < d_; q += blockDim.x) describe(c, q);
    __syncthreads();
  }

  // What variance_kind makes of the variances f(q), by eight neighbouring threads.
  template <typename F>
  __device__ double measured(F f) const {
    const bool is_trace = o_.variance_kind == static_cast<int>(IsodataVarianceKind::trace);
    double found = 0.0;
    for (int q = lane_id() % 8; q < d_; q += 8) {
      const double own = f(q);
      found = is_trace ? found + own : own > found ? own : found;
    }
#pragma unroll
    for (int step = 4; step > 0; step >>= 1) {
      const double other = __shfl_xor_sync(kFullWarp, found, step);
      found = is_trace ? found + other : other > found ? other : found;
    }
    return o_.variance_kind == static_cast<int>(IsodataVarianceKind::max_component_std) ? sqrt(found) : found;
  }

  // s_.spreads[c] = the variance of cluster c, for first <= c < last.
  __device__ void measure_variances(int first, int last) {
    const auto variance = [&](int j) {
      const double* own = other_ + static_cast<std::int64_t>(first + j) * d_;
      return measured([&](int q) { return own[q]; });
    };
    each_folded(last - first, variance, [&](int j, double result) { s_.spreads[first + j] = result; });
  }

  // From the variances of the parts, without a pass over rows.
  __device__ double union_variance(int a, int b) const {
    const double na = s_.sizes[a], nb = s_.sizes[b], n = na + nb, between = na * nb / (n * n);
    const double *left = other_ + static_cast<std::int64_t>(a) * d_, *right = other_ + static_cast<std::int64_t>(b) * d_;
    return measured([&](int q) {
      const double gap = center(a)[q] - center(b)[q];
      const double variance = (na * left[q] + nb * right[q]) / n + between * gap * gap;
      return variance <= this->floor_ ? 0.0 : variance;
    });
  }

  __device__ double distance(int a, int b) const {
    return folded([&](int q) { return square(center(a)[q] - center(b)[q]); });
  }

  // ---- changes

  // The rows of `source` become rows of `target`; `source` keeps its number, without a flag.
  __device__ void absorb(int target, int source) {
    __syncthreads();
    for (int i = thread_id(); i < n_; i += blockDim.x) {
      if (s_.labels[i] == source) s_.labels[i] = target;
    }
    if (thread_id() == 0) {
      s_.sizes[target] += s_.sizes[source];
      s_.keep[source] = 0;
    }
    describe_again(target);
  }

  // A row of cluster c becomes the last cluster.
  __device__ void set_apart(int row, int c) {
    const int alone = s_.count;
    __syncthreads();
    if (thread_id() == 0) {
      s_.labels[row] = alone;
      s_.sizes[c] -= 1;
      s_.sizes[alone] = 1;
    }
    set_count(alone + 1);
    describe_again(c);
    describe_again(alone);
  }

  // Removes the clusters without a flag.
  __device__ void compact() {
    const int k = s_.count;
    this->renumber(k);
    this->alone([&] {
      for (int c = 0; c < k; ++c) {
        if (s_.keep[c] != 0) s_.sizes[s_.begin[c]] = s_.sizes[c];
      }
      return 0.0;
    });
    keep_rows(other_, k);
    keep_flagged(k);
  }

  // ---- small clusters

  __device__ int merge_small() {
    const int k = s_.count;
    for (int i = thread_id(); i < n_; i += blockDim.x) s_.is_frozen[i] = 0;
    flag_all(k);
    int merges = 0;
    for (; k - merges > 1; ++merges) {
      const int small = smallest(k);
      if (s_.sizes[small] > o_.min_size) break;
      const int target = nearest_to(small, k);
      for (int i = thread_id(); i < n_; i += blockDim.x) {
        if (s_.labels[i] == small) s_.is_frozen[i] = 1;
      }
      absorb(target, small);
    }
    if (merges > 0) compact();
    return merges;
  }

  __device__ int smallest(int k) const {
    const double size = -largest_of(k, [&](int c) { return s_.keep[c] != 0 ? -s_.sizes[c] : -kInfinity; });
    return first_of(k, [&](int c) { return s_.keep[c] != 0 && s_.sizes[c] == size; });
  }

  __device__ int nearest_to(int small, int k) {
    each_folded(k, [&](int c) { return distance(c, small); }, [&](int c, double result) { distances_[c] = result; });
    const auto is_other = [&](int c) { return c != small && s_.keep[c] != 0; };
    const double nearest = -largest_of(k, [&](int c) { return is_other(c) ? -distances_[c] : -kInfinity; });
    return first_of(k, [&](int c) { return is_other(c) && ties_with_smallest(distances_[c], nearest); });
  }

  // ---- wide clusters

  __device__ int split_wide() {
    measure_variances(0, s_.count);
    int splits = 0;
    for (int c = 0; c < s_.count;) {
      const int farthest = s_.sizes[c] >= 2 && is_wide(c) ? farthest_free(c) : -1;
      if (farthest < 0) {
        ++c;
        continue;
      }
      set_apart(farthest, c);
      measure_variances(c, c + 1);
      ++splits;
    }
    return splits;
  }

  __device__ bool reaches_max_size(double size) const { return o_.max_size != 0 && size >= o_.max_size; }
  __device__ bool is_wide(int c) const {
    return reaches_max_size(s_.sizes[c]) || exceeds(s_.spreads[c], o_.var_threshold);
  }

  // The member farthest from the mean that was not merged in this pass; -1 when all were.
  __device__ int farthest_free(int c) {
    gather(c);
    const int size = s_.begin[c + 1];
    each_folded(size, [&](int j) { return to_point(s_.members[j], center(c)); },
                [&](int j, double result) { s_.to_own[j] = result; });
    const auto is_free = [&](int j) { return s_.is_frozen[s_.members[j]] == 0; };
    const double largest = largest_of(size, [&](int j) { return is_free(j) ? s_.to_own[j] : -kInfinity; });
    // both rows of a pair are equally far from their mean
    const int place = first_of(size, [&](int j) {
      return is_free(j) && (size == 2 || !(largest * (1 - kTie) - s_.to_own[j] > 0));
    });
    return place == size ? -1 : s_.members[place];
  }

  // ---- clusters that fit together

  // Merges the nearest pair that fits until no pair does.
  __device__ int merge_alike() {
    const int k = s_.count;
    flag_all(k);
    for (int a = 0; a < k; ++a) compare(a, a + 1, k, k);
    for (int c = thread_id(); c < k; c += blockDim.x) choose_partner(c, k);
    int merges = 0;
    for (;; ++merges) {
      __syncthreads();
      const double nearest = -largest_of(k, [&](int c) { return -s_.gaps[c]; });
      const int a = first_of(k, [&](int c) { return s_.partners[c] >= 0 && ties_with_smallest(s_.gaps[c], nearest); });
      if (a == k) break;
      const int b = s_.partners[a];
      absorb(a, b);
      compare(a, 0, k, k);
      for (int c = thread_id(); c <= b; c += blockDim.x) {
        if (c == b) forget_partner(c);
        else if (s_.keep[c] != 0 && is_outdated(c, a, b, k)) choose_partner(c, k);
      }
    }
    if (merges > 0) compact();
    return merges;
  }

  // Of clusters a < b: distances_[a * k + b] = their squared distance, distances_[b * k + a] = 1 when the union keeps
  // both bounds. For cluster a and every other from `first` to `last`.
  __device__ void compare(int a, int first, int last, int k) {
    const auto place = [&](int j, bool is_distance) {
      const int b = first + j, low = a < b ? a : b, high = a < b ? b : a;
      return static_cast<std::int64_t>(is_distance ? low : high) * k + (is_distance ? high : low);
    };
    each_folded(last - first, [&](int j) { return distance(a, first + j); }, [&](int j, double result) {
      if (first + j != a) distances_[place(j, true)] = result;
    });
    each_folded(last - first, [&](int j) { return union_variance(a, first + j); }, [&](int j, double variance) {
      const bool fits = !reaches_max_size(s_.sizes[a] + s_.sizes[first + j]) && !exceeds(variance, o_.var_threshold);
      if (first + j != a) distances_[place(j, false)] = fits ? 1.0 : 0.0;
    });
  }

  __device__ bool may_join(int a, int b, int k) const {
    return s_.keep[b] != 0 && distances_[static_cast<std::int64_t>(b) * k + a] != 0.0;
  }

  __device__ void forget_partner(int c) {
    s_.partners[c] = -1;
    s_.gaps[c] = kInfinity;
  }

  // One thread. The first of the nearest later clusters that may join c.
  __device__ void choose_partner(int c, int k) {
    const double* gaps = distances_ + static_cast<std::int64_t>(c) * k;
    double nearest = kInfinity;
    for (int b = c + 1; b < k; ++b) {
      if (may_join(c, b, k) && gaps[b] < nearest) nearest = gaps[b];
    }
    forget_partner(c);
    for (int b = k - 1; b > c; --b) {
      if (!may_join(c, b, k) || !ties_with_smallest(gaps[b], nearest)) continue;
      s_.partners[c] = b;
      s_.gaps[c] = gaps[b];
    }
  }

  // One thread. After b was merged into a: is c itself changed, did its partner vanish or move, or is a a better one?
  __device__ bool is_outdated(int c, int a, int b, int k) const {
    if (c == a || s_.partners[c] == a || s_.partners[c] == b) return true;
    if (c > a) return false;
    return s_.partners[c] < 0 || ties_with_smallest(distances_[static_cast<std::int64_t>(c) * k + a], s_.gaps[c]);
  }

  State& s_;  // hides the smaller one of the base
  const Settings& o_;
};

}  // namespace rlsft::cuda
