// STR's Space (str_loop.hpp) on coordinates.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "bounded.hpp"
#include "isodata_common.hpp"

namespace rlsft::isodata_detail {

template <typename T>
class StrCoordinates {
 public:
  struct Cluster {
    std::vector<std::int64_t> members;
    std::vector<double> mean, variance;  // [d]
    bool is_alive = true;
  };

  StrCoordinates(const Rows<T>& rows, IsodataVarianceKind kind, std::vector<double> centers)
      : rows_(rows), kind_(kind), d_(rows.d), centers_(std::move(centers)) {}

  std::vector<double>& centers() { return centers_; }

  void assign(std::int32_t* labels) const { assign_nearest(rows_, centers_, labels); }

  void set_means(const std::vector<Cluster>& clusters) {
    centers_.clear();
    for (const Cluster& cluster : clusters) centers_.insert(centers_.end(), cluster.mean.begin(), cluster.mean.end());
  }

  void describe(Cluster& cluster) const {
    const double size = static_cast<double>(cluster.members.size());
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

  Bounded variance(const Cluster& cluster) const {
    double trace = 0, largest = 0;
    for (const double variance : cluster.variance) {
      trace += variance;
      largest = std::max(largest, variance);
    }
    return {measure(trace, largest)};
  }

  // From the variances of the parts, without a pass over rows.
  Bounded union_variance(const Cluster& a, const Cluster& b) const {
    const double na = static_cast<double>(a.members.size()), nb = static_cast<double>(b.members.size()), n = na + nb;
    double trace = 0, largest = 0;
    for (std::int64_t q = 0; q < d_; ++q) {
      const double gap = a.mean[q] - b.mean[q];
      double variance = (na * a.variance[q] + nb * b.variance[q]) / n + na * nb / (n * n) * gap * gap;
      if (variance <= rows_.floor) variance = 0;
      trace += variance;
      largest = std::max(largest, variance);
    }
    return {measure(trace, largest)};
  }

  Bounded distance(const Cluster& a, const Cluster& b) const {
    return {squared_distance(a.mean.data(), 1.0, b.mean.data(), d_)};
  }

  Bounded distance(std::int64_t i, const Cluster& cluster) const {
    return {squared_distance(rows_.row(i), rows_.scale[i], cluster.mean.data(), d_)};
  }

 private:
  double measure(double trace, double largest) const {
    if (kind_ == IsodataVarianceKind::trace) return trace;
    return kind_ == IsodataVarianceKind::max_component_variance ? largest : std::sqrt(largest);
  }

  const Rows<T>& rows_;
  const IsodataVarianceKind kind_;
  const std::int64_t d_;
  std::vector<double> centers_;
};

}  // namespace rlsft::isodata_detail
