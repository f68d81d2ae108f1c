// Points and centres as coordinates: the Space (ball_hall.hpp) that is always right, and the one for large groups.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "ball_hall.hpp"
#include "isodata_common.hpp"

namespace rlsft::isodata_detail {

template <typename T>
class CoordinateSpace {
 public:
  // In cosine geometry (rows scaled to unit length) the centres stay on the unit sphere too.
  CoordinateSpace(const Rows<T>& rows, bool on_sphere, std::vector<double> centers)
      : rows_(rows), on_sphere_(on_sphere), d_(rows.d), centers_(std::move(centers)) {
    for (std::int64_t c = 0; c < count(); ++c) project(center(c));
  }

  Bounded overall_variance() const {
    std::vector<std::int32_t> all(static_cast<std::size_t>(rows_.n), 0);
    ClusterSums sums;
    if (rows_.filter != nullptr) {
      assign_nearest(rows_, {rows_.filter->anchor.begin(), rows_.filter->anchor.end()}, all.data(), &sums);
    }
    double total = 0;
    for (const double variance : cluster_variances(rows_, all, cluster_sizes(all, 1, rows_.weight), &sums)) {
      total += variance;
    }
    return {total};
  }

  std::int64_t count() const { return static_cast<std::int64_t>(centers_.size()) / d_; }
  std::vector<double>& centers() { return centers_; }

  // Sums of squares are made in the assignment when a split may need them; noise is in no sum, so then there are none.
  void expect(bool may_split, bool may_be_noise) {
    sums_.has_squares = may_split;
    sums_.values.clear();
    makes_sums_ = !may_be_noise;
  }

  void assign(std::int32_t* labels) { assign_nearest(rows_, centers_, labels, makes_sums_ ? &sums_ : nullptr); }

  void keep(const std::vector<std::uint8_t>& flags) {
    std::int64_t kept = 0;
    for (std::int64_t c = 0; c < static_cast<std::int64_t>(flags.size()); ++c) {
      if (flags[c]) std::copy_n(center(c), d_, center(kept++));
    }
    centers_.resize(static_cast<std::size_t>(kept * d_));
  }

  void move_to_means(const std::vector<std::int32_t>& labels, const std::vector<double>& sizes) {
    labels_ = &labels;
    sizes_ = &sizes;
    variances_.clear();
    spreads_.clear();
    const std::vector<double> before = std::move(centers_);
    centers_ = cluster_means(rows_, labels, sizes, &sums_);
    for (std::int64_t c = 0; c < count(); ++c) project(center(c));
    moved_ = 0;
    for (std::size_t j = 0; j < before.size(); ++j) moved_ += (centers_[j] - before[j]) * (centers_[j] - before[j]);
  }

  double moved() const { return moved_; }

  // Sums around the centres of the pass before depend, in the last bit, on how the run came here; these do not.
  void settle(const std::vector<std::int32_t>& labels, const std::vector<double>& sizes) {
    centers_ = cluster_means(rows_, labels, sizes);
    for (std::int64_t c = 0; c < count(); ++c) project(center(c));
  }

  Bounded total_variance(std::int64_t c) {
    double sum = 0;
    for (std::int64_t q = 0; q < d_; ++q) sum += variances()[c * d_ + q];
    return {sum};
  }

  Bounded most_variance(std::int64_t c) { return {widest(c).variance}; }

  Widest widest(std::int64_t c) {
    const double* variance = variances().data() + c * d_;
    return widest_of(variance, *std::max_element(variance, variance + d_));
  }

  Bounded spread(std::int64_t c, bool squared) {
    if (spreads_.empty()) spreads_ = cluster_spreads(rows_, *labels_, centers_, squared);
    return {spreads_[c]};
  }

  void split(std::int64_t c, std::int64_t axis, double step) {
    std::vector<double> other(center(c), center(c) + d_);
    center(c)[axis] += step;
    other[axis] -= step;
    project(center(c));
    project(other.data());
    centers_.insert(centers_.end(), other.begin(), other.end());
  }

  Bounded center_distance(std::int64_t a, std::int64_t b) const {
    return {std::sqrt(squared_distance(centers_.data() + a * d_, 1.0, centers_.data() + b * d_, d_))};
  }

  void lump(std::int64_t a, std::int64_t b, const std::vector<double>& sizes) {
    const double na = sizes[a], nb = sizes[b];
    double *ca = center(a), *cb = center(b);
    for (std::int64_t q = 0; q < d_; ++q) ca[q] = (na * ca[q] + nb * cb[q]) / (na + nb);
    project(ca);
  }

 private:
  double* center(std::int64_t c) { return centers_.data() + c * d_; }
  void project(double* c) const {
    if (on_sphere_) scale_to_unit(c, d_);
  }
  const std::vector<double>& variances() {
    if (variances_.empty()) variances_ = cluster_variances(rows_, *labels_, *sizes_, &sums_);
    return variances_;
  }

  const Rows<T>& rows_;
  const bool on_sphere_;
  const std::int64_t d_;
  std::vector<double> centers_, variances_, spreads_;
  const std::vector<std::int32_t>* labels_ = nullptr;
  const std::vector<double>* sizes_ = nullptr;
  ClusterSums sums_;
  bool makes_sums_ = false;
  double moved_ = 0;
};

}  // namespace rlsft::isodata_detail
