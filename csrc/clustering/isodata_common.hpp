// What the two ISODATA variants share: rows, tie rules, starting centres and statistics. Private to this folder.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "nearest_kernels.hpp"
#include "rlsft/isodata.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft::isodata_detail {

constexpr double kTie = 1e-10;
constexpr double kSameDirection = 1e-28;  // squared distance (or variance) of unit rows that differ by rounding alone

inline bool exceeds(double value, double threshold) { return value > threshold * (1 + kTie); }
inline bool falls_below(double value, double threshold) { return value < threshold * (1 - kTie); }
inline bool ties_with_smallest(double value, double smallest, double floor = 0) {
  return value <= smallest * (1 + kTie) + floor;
}
// How far from a centre, squared, a row may be to be as near as the nearest row. The centre was rounded to numbers of
// precision `eps`, which moves a distance by up to eps / 2 |centre|: the two members of a pair are equally near.
inline double medoid_reach(double nearest, double center_norm2, double eps, double floor) {
  return nearest * (1 + kTie) + floor + 4 * eps * std::sqrt(nearest) * std::sqrt(center_norm2);
}
inline bool ties_with_largest(double value, double largest) { return value >= largest * (1 - kTie); }

// What lets assign_nearest decide most rows in float32. It changes how fast a label is found, never which.
template <typename T>
struct RowFilter {
  std::vector<T> anchor;     // [d] near the middle of the rows, so that a common offset costs no digits
  double unit = 1;           // power of two that brings the rows near 1
  double radius = 1;         // root of the mean of squared_norms
  std::vector<float> squared_norms;  // [n + nearest::kMaxLanes] upper bounds of |row - anchor|^2 * unit^2
};

// One group. scale[i] multiplies row i (1 / norm for cosine geometry) so that rows need no scaled copy.
template <typename T>
struct Rows {
  const T* x;           // [n, d]
  const double* scale;  // [n]
  std::int64_t n, d;
  double floor;  // squared distances and variances up to this are rounding: 0, or kSameDirection for cosine geometry
  int threads;
  const double* weight = nullptr;          // [n] >= 0, not all 0; null: ones
  const RowFilter<T>* filter = nullptr;    // null: every label comes from float64 distances

  const T* row(std::int64_t i) const { return x + i * d; }
  double at(std::int64_t i, std::int64_t q) const { return static_cast<double>(row(i)[q]) * scale[i]; }
  double weight_of(std::int64_t i) const { return weight == nullptr ? 1.0 : weight[i]; }
  std::int64_t count_weighted() const { return weight == nullptr ? n : n - std::count(weight, weight + n, 0.0); }
  nearest::RowSpan<T> span(std::int64_t first, std::int64_t count) const {
    return {row(first), floor > 0 ? scale + first : nullptr, weight == nullptr ? nullptr : weight + first, count, d};
  }
};

// Rows are cut into at most 64 blocks whose sums are added in block order, so that the number of threads changes no
// bit; fewer blocks where `width` sums for each would fill the memory.
struct Blocks {
  std::int64_t n, size, count;
  Blocks(std::int64_t rows, std::int64_t width) : n(rows) {
    const std::int64_t most = std::max<std::int64_t>(4, std::min<std::int64_t>(64, (std::int64_t{1} << 23) / (width + 1)));
    size = std::max<std::int64_t>(512, (rows + most - 1) / most);
    count = std::max<std::int64_t>(1, (rows + size - 1) / size);
  }
  std::int64_t begin(std::int64_t block) const { return block * size; }
  std::int64_t end(std::int64_t block) const { return std::min(n, (block + 1) * size); }
};

// sums[width] = the sum over blocks, in block order, of what body(first row, last row, sums of the block) added.
template <typename Body>
std::vector<double> sum_over_blocks(std::int64_t n, std::int64_t width, int threads, const Body& body) {
  const Blocks blocks(n, width);
  std::vector<double> partial(static_cast<std::size_t>(blocks.count * width));
  parallel_for(blocks.count, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) body(blocks.begin(b), blocks.end(b), partial.data() + b * width);
  });
  for (std::int64_t block = 1; block < blocks.count; ++block) {
    for (std::int64_t w = 0; w < width; ++w) partial[w] += partial[block * width + w];
  }
  partial.resize(static_cast<std::size_t>(width));
  return partial;
}

// Sums over each cluster's rows.
struct ClusterSums {
  std::vector<double> around;  // [k, d] the centres c
  std::vector<double> values;  // [k, 2, d]: sums of w (x - c) and of w (x - c)^2; empty: not computed
  std::int64_t undecided = 0;  // rows that the float32 filter left to float64
  bool has_squares = true;     // set before the assignment; without, the second half of `values` means nothing
};

// sum_q (scale * x_q - c_q)^2 in a fixed order: eight running sums, folded pairwise.
template <typename T>
inline double squared_distance(const T* x, double scale, const double* c, std::int64_t d) {
  double lane[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  std::int64_t q = 0;
  for (; q + 8 <= d; q += 8) {
    for (int l = 0; l < 8; ++l) {
      const double difference = static_cast<double>(x[q + l]) * scale - c[q + l];
      lane[l] += difference * difference;
    }
  }
  for (int l = 0; q < d; ++q, ++l) {
    const double difference = static_cast<double>(x[q]) * scale - c[q];
    lane[l] += difference * difference;
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

struct Widest {
  std::int64_t axis;
  double variance;
};

// The first of the entries of variance that are the largest.
inline Widest widest_of(const double* variance, double largest) {
  std::int64_t axis = 0;
  while (!ties_with_largest(variance[axis], largest)) ++axis;
  return {axis, variance[axis]};
}

// The generator of Steele, Lea and Flood 2014; the Python reference draws the same numbers.
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  static std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(mix(state_ += 0x9E3779B97F4A7C15ull) >> 11) * 0x1.0p-53; }
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(uniform() * static_cast<double>(bound));
  }

 private:
  std::uint64_t state_;
};

// 128 bits that are equal for equal partitions, whatever the clusters are numbered: a false repeat is as good as
// impossible, and the memory of past passes does not grow with the rows.
using PartitionKey = std::pair<std::uint64_t, std::uint64_t>;
// Rows of weight 0 do not count.
PartitionKey partition_key(const std::vector<std::int32_t>& labels, std::int64_t k, const double* weight = nullptr);

struct Clustering {
  std::vector<double> centers;         // [k, d]
  std::vector<std::uint8_t> is_noise;  // [n], or empty
  std::vector<IsodataStep> steps;
  IsodataStop stop = IsodataStop::max_iter;
};

// K and N_c of a group of n >= 1 rows that have weight, never more than n.
std::int64_t clusters_wanted(const IsodataOptions& options, std::int64_t n);
std::int64_t starting_clusters(const IsodataOptions& options, std::int64_t n);

template <typename T>
std::vector<double> starting_centers(const Rows<T>& rows, std::int64_t count, const IsodataOptions& options);

// For at least kFilterRows rows; an empty `squared_norms` says that the rows are too large for it.
constexpr std::int64_t kFilterRows = 64;
template <typename T>
RowFilter<T> make_filter(const Rows<T>& rows);

// labels[i] = the lowest index among the nearest of the k >= 1 centres. With `sums` also the sums of the clusters.
template <typename T>
void assign_nearest(const Rows<T>& rows, const std::vector<double>& centers, std::int32_t* labels,
                    ClusterSums* sums = nullptr);

// Adds the rows [first, last) to sums [k, 2, d] around `centers`, cluster by cluster so that the sums of a run of
// members stay in registers; skips rows labelled -1.
class MemberSums {
 public:
  template <typename T>
  void add(const Rows<T>& rows, std::int64_t first, std::int64_t last, const std::int32_t* labels,
           const std::vector<double>& centers, bool with_squares, double* sums);

 private:
  std::vector<std::int32_t> starts_, members_;  // [k + 2], [rows of a chunk]
};

// Rows that fit into L2 and are enough for a run of members in each of a few clusters.
template <typename T>
std::int64_t rows_of_chunk(std::int64_t d) {
  const std::int64_t bytes = d * static_cast<std::int64_t>(sizeof(T));
  return std::max<std::int64_t>(64, std::min<std::int64_t>(1024, (std::int64_t{1} << 18) / bytes / 16 * 16));
}

// out[i] = squared distance of row i to its own centre, 0 for rows labelled -1.
template <typename T>
void distances_to_own(const Rows<T>& rows, const std::vector<double>& centers, const std::int32_t* labels, double* out);

// The statistics below skip rows labelled -1 and need 0 <= label < k otherwise. `sums` are those of the assignment that
// gave the labels, or null: then, and wherever they would cancel, the rows are read again.

// Per cluster the sum of its rows' weights: [k].
std::vector<double> cluster_sizes(const std::vector<std::int32_t>& labels, std::int64_t k,
                                  const double* weight = nullptr);

// Means summed around a row of the cluster: equal rows have exactly that mean. Needs k clusters of positive size.
template <typename T>
std::vector<double> cluster_means(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                  const std::vector<double>& sizes, const ClusterSums* sums = nullptr);

// Per coordinate, divisor n_j, around the mean: [k, d].
template <typename T>
std::vector<double> cluster_variances(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                      const std::vector<double>& sizes, const ClusterSums* sums = nullptr);

// Per cluster the weighted sum of its rows' distances to its centre, or of their squares: [k].
template <typename T>
std::vector<double> cluster_spreads(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                    const std::vector<double>& centers, bool squared);

// A mean of unit rows that cancel is a zero vector, not the direction of its rounding error.
void scale_to_unit(double* center, std::int64_t d);


}  // namespace rlsft::isodata_detail
