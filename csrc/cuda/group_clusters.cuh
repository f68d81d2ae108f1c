// Ball and Hall's loop on one group by one block, on coordinates in float64: BallHall over CoordinateSpace
// (csrc/clustering), step by step. Decisions are made by all threads from the same shared numbers.
#pragma once

#include "block.cuh"
#include "rlsft/cuda/isodata.hpp"

namespace rlsft::cuda {

constexpr int kClusterThreads = 128;
constexpr double kTie = 1e-10, kSameDirection = 1e-28;  // as in isodata_common.hpp

__device__ __forceinline__ bool exceeds(double value, double threshold) { return value - threshold * (1 + kTie) > 0; }
__device__ __forceinline__ double root(double value) { return value <= 0.0 ? 0.0 : sqrt(value); }

struct ClusterSettings {
  std::int64_t n_clusters, n_init_clusters, max_merges;
  std::uint64_t seed;
  double min_samples, max_std, min_distance, split_factor, tol;
  int max_iter, default_is_sqrt, init_is_random, cosine, split_by_largest, squared_dispersion, discard_as_noise,
      stop_early;
};

// Of the group in work; shared memory.
struct ClusterState {
  double scale[kMostRows], to_own[kMostRows];
  double sizes[kMostClusters], spreads[kMostClusters];
  double scalar[2], warp_sums[kMostWarps];
  std::uint64_t random, key[2], previous[2];
  int labels[kMostRows], is_noise[kMostRows], members[kMostRows];
  int begin[kMostClusters + 1], keep[kMostClusters], wide[kMostClusters];
  int votes[kMostWarps], number, count;
};

template <typename T>
class BlockClusters {
 public:
  // workspace: see workspace_doubles(); weight and start of this group, or null.
  __device__ BlockClusters(ClusterState& state, const ClusterSettings& settings, const T* x, int n, int d,
                           const double* weight, double* workspace, int most, std::int64_t max_iter)
      : s_(state), o_(settings), x_(x), n_(n), d_(d), weight_(weight),
        centers_(workspace), other_(centers_ + static_cast<std::int64_t>(most) * d),
        distances_(other_ + static_cast<std::int64_t>(most) * d),
        keys_(reinterpret_cast<std::uint64_t*>(distances_ + static_cast<std::int64_t>(most) * (most > n ? most : n))),
        floor_(settings.cosine != 0 ? kSameDirection : 0.0) {}

  // False, for all threads, when a value is NaN, infinite or too large.
  __device__ bool prepare() {
    bool bad = false;
    const double most = kLargestMagnitude<T>;
    for (std::int64_t e = thread_id(); e < static_cast<std::int64_t>(n_) * d_; e += blockDim.x) {
      bad = bad || !(magnitude(static_cast<double>(x_[e])) <= most);
    }
    if (block_any(bad, s_.votes)) return false;
    for (int i = thread_id(); i < n_; i += blockDim.x) {
      s_.scale[i] = 1.0;
      s_.labels[i] = s_.is_noise[i] = 0;
    }
    __syncthreads();
    if (o_.cosine == 0) return true;
    each_row([&](int i) { return folded([&](int q) { return square(at(i, q)); }); });
    for (int i = thread_id(); i < n_; i += blockDim.x) s_.scale[i] = s_.to_own[i] > 0 ? 1 / sqrt(s_.to_own[i]) : 0;
    __syncthreads();
    return true;
  }

  // start [starts, d], or null: then it is drawn.
  __device__ void run(const double* start, int starts, std::int32_t* steps, std::int32_t* n_steps, std::int32_t* stop) {
    int weighted = 0;
    for (int i = 0; i < n_; ++i) weighted += weight_of(i) != 0.0;
    wanted_ = clusters_wanted(weighted);
    if (start != nullptr) {
      for (int e = thread_id(); e < starts * d_; e += blockDim.x) centers_[e] = start[e];
      set_count(starts);
    } else {
      const std::int64_t wish = o_.n_init_clusters != 0 ? o_.n_init_clusters : wanted_;
      const int count = static_cast<int>(wish < weighted ? wish : weighted);
      if (thread_id() == 0) s_.random = o_.seed;
      __syncthreads();
      if (o_.init_is_random != 0) draw_rows(count, weighted);
      else draw_spread_rows(count);
    }
    project(0, s_.count);
    set_thresholds();
    iterate(steps, n_steps, stop);
    move_to_means();
  }

  // The centres as numbers of type T, with the labels and medoids that are right for those; returns their number.
  __device__ int finish(const double* scores, std::int64_t first, std::int32_t* labels, T* centers,
                        std::int64_t* medoids) {
    const int k = s_.count;
    for (int e = thread_id(); e < k * d_; e += blockDim.x) {
      centers_[e] = static_cast<double>(static_cast<T>(centers_[e]));
    }
    __syncthreads();
    assign();
    const int used = drop_unused(k);
    if (weight_ != nullptr && used < k) assign();  // a row of weight 0 may have lost its centre
    find_medoids(scores, first, medoids);
    for (int i = thread_id(); i < n_; i += blockDim.x) labels[i] = s_.labels[i];
    for (int e = thread_id(); e < used * d_; e += blockDim.x) centers[e] = static_cast<T>(centers_[e]);
    __syncthreads();
    return used;
  }

 private:
  __device__ double at(int i, int q) const {
    return static_cast<double>(x_[static_cast<std::int64_t>(i) * d_ + q]) * s_.scale[i];
  }
  __device__ double weight_of(int i) const { return weight_ == nullptr ? 1.0 : weight_[i]; }
  static __device__ double square(double x) { return x * x; }
  __device__ double* center(int c) const { return centers_ + static_cast<std::int64_t>(c) * d_; }

  template <typename F>
  __device__ double alone(F f) {
    __syncthreads();
    if (thread_id() == 0) s_.scalar[0] = f();
    __syncthreads();
    return s_.scalar[0];
  }

  __device__ void set_count(int count) {
    __syncthreads();
    if (thread_id() == 0) s_.count = count;
    __syncthreads();
  }

  // sum of f(q) over the d coordinates by eight neighbouring threads, as squared_distance() of the C++ core adds.
  template <typename F>
  __device__ double folded(F f) const {
    double sum = 0.0;
    for (int q = lane_id() % 8; q < d_; q += 8) sum += f(q);
#pragma unroll
    for (int step = 4; step > 0; step >>= 1) sum += __shfl_xor_sync(kFullWarp, sum, step);
    return sum;
  }

  // f(j) for j < count by eight threads each; the first of them hands the result to put(j, result).
  template <typename F, typename P>
  __device__ void each_folded(int count, F f, P put) {
    const int step = static_cast<int>(blockDim.x) / 8;
    for (int first = warp_id() * 4; first < count; first += step) {
      const int j = first + lane_id() / 8;
      const double result = f(j < count ? j : 0);
      if (j < count && lane_id() % 8 == 0) put(j, result);
    }
    __syncthreads();
  }
  // s_.to_own[i] = f(i)
  template <typename F>
  __device__ void each_row(F f) {
    each_folded(n_, f, [&](int i, double result) { s_.to_own[i] = result; });
  }

  __device__ double to_point(int i, const double* point) const {
    return folded([&](int q) { return square(at(i, q) - point[q]); });
  }

  // ---- starting centres

  __device__ std::int64_t clusters_wanted(int rows) const {
    std::int64_t wanted = o_.n_clusters != 0 ? o_.n_clusters : 8;
    if (o_.n_clusters == 0 && o_.default_is_sqrt != 0) {
      wanted = 0;
      while (wanted * wanted < rows) ++wanted;
    }
    return wanted < rows ? wanted : rows;
  }

  static __device__ std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // Thread 0 alone.
  __device__ double uniform() {
    s_.random += 0x9E3779B97F4A7C15ull;
    return static_cast<double>(static_cast<std::int64_t>(mix(s_.random) >> 11)) * (1.0 / 9007199254740992.0);
  }

  // Thread 0 alone. s_.sizes becomes the running sum of s_.sizes [n]; the first entry that exceeds a mark drawn below
  // the last one, which is returned by `sum`.
  __device__ int draw_by_sizes(double* sum) {
    double running = 0.0;
    for (int i = 0; i < n_; ++i) s_.sizes[i] = running += s_.sizes[i];
    *sum = running;
    if (!(running > 0)) return 0;
    const double mark = uniform() * running;
    int place = 0;
    while (place < n_ && s_.sizes[place] <= mark && s_.sizes[place] < running) ++place;
    return place;
  }

  __device__ void copy_row(int i, int c) {
    for (int q = thread_id(); q < d_; q += blockDim.x) center(c)[q] = at(i, q);
    set_count(c + 1);
  }

  // D-squared sampling (Arthur and Vassilvitskii 2007).
  __device__ void draw_spread_rows(int count) {
    const int first = static_cast<int>(alone([&] {
      if (weight_ == nullptr) return static_cast<double>(static_cast<int>(uniform() * static_cast<double>(n_)));
      for (int i = 0; i < n_; ++i) s_.sizes[i] = weight_[i];
      double sum = 0.0;
      return static_cast<double>(draw_by_sizes(&sum));
    }));
    copy_row(first, 0);
    for (int c = 1; c < count; ++c) {
      each_row([&](int i) { return to_point(i, center(c - 1)); });
      for (int i = thread_id(); i < n_; i += blockDim.x) {
        const double newest = s_.to_own[i], before = c == 1 ? kInfinity : s_.spreads[i];
        s_.spreads[i] = newest <= floor_ ? 0.0 : newest < before ? newest : before;
        s_.sizes[i] = s_.spreads[i] * weight_of(i);
      }
      const int row = static_cast<int>(alone([&] {
        double sum = 0.0;
        const int place = draw_by_sizes(&sum);
        return sum > 0 ? static_cast<double>(place) : -1.0;
      }));
      if (row < 0) return;
      copy_row(row, c);
    }
  }

  // Distinct rows, each draw proportional to the weights of the rows not drawn yet.
  __device__ void draw_rows(int count, int draws) {
    set_count(0);
    for (int i = thread_id(); i < n_; i += blockDim.x) {
      s_.members[i] = i;
      s_.spreads[i] = weight_of(i);
    }
    for (int i = 0; i < draws && s_.count < count; ++i) {
      const int row = static_cast<int>(alone([&] { return static_cast<double>(draw_row(i)); }));
      const int k = s_.count;
      each_folded(k, [&](int c) { return to_point(row, center(c)); }, [&](int c, double result) { distances_[c] = result; });
      bool repeats = false;
      for (int c = thread_id(); c < k; c += blockDim.x) repeats = repeats || distances_[c] <= floor_;
      if (!block_any(repeats, s_.votes)) copy_row(row, k);
    }
  }

  // Thread 0 alone: the i-th draw, without putting back.
  __device__ int draw_row(int i) {
    if (weight_ == nullptr) {
      const int other = i + static_cast<int>(uniform() * static_cast<double>(n_ - i));
      const int row = s_.members[other];
      s_.members[other] = s_.members[i];
      s_.members[i] = row;
      return row;
    }
    for (int j = 0; j < n_; ++j) s_.sizes[j] = s_.spreads[j];
    double sum = 0.0;
    const int row = draw_by_sizes(&sum);
    s_.spreads[row] = 0.0;
    return row;
  }

  // ---- statistics

  // s_.members in order of their cluster, and where each cluster begins.
  __device__ void sort_members(int k) {
    for (int c = thread_id(); c < k; c += blockDim.x) {
      int size = 0;
      for (int i = 0; i < n_; ++i) size += s_.labels[i] == c;
      s_.begin[c + 1] = size;
    }
    alone([&] {
      s_.begin[0] = 0;
      for (int c = 0; c < k; ++c) s_.begin[c + 1] += s_.begin[c];
      return 0.0;
    });
    for (int c = thread_id(); c < k; c += blockDim.x) {
      int place = s_.begin[c];
      for (int i = 0; i < n_; ++i) {
        if (s_.labels[i] == c) s_.members[place++] = i;
      }
    }
    __syncthreads();
  }

  __device__ void add_sizes(int k) {
    for (int c = thread_id(); c < k; c += blockDim.x) {
      double size = 0.0;
      for (int i = 0; i < n_; ++i) size += s_.labels[i] == c ? weight_of(i) : 0.0;
      s_.sizes[c] = size;
    }
    __syncthreads();
  }

  // Mean of coordinate q of cluster c around its first row with weight: equal rows have exactly that mean.
  __device__ double mean_of(int c, int q) const {
    const int begin = s_.begin[c], end = s_.begin[c + 1];
    int first = begin;
    while (first + 1 < end && weight_of(s_.members[first]) == 0.0) ++first;
    const double around = at(s_.members[first], q);
    double sum = 0.0;
    for (int j = begin; j < end; ++j) {
      const int i = s_.members[j];
      sum += weight_of(i) * (at(i, q) - around);
    }
    return around + sum / s_.sizes[c];
  }

  // other_ = variances of the k clusters, per coordinate.
  __device__ void make_variances(int k) {
    for (int e = thread_id(); e < k * d_; e += blockDim.x) {
      const int c = e / d_, q = e % d_;
      const double mean = mean_of(c, q);
      double sum = 0.0;
      for (int j = s_.begin[c]; j < s_.begin[c + 1]; ++j) {
        const int i = s_.members[j];
        sum += weight_of(i) * square(at(i, q) - mean);
      }
      const double variance = sum / s_.sizes[c];
      other_[e] = variance <= floor_ ? 0.0 : variance;
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
    if (o_.cosine == 0) return;
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
    int last = o_.max_iter, seen = 0, it = 1;
    for (;; ++it) {
      const int drops = assign_and_drop();
      const double moved = o_.tol > 0 ? measured_move() : (move_to_means(), 0.0);
      const bool is_same = find_key();
      const int before = o_.stop_early != 0 && stop == IsodataStop::max_iter ? first_visit(it, &seen) : it;
      if (before < it) {
        // go on to the phase of the cycle that max_iter passes end in: stopping early does not change the result
        last = it + (last - it) % (it - before);
        stop = IsodataStop::cycle;
      }
      const bool is_last = it == last;
      const int splits = !is_last && may_split(it) ? split() : 0;
      const int merges = !is_last && splits == 0 ? merge() : 0;
      if (thread_id() == 0) {
        std::int32_t* step = steps + 4 * (it - 1);
        step[0] = splits;
        step[1] = merges;
        step[2] = drops;
        step[3] = s_.count;
      }
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

  // s_.labels = the lowest index among the nearest centres, -1 for noise.
  __device__ void assign() {
    const int k = s_.count;
    const auto distance = [&](int pair) { return to_point(pair / k, center(pair % k)); };
    each_folded(k == 1 ? 0 : n_ * k, distance, [&](int pair, double result) { distances_[pair] = result; });
    for (int i = thread_id(); i < n_; i += blockDim.x) {
      const double* own = distances_ + static_cast<std::int64_t>(i) * k;
      double smallest = kInfinity;
      for (int c = 0; c < k && k > 1; ++c) smallest = own[c] < smallest ? own[c] : smallest;
      int label = 0;
      while (label + 1 < k && !(own[label] <= smallest * (1 + kTie) + floor_)) ++label;
      s_.labels[i] = s_.is_noise[i] != 0 ? -1 : label;
    }
    __syncthreads();
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

  // Removes the centres without a flag; returns how many are left.
  __device__ int keep_flagged(int k) {
    __syncthreads();
    for (int q = thread_id(); q < d_; q += blockDim.x) {
      int kept = 0;
      for (int c = 0; c < k; ++c) {
        if (s_.keep[c] != 0) center(kept++)[q] = center(c)[q];
      }
    }
    int kept = 0;
    for (int c = 0; c < k; ++c) kept += s_.keep[c];
    set_count(kept);
    return kept;
  }

  // s_.key of the present labels, as partition_key() of the C++ core; whether it is that of the pass before.
  __device__ bool find_key() {
    const int k = s_.count;
    __syncthreads();
    for (int c = thread_id(); c < k; c += blockDim.x) s_.keep[c] = 0;  // numbers in order of appearance
    return alone([&] {
             const std::uint64_t first = s_.key[0], second = s_.key[1];
             add_key();
             return s_.key[0] == first && s_.key[1] == second ? 1.0 : 0.0;
           }) != 0.0;
  }

  // Thread 0 alone.
  __device__ void add_key() {
    std::uint64_t first = 0x243F6A8885A308D3ull, second = 0x13198A2E03707344ull, counted = 0;
    int next = 0;
    for (int i = 0; i < n_; ++i) {
      if (weight_of(i) == 0.0) continue;
      std::uint64_t canonical = 0;
      const int label = s_.labels[i];
      if (label >= 0) {
        if (s_.keep[label] == 0) s_.keep[label] = ++next;
        canonical = static_cast<std::uint64_t>(s_.keep[label]);
      }
      const std::uint64_t hash = mix((++counted * 0x9E3779B97F4A7C15ull) ^ canonical);
      first += hash;
      second += (hash * hash) ^ (hash >> 29);
    }
    s_.key[0] = first;
    s_.key[1] = second;
  }

  // The pass of the same parity in which this partition was first seen; `it` itself when it is new.
  __device__ int first_visit(int it, int* seen) {
    const int found = static_cast<int>(alone([&] {
      for (int visit = (it - 1) % 2; visit < *seen; visit += 2) {
        if (keys_[2 * visit] == s_.key[0] && keys_[2 * visit + 1] == s_.key[1]) return static_cast<double>(visit + 1);
      }
      keys_[2 * *seen] = s_.key[0];
      keys_[2 * *seen + 1] = s_.key[1];
      return static_cast<double>(it);
    }));
    if (found == it) ++*seen;
    return found;
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
    double largest = 0.0;
    for (int q = lane_id(); q < d_; q += 32) {
      const double variance = other_[static_cast<std::int64_t>(c) * d_ + q];
      largest = variance > largest ? variance : largest;
    }
    return warp_max(largest);
  }

  __device__ int split_if_wide(int c) {
    const double* variances = other_ + static_cast<std::int64_t>(c) * d_;
    const double largest = largest_variance(c);
    int axis = d_;  // the first of the largest; every warp finds the same
    for (int q = lane_id(); q < d_; q += 32) {
      if (q < axis && variances[q] >= largest * (1 - kTie)) axis = q;
    }
    axis = -warp_max(-axis);
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

  // s_.to_own[i] = squared distance of row i to its own centre, 0 for noise.
  __device__ void measure_own() {
    each_row([&](int i) {
      const int label = s_.labels[i];
      const double result = to_point(i, center(label < 0 ? 0 : label));
      return label < 0 ? 0.0 : result;
    });
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

  // ---- results

  // Removes the centres that no row with weight has, and renumbers the labels; returns how many are left.
  __device__ int drop_unused(int k) {
    for (int c = thread_id(); c < k; c += blockDim.x) s_.keep[c] = 0;
    __syncthreads();
    alone([&] {
      for (int i = 0; i < n_; ++i) {
        if (s_.labels[i] >= 0 && weight_of(i) > 0) s_.keep[s_.labels[i]] = 1;
      }
      int used = 0;
      for (int c = 0; c < k; ++c) s_.begin[c] = s_.keep[c] != 0 ? used++ : -1;
      return 0.0;
    });
    for (int i = thread_id(); i < n_; i += blockDim.x) {
      if (s_.labels[i] >= 0) s_.labels[i] = s_.begin[s_.labels[i]];
    }
    return keep_flagged(k);
  }

  // Per cluster the row with weight nearest its centre; tie: the higher score, then the lower row.
  __device__ void find_medoids(const double* scores, std::int64_t first, std::int64_t* medoids) {
    const int k = s_.count;
    measure_own();
    each_folded(k, [&](int c) { return folded([&](int q) { return square(center(c)[q]); }); },
                [&](int c, double norm2) { s_.spreads[c] = norm2; });
    const double eps = sizeof(T) == 4 ? 0x1.0p-23 : 0x1.0p-52;
    for (int c = thread_id(); c < k; c += blockDim.x) {
      double nearest = kInfinity;
      for (int i = 0; i < n_; ++i) {
        if (s_.labels[i] == c && weight_of(i) > 0 && s_.to_own[i] < nearest) nearest = s_.to_own[i];
      }
      const double reach = nearest * (1 + kTie) + floor_ + 4 * eps * sqrt(nearest) * sqrt(s_.spreads[c]);
      int medoid = -1;
      for (int i = 0; i < n_; ++i) {
        if (s_.labels[i] != c || !(weight_of(i) > 0) || s_.to_own[i] > reach) continue;
        if (medoid < 0 || (scores != nullptr && scores[i] > scores[medoid])) medoid = i;
      }
      medoids[c] = first + medoid;
    }
    __syncthreads();
  }

  ClusterState& s_;
  const ClusterSettings& o_;
  const T* const x_;
  const int n_, d_;
  const double* const weight_;
  double *const centers_, *const other_, *const distances_;
  std::uint64_t* const keys_;
  const double floor_;
  std::int64_t wanted_ = 0;
  double max_std_ = 0.0, min_distance_ = 0.0, largest_move_ = 0.0;
};

}  // namespace rlsft::cuda
