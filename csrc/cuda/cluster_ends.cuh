// How the clustering of a group begins and ends: starting centres, and labels and medoids of the centres found.
#pragma once

#include "cluster_group.cuh"

namespace rlsft::cuda {

template <typename T>
class ClusterEnds : public ClusterGroup<T> {
 public:
  using ClusterGroup<T>::ClusterGroup;

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

 protected:
  using Base = ClusterGroup<T>;
  using Base::alone, Base::assign, Base::at, Base::center, Base::centers_, Base::common_, Base::d_, Base::distances_,
      Base::drop_unused, Base::each_folded, Base::each_row, Base::floor_, Base::folded, Base::measure_own, Base::n_,
      Base::s_, Base::set_count, Base::square, Base::to_point, Base::weight_, Base::weight_of;

  __device__ std::int64_t clusters_wanted(int rows) const {
    std::int64_t wanted = common_.n_clusters != 0 ? common_.n_clusters : 8;
    if (common_.n_clusters == 0 && common_.default_is_sqrt != 0) {
      wanted = 0;
      while (wanted * wanted < rows) ++wanted;
    }
    return wanted < rows ? wanted : rows;
  }

  // start [starts, d], or null: then it is drawn.
  __device__ void begin(const double* start, int starts) {
    int weighted = 0;
    for (int i = 0; i < n_; ++i) weighted += weight_of(i) != 0.0;
    wanted_ = clusters_wanted(weighted);
    if (start != nullptr) {
      for (int e = thread_id(); e < starts * d_; e += blockDim.x) centers_[e] = start[e];
      set_count(starts);
      return;
    }
    const std::int64_t wish = common_.n_init_clusters != 0 ? common_.n_init_clusters : wanted_;
    const int count = static_cast<int>(wish < weighted ? wish : weighted);
    if (thread_id() == 0) s_.random = common_.seed;
    __syncthreads();
    if (common_.init_is_random != 0) draw_rows(count, weighted);
    else draw_spread_rows(count);
  }

  std::int64_t wanted_ = 0;

 private:
  // ---- starting centres

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

  // ---- results

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
};

}  // namespace rlsft::cuda
