#include "gram_space.hpp"

#include <algorithm>
#include <cmath>

namespace rlsft::isodata_detail {

template <typename X>
void GramSpace<X>::start(const IsodataOptions& options) {
  on_sphere_ = options.cosine;
  const std::vector<std::int64_t>& rows = this->choose_start(options);
  count_ = static_cast<std::int64_t>(rows.size());
  this->reserve_distances(count_);
  for (std::int64_t c = 0; c < count_; ++c) {
    for (std::int64_t i = 0; i < stride_; ++i) distances(c)[i] = i < n_ ? this->squared(i, rows[c]) : 0;
  }
  center_error_ = squared_error_;
}

template <typename X>
void GramSpace<X>::assign(std::int32_t* labels) {
  // the runner-up and the smallest both err
  decider_->require(this->kernels_.nearest(distances(0), count_, n_, stride_, 2 * center_error_, 2 * kTie, labels));
}

template <typename X>
void GramSpace<X>::keep(const std::vector<std::uint8_t>& flags) {
  std::int64_t kept = 0;
  for (std::int64_t c = 0; c < count_; ++c) {
    if (!flags[c]) continue;
    if (kept != c) std::copy_n(distances(c), stride_, distances(kept));
    ++kept;
  }
  count_ = kept;
}

template <typename X>
void GramSpace<X>::move_to_means(const std::vector<std::int32_t>& labels, const std::vector<double>& sizes) {
  count_ = static_cast<std::int64_t>(sizes.size());
  this->set_means(labels.data(), count_);
  if (on_sphere_) project_means();
}

// |x - m/|m||^2 = |x|^2 + 1 - 2 x.m / |m|
template <typename X>
void GramSpace<X>::project_means() {
  double shortest = 1;
  for (std::int64_t c = 0; c < count_; ++c) {
    decider_->require(self_[c] > 16 * dot_error_);  // else the direction is rounding
    const double members = static_cast<double>(size_[c]);
    this->kernels_.distances(this->norms2(), sums_.data() + c * stride_, 2 / (members * length(c)), 1, stride_,
                             distances(c));
    shortest = std::min(shortest, self_[c]);
  }
  // the error of x.m is divided by |m|, and |m| itself has that of |m|^2 divided by 2 |m|
  center_error_ = 1.1 * dot_error_ * (1 + 2 / std::sqrt(shortest) + 1 / shortest);
}

template <typename X>
Bounded GramSpace<X>::total_variance(std::int64_t c) const {
  if (size_[c] == 1) return {0};
  return {std::max(0.0, this->trace_[c] / static_cast<double>(size_[c]) - self_[c]), squared_error_};
}

template <typename X>
Bounded GramSpace<X>::spread(std::int64_t c, bool squared) const {
  Bounded sum{0};
  if (size_[c] == 1) return sum;
  for (std::int64_t i = 0; i < n_; ++i) {
    if (set_of_row_[i] != c) continue;
    const Bounded square{std::max(0.0, distances(c)[i]), center_error_};
    sum = sum + (squared ? square : root(square));
  }
  return sum;
}

// distances to the centre of `from` moved by `step` along the axis, and in cosine geometry projected again
template <typename X>
void GramSpace<X>::move_along(std::int64_t axis, double step, double center_q, const double* from, double* to) const {
  const double length2 = on_sphere_ ? 1 + step * (2 * center_q + step) : 1;
  for (std::int64_t i = 0; i < n_; ++i) {
    const double x_q = static_cast<double>(this->row(i)[axis]);
    if (!on_sphere_) {
      to[i] = from[i] + step * (step - 2 * (x_q - center_q));
    } else {
      const double dot = (this->norm2(i) + 1 - from[i]) / 2 + step * x_q;
      to[i] = this->norm2(i) + 1 - 2 * dot / std::sqrt(length2);
    }
  }
  if (on_sphere_) decider_->require(length2 > 0.25);  // below it errors would be doubled
}

// mean_ is the mean of set c: widest(c) was asked just before.
template <typename X>
void GramSpace<X>::split(std::int64_t c, std::int64_t axis, double step) {
  const double center_q = on_sphere_ ? mean_[axis] / length(c) : mean_[axis];
  this->reserve_distances(count_ + 1);
  move_along(axis, -step, center_q, distances(c), distances(count_));
  move_along(axis, step, center_q, distances(c), distances(c));
  if (on_sphere_) center_error_ *= 4;  // halved twice by lengths of at least a half
  ++count_;
}

template <typename X>
Bounded GramSpace<X>::center_distance(std::int64_t a, std::int64_t b) {
  const double pairs = static_cast<double>(size_[a]) * static_cast<double>(size_[b]);
  const double dot = this->cross_sums()[a * count_ + b] / pairs;
  if (!on_sphere_) return root({std::max(0.0, self_[a] - 2 * dot + self_[b]), squared_error_});
  return root({std::max(0.0, 2 - 2 * dot / (length(a) * length(b))), 4 * center_error_});
}

// |x - (n_a a + n_b b) / n|^2 = (n_a |x - a|^2 + n_b |x - b|^2) / n - n_a n_b / n^2 |a - b|^2
template <typename X>
void GramSpace<X>::lump(std::int64_t a, std::int64_t b, const std::vector<double>& sizes) {
  const double na = sizes[a], nb = sizes[b], n = na + nb;
  const double gap = center_distance(a, b).value;
  const double shift = na * nb / (n * n) * gap * gap;
  double *to = distances(a), *from = distances(b);
  for (std::int64_t i = 0; i < n_; ++i) to[i] = (na * to[i] + nb * from[i]) / n - shift;
  if (on_sphere_) {  // the point between two of the sphere has length sqrt(1 - shift)
    const double length2 = 1 - shift;
    decider_->require(length2 > 0.25);
    for (std::int64_t i = 0; i < n_; ++i) {
      const double dot = (this->norm2(i) + length2 - to[i]) / 2;
      to[i] = this->norm2(i) + 1 - 2 * dot / std::sqrt(length2);
    }
  }
  center_error_ *= on_sphere_ ? 16 : 2;
}

template class GramSpace<float>;
template class GramSpace<double>;

}  // namespace rlsft::isodata_detail
