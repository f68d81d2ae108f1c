// STR's Space (str_loop.hpp) on dot products, for variance_kind == trace: nothing here looks at a coordinate.
#pragma once

#include <algorithm>
#include <vector>

#include "gram_group.hpp"

namespace rlsft::isodata_detail {

template <typename X>
class StrGram : public GramGroup<X> {
 public:
  struct Cluster {
    std::vector<std::int64_t> members;
    std::vector<double> sums;  // [stride] dot products of each row with the sum of the members
    double self = 0;           // |mean|^2
    double variance = 0;
    bool is_alive = true;
  };

  // The centres start at rows of the group; returns how many.
  std::int64_t start(const IsodataOptions& options) {
    const std::vector<std::int64_t>& rows = this->choose_start(options);
    std::vector<std::int32_t> set_of_row(static_cast<std::size_t>(this->n_), -1);
    for (std::size_t c = 0; c < rows.size(); ++c) set_of_row[rows[c]] = static_cast<std::int32_t>(c);
    count_ = static_cast<std::int64_t>(rows.size());
    GramGroup<X>::set_means(set_of_row.data(), count_);
    return count_;
  }

  void assign(std::int32_t* labels) {
    this->decider_->require(this->kernels_.nearest(this->distances(0), count_, this->n_, this->stride_,
                                                   2 * this->center_error_, 2 * kTie, labels));
  }

  void set_means(const std::vector<Cluster>& clusters) {
    labels_.assign(static_cast<std::size_t>(this->n_), -1);
    for (std::size_t c = 0; c < clusters.size(); ++c) {
      for (const std::int64_t i : clusters[c].members) labels_[i] = static_cast<std::int32_t>(c);
    }
    count_ = static_cast<std::int64_t>(clusters.size());
    GramGroup<X>::set_means(labels_.data(), count_);
  }

  void describe(Cluster& cluster) const {
    const double size = static_cast<double>(cluster.members.size());
    cluster.sums.assign(static_cast<std::size_t>(this->stride_), 0);
    double self = 0, trace = 0;
    for (const std::int64_t i : cluster.members) {
      const double* dots = this->dots(i);
      for (std::int64_t j = 0; j < this->stride_; ++j) cluster.sums[j] += dots[j];
      trace += this->norm2(i);
    }
    for (const std::int64_t i : cluster.members) self += cluster.sums[i];
    cluster.self = self / (size * size);
    cluster.variance = size == 1 ? 0 : std::max(0.0, trace / size - cluster.self);
  }

  Bounded variance(const Cluster& cluster) const {
    return {cluster.variance, cluster.members.size() == 1 ? 0 : this->squared_error_};
  }

  Bounded union_variance(const Cluster& a, const Cluster& b) const {
    const double na = static_cast<double>(a.members.size()), nb = static_cast<double>(b.members.size()), n = na + nb;
    const double spread = (na * a.variance + nb * b.variance) / n;
    return {spread + na * nb / (n * n) * distance(a, b).value, 2 * this->squared_error_};
  }

  Bounded distance(const Cluster& a, const Cluster& b) const {
    double cross = 0;
    for (const std::int64_t i : a.members) cross += b.sums[i];
    const double pairs = static_cast<double>(a.members.size()) * static_cast<double>(b.members.size());
    return {std::max(0.0, a.self - 2 * cross / pairs + b.self), this->squared_error_};
  }

  Bounded distance(std::int64_t i, const Cluster& cluster) const {
    const double size = static_cast<double>(cluster.members.size());
    return {std::max(0.0, this->norm2(i) - 2 * cluster.sums[i] / size + cluster.self), this->squared_error_};
  }

  template <typename T>
  std::int64_t finish(const double* scores, std::int32_t* labels, T* centers, std::int64_t* medoids) {
    const std::vector<std::uint8_t> no_noise(static_cast<std::size_t>(this->n_), 0);
    return GramGroup<X>::finish(count_, false, no_noise.data(), scores, labels, centers, medoids);
  }

  std::int64_t count() const { return count_; }

 private:
  std::int64_t count_ = 0;
  std::vector<std::int32_t> labels_;
};

}  // namespace rlsft::isodata_detail
