// What the two ISODATA variants share: rows, tie rules, starting centres and statistics. Private to this folder.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "rlsft/isodata.hpp"

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

// One group. scale[i] multiplies row i (1 / norm for cosine geometry) so that rows need no scaled copy.
template <typename T>
struct Rows {
  const T* x;           // [n, d]
  const double* scale;  // [n]
  std::int64_t n, d;
  double floor;  // squared distances and variances up to this are rounding: 0 or kSameDirection
  int threads;

  const T* row(std::int64_t i) const { return x + i * d; }
  double at(std::int64_t i, std::int64_t q) const { return static_cast<double>(row(i)[q]) * scale[i]; }
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
PartitionKey partition_key(const std::vector<std::int32_t>& labels, std::int64_t k);

struct Clustering {
  std::vector<double> centers;         // [k, d]
  std::vector<std::uint8_t> is_noise;  // [n], or empty
  std::vector<IsodataStep> steps;
  IsodataStop stop = IsodataStop::max_iter;
};

// K and N_c of a group of n >= 1 rows, never more than n.
std::int64_t clusters_wanted(const IsodataOptions& options, std::int64_t n);
std::int64_t starting_clusters(const IsodataOptions& options, std::int64_t n);

template <typename T>
std::vector<double> starting_centers(const Rows<T>& rows, std::int64_t count, const IsodataOptions& options);

// labels[i] = the lowest index among the nearest of the k >= 1 centres.
template <typename T>
void assign_nearest(const Rows<T>& rows, const std::vector<double>& centers, std::int32_t* labels);

// The statistics below skip rows labelled -1 and need 0 <= label < k otherwise. Rows are cut into at most 64 blocks
// whose sums are added in block order, so that the number of threads changes no bit.
std::vector<std::int64_t> cluster_sizes(const std::vector<std::int32_t>& labels, std::int64_t k);

// Means summed around each cluster's first row: equal rows have exactly that mean. Needs k non-empty clusters.
template <typename T>
std::vector<double> cluster_means(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                  const std::vector<std::int64_t>& sizes);

// Per coordinate, divisor n_j, around the mean: [k, d].
template <typename T>
std::vector<double> cluster_variances(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                      const std::vector<std::int64_t>& sizes);

// Per cluster the sum of its rows' distances to its centre, or of their squares: [k].
template <typename T>
std::vector<double> cluster_spreads(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                    const std::vector<double>& centers, bool squared);

// A mean of unit rows that cancel is a zero vector, not the direction of its rounding error.
void scale_to_unit(double* center, std::int64_t d);


}  // namespace rlsft::isodata_detail
