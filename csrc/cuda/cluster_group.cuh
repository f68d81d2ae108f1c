// One group of rows by one block, on coordinates in float64: distances, statistics and keys of partitions, step by step
// those of csrc/clustering. Decisions are made by all threads from the same shared numbers.
#pragma once

#include "cluster_state.cuh"

namespace rlsft::cuda {

template <typename T>
class ClusterGroup {
 public:
  // workspace: see workspace_doubles(); weight of this group, or null.
  __device__ ClusterGroup(ClusterState& state, const ClusterSettings& settings, const T* x, int n, int d,
                          const double* weight, double* workspace, int most)
      : s_(state), common_(settings), x_(x), n_(n), d_(d), weight_(weight),
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
    if (common_.cosine == 0) return true;
    each_row([&](int i) { return folded([&](int q) { return square(at(i, q)); }); });
    for (int i = thread_id(); i < n_; i += blockDim.x) s_.scale[i] = s_.to_own[i] > 0 ? 1 / sqrt(s_.to_own[i]) : 0;
    __syncthreads();
    return true;
  }

 protected:
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

  // The first j < count that passes; count when none does. All threads find the same, without a barrier.
  template <typename F>
  __device__ int first_of(int count, F passes) const {
    int first = count;
    for (int j = lane_id(); j < count; j += 32) {
      if (j < first && passes(j)) first = j;
    }
    return -warp_max(-first);
  }
  template <typename F>
  __device__ double largest_of(int count, F value) const {
    double largest = -kInfinity;
    for (int j = lane_id(); j < count; j += 32) {
      const double own = value(j);
      largest = own > largest ? own : largest;
    }
    return warp_max(largest);
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


  // Around `mean`, that of coordinate q of cluster c.
  __device__ double variance_of(int c, int q, double mean) const {
    double sum = 0.0;
    for (int j = s_.begin[c]; j < s_.begin[c + 1]; ++j) {
      const int i = s_.members[j];
      sum += weight_of(i) * square(at(i, q) - mean);
    }
    const double variance = sum / s_.sizes[c];
    return variance <= floor_ ? 0.0 : variance;
  }

  // ---- the clusters of every row

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

  // s_.to_own[i] = squared distance of row i to its own centre, 0 for noise.
  __device__ void measure_own() {
    each_row([&](int i) {
      const int label = s_.labels[i];
      const double result = to_point(i, center(label < 0 ? 0 : label));
      return label < 0 ? 0.0 : result;
    });
  }

  // Removes the rows of `rows` [k, d] without a flag.
  __device__ void keep_rows(double* rows, int k) {
    for (int q = thread_id(); q < d_; q += blockDim.x) {
      int kept = 0;
      for (int c = 0; c < k; ++c) {
        const std::int64_t from = static_cast<std::int64_t>(c) * d_ + q;
        if (s_.keep[c] != 0) rows[static_cast<std::int64_t>(kept++) * d_ + q] = rows[from];
      }
    }
  }

  // Removes the centres without a flag; returns how many are left.
  __device__ int keep_flagged(int k) {
    __syncthreads();
    keep_rows(centers_, k);
    int kept = 0;
    for (int c = 0; c < k; ++c) kept += s_.keep[c];
    set_count(kept);
    return kept;
  }

  // Gives the labels the numbers that the clusters with a flag will have.
  __device__ void renumber(int k) {
    alone([&] {
      int used = 0;
      for (int c = 0; c < k; ++c) s_.begin[c] = s_.keep[c] != 0 ? used++ : -1;
      return 0.0;
    });
    for (int i = thread_id(); i < n_; i += blockDim.x) {
      if (s_.labels[i] >= 0) s_.labels[i] = s_.begin[s_.labels[i]];
    }
  }

  // Removes the centres that no row with weight has, and renumbers the labels; returns how many are left.
  __device__ int drop_unused(int k) {
    for (int c = thread_id(); c < k; c += blockDim.x) s_.keep[c] = 0;
    __syncthreads();
    alone([&] {
      for (int i = 0; i < n_; ++i) {
        if (s_.labels[i] >= 0 && weight_of(i) > 0) s_.keep[s_.labels[i]] = 1;
      }
      return 0.0;
    });
    renumber(k);
    return keep_flagged(k);
  }

  // ---- the history

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

  // The earlier visit among first, first + step, .. with the key at hand; else *seen, which then counts this one too.
  __device__ int visit_of_key(int first, int step, int* seen) {
    const int found = static_cast<int>(alone([&] {
      for (int visit = first; visit < *seen; visit += step) {
        if (keys_[2 * visit] == s_.key[0] && keys_[2 * visit + 1] == s_.key[1]) return static_cast<double>(visit);
      }
      keys_[2 * *seen] = s_.key[0];
      keys_[2 * *seen + 1] = s_.key[1];
      return static_cast<double>(*seen);
    }));
    if (found == *seen) ++*seen;
    return found;
  }

  __device__ void note_step(std::int32_t* steps, int it, int splits, int merges, int drops) const {
    if (thread_id() != 0) return;
    std::int32_t* step = steps + 4 * (it - 1);
    step[0] = splits;
    step[1] = merges;
    step[2] = drops;
    step[3] = s_.count;
  }

  ClusterState& s_;
  const ClusterSettings& common_;
  const T* const x_;
  const int n_, d_;
  const double* const weight_;
  double *const centers_, *const other_, *const distances_;
  std::uint64_t* const keys_;
  const double floor_;
};

}  // namespace rlsft::cuda
