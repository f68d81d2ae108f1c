// Ball and Hall's loop on one group by one block: BallHall over CoordinateSpace (csrc/clustering), step by step.
#pragma once

#include "cluster_ends.cuh"

namespace rlsft::cuda {

template <typename T>
class BallHallClusters : public ClusterEnds<T> {
 public:
  using Settings = BallHallSettings;
  using State = ClusterState;

  __device__ BallHallClusters(State& state, const ClusterSettings& common, const Settings& settings, const T* x, int n,
                              int d, const double* weight, double* workspace, int most)
      : Base(state, common, x, n, d, weight, workspace, most), o_(settings) {}

  // start as in begin().
  __device__ void run(const double* start, int starts, std::int32_t* steps, std::int32_t* n_steps, std::int32_t* stop) {
    this->begin(start, starts);
    project(0, s_.count);
    set_thresholds();
    iterate(steps, n_steps, stop);
    move_to_means();
  }

 private:
  using Base = ClusterEnds<T>;
  using Base::add_sizes, Base::alone, Base::assign, Base::center, Base::centers_, Base::common_, Base::d_,
      Base::distances_, Base::each_folded, Base::find_key, Base::folded, Base::keep_flagged, Base::largest_of,
      Base::mean_of, Base::measure_own, Base::n_, Base::other_, Base::s_, Base::set_count, Base::sort_members,
      Base::square, Base::variance_of, Base::wanted_, Base::weight_of;

  // other_ = variances of the k clusters, per coordinate.
  __device__ void make_variances(int k) {
    for (int e = thread_id(); e < k * d_; e += blockDim.x) {
      const int c = e / d_, q = e % d_;
      other_[e] = variance_of(c, q, mean_of(c, q));
    }
    __syncthreads();
  }

  __device__ double total_variance(int c) const {
    const double* variances = other_ + static_cast<std::int64_t>(c) * d_;
    return folded([&](int q) { return variances[q]; });
  }

  __device__ void move_to_means() {
    for (int e = thread_id(); e < s_.count * d_; e += blockDim.x) centers_[e] = mean_of(e / d_, e % d_);
    __syncthreads();
    project(0, s_.count);
  }

  // In cosine geometry the centres stay on the unit sphere; a mean that cancels becomes a zero vector.
  __device__ void project(int first, int last) {
    if (common_.cosine == 0) return;
    const int step = static_cast<int>(blockDim.x) / 8;
    for (int group = warp_id() * 4; group < last - first; group += step) {
      const int place = group + lane_id() / 8;
      const bool is_center = place < last - first;
      double* const own = center(first + place);
      const double sum = folded([&](int q) { return is_center ? square(own[q]) : 0.0; });
      const double scale = sum > kSameDirection ? 1 / sqrt(sum) : 0.0;
      for (int q = lane_id() % 8; is_center && q < d_; q += 8) own[q] *= scale;
    }
    __syncthreads();
  }

  __device__ void set_thresholds() {
    max_std_ = o_.max_std;
    min_distance_ = o_.min_distance;
    largest_move_ = 0.0;
    if (o_.max_std >= 0 && o_.min_distance >= 0 && !(o_.tol > 0)) return;
    add_sizes(1);  // all labels are 0
    sort_members(1);
    make_variances(1);
    each_folded(1, [&](int) { return total_variance(0); }, [&](int, double result) { s_.scalar[1] = result; });
    const double overall = s_.scalar[1];
    if (o_.max_std < 0) max_std_ = 0.6 * root((1.0 / d_) * overall);
    if (o_.min_distance < 0) min_distance_ = 0.75 * root(overall);
    largest_move_ = o_.tol * overall / d_;
    __syncthreads();
  }

  // ---- the loop

  __device__ bool has_few() const { return 2 * static_cast<std::int64_t>(s_.count) <= wanted_; }
  __device__ bool may_split(int it) const { return has_few() || (it % 2 == 1 && s_.count < 2 * wanted_); }

  __device__ void iterate(std::int32_t* steps, std::int32_t* n_steps, std::int32_t* stopped) {
    IsodataStop stop = IsodataStop::max_iter;
    bool was_quiet = false;
    int last = common_.max_iter, seen = 0, it = 1;
    for (;; ++it) {
      const int drops = assign_and_drop();
      const double moved = o_.tol > 0 ? measured_move() : (move_to_means(), 0.0);
      const bool is_same = find_key();
      const bool looks_back = o_.stop_early != 0 && stop == IsodataStop::max_iter;
      const int before = looks_back ? 1 + this->visit_of_key((it - 1) % 2, 2, &seen) : it;
      if (before < it) {
        // go on to the phase of the cycle that max_iter passes end in: stopping early does not change the result
        last = it + (last - it) % (it - before);
        stop = IsodataStop::cycle;
      }
      const bool is_last = it == last;
      const int splits = !is_last && may_split(it) ? split() : 0;
      const int merges = !is_last && splits == 0 ? merge() : 0;
      this->note_step(steps, it, splits, merges, drops);
      const bool is_quiet = !is_last && splits + merges + drops == 0;
      if (is_last) break;
      if (o_.stop_early != 0 && is_quiet && was_quiet && is_same) {
        stop = IsodataStop::stable;
        break;
      }
      if (o_.tol > 0 && is_quiet && was_quiet && moved <= largest_move_) {
        stop = IsodataStop::tol;
        break;
      }
      was_quiet = is_quiet;
    }
    if (thread_id() == 0) {
      *n_steps = it;
      *stopped = static_cast<std::int32_t>(stop);
    }
    __syncthreads();
  }

  // move_to_means(), and the sum of the squared moves.
  __device__ double measured_move() {
    const int entries = s_.count * d_;
    for (int e = thread_id(); e < entries; e += blockDim.x) other_[e] = centers_[e];
    move_to_means();
    double sum = 0.0;
    for (int e = thread_id(); e < entries; e += blockDim.x) sum += square(centers_[e] - other_[e]);
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(kFullWarp, sum, step);
    if (lane_id() == 0) s_.warp_sums[warp_id()] = sum;
    return alone([&] {
      double total = 0.0;
      for (int warp = 0; warp < kClusterThreads / 32; ++warp) total += s_.warp_sums[warp];
      return total;
    });
  }

  // Drops clusters below min_samples until none is; their rows go to the nearest centre left, or become noise.
  __device__ int assign_and_drop() {
    for (int drops = 0;;) {
      assign();
      const int k = s_.count;
      add_sizes(k);
      const int dropped = static_cast<int>(alone([&] { return static_cast<double>(choose_dropped(k)); }));
      if (dropped == 0) {
        sort_members(k);
        return drops;
      }
      drops += dropped;
      for (int i = thread_id(); o_.discard_as_noise != 0 && i < n_; i += blockDim.x) {
        if (s_.labels[i] >= 0 && s_.keep[s_.labels[i]] == 0) s_.is_noise[i] = 1;
      }
      keep_flagged(k);
    }
  }

  // Thread 0 alone: s_.keep, and how many are not kept.
  __device__ int choose_dropped(int k) {
    int kept = 0, largest = 0;
    for (int c = 0; c < k; ++c) {
      s_.keep[c] = s_.sizes[c] > 0 && s_.sizes[c] >= o_.min_samples;
      kept += s_.keep[c];
      if (s_.sizes[c] > s_.sizes[largest]) largest = c;
    }
    if (kept == 0) s_.keep[largest] = kept = 1;  // the last one is never dropped
    return k - kept;
  }

  // ---- split

  __device__ int split() {
    const int k = s_.count;
    make_variances(k);
    find_wide(k);
    bool any = false;
    for (int c = thread_id(); c < k; c += blockDim.x) any = any || s_.wide[c] != 0;
    if (!block_any(any, s_.votes)) return 0;
    if (has_few()) {
      for (int c = thread_id(); c < k; c += blockDim.x) s_.keep[c] = 1;
      __syncthreads();
    } else {
      find_loose(k);
    }
    int splits = 0;
    for (int c = 0; c < k; ++c) {
      if (s_.wide[c] != 0 && s_.keep[c] != 0) splits += split_if_wide(c);
    }
    return splits;
  }

  __device__ void find_wide(int k) {
    if (o_.split_by_largest == 0) {
      each_folded(k, [&](int c) { return total_variance(c); },
                  [&](int c, double total) { s_.wide[c] = exceeds(root((1.0 / d_) * total), max_std_); });
      return;
    }
    for (int c = warp_id(); c < k; c += static_cast<int>(blockDim.x) / 32) {
      const double largest = largest_variance(c);
      if (lane_id() == 0) s_.wide[c] = root(largest) >= max_std_;
    }
    __syncthreads();
  }

  // One warp.
  __device__ double largest_variance(int c) const {
    const double* variances = other_ + static_cast<std::int64_t>(c) * d_;
    return largest_of(d_, [&](int q) { return variances[q]; });
  }

  __device__ int split_if_wide(int c) {
    const double* variances = other_ + static_cast<std::int64_t>(c) * d_;
    const double largest = largest_variance(c);
    const int axis = this->first_of(d_, [&](int q) { return variances[q] >= largest * (1 - kTie); });
    const double deviation = sqrt(variances[axis]);
    if (o_.split_by_largest != 0 && !exceeds(deviation, max_std_)) return 0;
    const double step = o_.split_factor * deviation;
    const int half = s_.count;
    for (int q = thread_id(); q < d_; q += blockDim.x) {
      const double value = center(c)[q];
      center(c)[q] = q == axis ? value + step : value;
      center(half)[q] = q == axis ? value - step : value;
    }
    set_count(half + 1);
    project(c, c + 1);
    project(half, half + 1);
    return 1;
  }

  // s_.keep[c]: D_j > D and N_j > 2 (theta_N + 1), with D weighted by members.
  __device__ void find_loose(int k) {
    const double enough = 2 * (o_.min_samples + 1);
    bool any = false;
    for (int c = thread_id(); c < k; c += blockDim.x) {
      s_.keep[c] = 0;
      any = any || s_.sizes[c] > enough;
    }
    if (!block_any(any, s_.votes) || k == 1) return;  // one cluster's D_j is D
    measure_own();
    for (int c = thread_id(); c < k; c += blockDim.x) {
      double sum = 0.0;
      for (int j = s_.begin[c]; j < s_.begin[c + 1]; ++j) {
        const int i = s_.members[j];
        sum += weight_of(i) * (o_.squared_dispersion != 0 ? s_.to_own[i] : sqrt(s_.to_own[i]));
      }
      s_.spreads[c] = sum;
    }
    const double mean = alone([&] {
      double sum = 0.0, members = 0.0;
      for (int c = 0; c < k; ++c) {
        sum += s_.spreads[c];
        members += s_.sizes[c];
      }
      return (1 / members) * sum;
    });
    const bool squared = o_.squared_dispersion != 0;
    for (int c = thread_id(); c < k; c += blockDim.x) {
      const double own = (1 / s_.sizes[c]) * s_.spreads[c];
      s_.keep[c] = s_.sizes[c] > enough && exceeds(squared ? root(own) : own, squared ? root(mean) : mean);
    }
    __syncthreads();
  }


  // ---- merge

  // Lumps at most max_merges pairs closer than min_distance, nearest first, each centre at most once.
  __device__ int merge() {
    const int k = s_.count;
    const auto distance = [&](int pair) {
      const double *a = center(pair / k), *b = center(pair % k);
      return sqrt(folded([&](int q) { return square(a[q] - b[q]); }));
    };
    each_folded(k * k, distance, [&](int pair, double result) { distances_[pair] = result; });
    for (int c = thread_id(); c < k; c += blockDim.x) {
      s_.keep[c] = 1;
      s_.wide[c] = 0;  // touched by a merge
    }
    int merges = 0;
    for (; merges < o_.max_merges; ++merges) {
      const int pair = static_cast<int>(alone([&] { return static_cast<double>(nearest_pair(k)); }));
      if (pair < 0) break;
      lump(pair / k, pair % k);
    }
    if (merges > 0) keep_flagged(k);
    return merges;
  }

  // Thread 0 alone: the first of the nearest untouched pairs that are close, -1 without any.
  __device__ int nearest_pair(int k) {
    double smallest = kInfinity;
    for (int pair = 0; pair < k * k; ++pair) {
      if (is_close(pair, k) && distances_[pair] < smallest) smallest = distances_[pair];
    }
    for (int pair = 0; pair < k * k; ++pair) {
      if (is_close(pair, k) && !(distances_[pair] - smallest * (1 + kTie) > 0)) {
        s_.wide[pair / k] = s_.wide[pair % k] = 1;
        s_.keep[pair % k] = 0;
        return pair;
      }
    }
    return -1;
  }
  __device__ bool is_close(int pair, int k) const {
    const int a = pair / k, b = pair % k;
    return a < b && s_.wide[a] == 0 && s_.wide[b] == 0 && min_distance_ * (1 - kTie) - distances_[pair] > 0;
  }

  __device__ void lump(int a, int b) {
    const double na = s_.sizes[a], nb = s_.sizes[b];
    for (int q = thread_id(); q < d_; q += blockDim.x) {
      center(a)[q] = (na * center(a)[q] + nb * center(b)[q]) / (na + nb);
    }
    __syncthreads();
    project(a, a + 1);
  }

  const Settings& o_;
  double max_std_ = 0.0, min_distance_ = 0.0, largest_move_ = 0.0;
};

}  // namespace rlsft::cuda
