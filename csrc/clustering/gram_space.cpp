#include "gram_space.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace rlsft::isodata_detail {

template <typename T>
template <typename G>
void GramSpace<T>::bind(const T* x, std::int64_t n, std::int64_t d, const GroupGram<G>& gram, Decider& decider) {
  x_ = x;
  n_ = n;
  d_ = d;
  stride_ = (n + 7) / 8 * 8;
  decider_ = &decider;
  gram_.resize(static_cast<std::size_t>(n * stride_));
  diagonal_.assign(static_cast<std::size_t>(stride_), 0);
  double largest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const G* from = gram.gram() + i * gram.ld();  // ld is a multiple of 8 too, and its padding 0
    for (std::int64_t j = 0; j < stride_; ++j) gram_[i * stride_ + j] = static_cast<double>(from[j]);
    diagonal_[i] = gram_[i * stride_ + i];
    largest = std::max(largest, diagonal_[i]);
  }
  dot_error_ = gram.relative_error() * largest;
  // G_ii, twice a mean of dot products and |mean|^2; an eighth more covers the float64 sums
  squared_error_ = 4.5 * dot_error_;
  // a coordinate of a centre is rounded to T: 2 |x - c| |c| u, and both lengths are at most twice the longest row's
  rounding_error_ = 4.5 * largest * (std::numeric_limits<T>::epsilon() / 2);
  set_of_row_.assign(static_cast<std::size_t>(n), -1);
}

template <typename T>
double GramSpace<T>::squared(std::int64_t i, std::int64_t j) const {
  return std::max(0.0, diagonal_[i] + diagonal_[j] - 2 * gram_[i * stride_ + j]);
}

// ---- starting centres ----

template <typename T>
void GramSpace<T>::start(const IsodataOptions& options) {
  const std::int64_t wanted = starting_clusters(options, n_);
  const SplitMix64 random(options.seed);
  chosen_.clear();
  if (options.init == IsodataInit::random) {
    start_random(wanted, random);
  } else {
    start_spread(wanted, random);
  }
  start_at_rows();
}

template <typename T>
void GramSpace<T>::start_spread(std::int64_t wanted, SplitMix64 random) {
  chosen_.push_back(random.below(n_));
  to_chosen_.assign(static_cast<std::size_t>(n_), HUGE_VAL);
  cumulative_.resize(to_chosen_.size());
  // a distance, times n of them in a sum; the mark has the error of the whole sum
  const double error = 2 * static_cast<double>(n_) * squared_error_;
  while (static_cast<std::int64_t>(chosen_.size()) < wanted) {
    for (std::int64_t i = 0; i < n_; ++i) to_chosen_[i] = std::min(to_chosen_[i], squared(i, chosen_.back()));
    std::partial_sum(to_chosen_.begin(), to_chosen_.end(), cumulative_.begin());
    decider_->require(cumulative_.back() > error);
    if (decider_->is_undecided()) return;
    const double mark = random.uniform() * cumulative_.back();
    const auto pick = std::upper_bound(cumulative_.begin(), cumulative_.end(), mark);
    if (pick == cumulative_.end()) return decider_->require(false);
    decider_->require(*pick - mark > error && (pick == cumulative_.begin() || mark - *(pick - 1) > error));
    chosen_.push_back(pick - cumulative_.begin());
  }
}

template <typename T>
void GramSpace<T>::start_random(std::int64_t wanted, SplitMix64 random) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n_));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::int64_t i = 0; i < n_ && static_cast<std::int64_t>(chosen_.size()) < wanted; ++i) {
    std::swap(order[i], order[i + random.below(n_ - i)]);
    for (const std::int64_t other : chosen_) decider_->require(squared(order[i], other) > squared_error_);
    chosen_.push_back(order[i]);  // distinct, or undecided
  }
}

template <typename T>
void GramSpace<T>::start_at_rows() {
  centers_.clear();
  for (const std::int64_t i : chosen_) {
    set_of_row_[i] = static_cast<std::int32_t>(centers_.size());
    centers_.push_back({set_of_row_[i]});
  }
  update_sets(count());
}

// ---- sets and their means ----

template <typename T>
void GramSpace<T>::update_sets(std::int64_t num_sets) {
  const std::size_t size = static_cast<std::size_t>(num_sets * stride_);
  if (sums_.size() < size) {
    sums_.resize(size);
    distances_.resize(size);
  }
  set_size_.assign(static_cast<std::size_t>(num_sets), 0);
  self_.assign(static_cast<std::size_t>(num_sets), 0);
  kernels_.member_sums(gram_.data(), stride_, n_, set_of_row_.data(), num_sets, stride_, sums_.data());
  for (std::int64_t i = 0; i < n_; ++i) {
    if (set_of_row_[i] < 0) continue;
    ++set_size_[set_of_row_[i]];
    self_[set_of_row_[i]] += sums_[set_of_row_[i] * stride_ + i];
  }
  for (std::int64_t s = 0; s < num_sets; ++s) {
    if (set_size_[s] == 0) continue;  // lumped into another
    const double size_s = static_cast<double>(set_size_[s]);
    self_[s] /= size_s * size_s;
    kernels_.distances(diagonal_.data(), sums_.data() + s * stride_, 2 / size_s, self_[s], stride_,
                       distances_.data() + s * stride_);
  }
  is_stale_ = false;
}

template <typename T>
Bounded GramSpace<T>::overall_variance() {
  double trace = 0, all = 0;
  for (std::int64_t i = 0; i < n_; ++i) {
    trace += diagonal_[i];
    for (std::int64_t j = 0; j < n_; ++j) all += gram_[i * stride_ + j];
  }
  const double n = static_cast<double>(n_);
  return {std::max(0.0, trace / n - all / (n * n)), n_ == 1 ? 0 : squared_error_};
}

template <typename T>
void GramSpace<T>::add_step(const Center& center, double* distances) const {
  const double* column = columns_.data() + center.column * stride_;
  for (std::int64_t i = 0; i < n_; ++i) distances[i] += center.step * (center.step - 2 * column[i]);
}

template <typename T>
void GramSpace<T>::fill_distances() {
  if (is_stale_) update_sets(static_cast<std::int64_t>(set_size_.size()));
  const std::size_t size = static_cast<std::size_t>(count() * stride_);
  if (center_distances_.size() < size) center_distances_.resize(size);
  for (std::int64_t c = 0; c < count(); ++c) {
    double* to = center_distances_.data() + c * stride_;
    std::copy_n(distances_.data() + centers_[c].set * stride_, stride_, to);
    if (centers_[c].column >= 0) add_step(centers_[c], to);
  }
}

template <typename T>
void GramSpace<T>::assign(std::int32_t* labels) {
  fill_distances();
  // the runner-up and the smallest both err
  decider_->require(kernels_.nearest(center_distances_.data(), count(), n_, stride_, 2 * squared_error_, 2 * kTie, labels));
}

template <typename T>
void GramSpace<T>::keep(const std::vector<std::uint8_t>& flags) {
  std::size_t kept = 0;
  for (std::size_t c = 0; c < flags.size(); ++c) {
    if (flags[c]) centers_[kept++] = centers_[c];
  }
  centers_.resize(kept);
}

template <typename T>
void GramSpace<T>::move_to_means(const std::vector<std::int32_t>& labels, const std::vector<std::int64_t>& sizes) {
  set_of_row_ = labels;
  centers_.clear();
  columns_.clear();
  cross_.clear();
  for (std::size_t c = 0; c < sizes.size(); ++c) centers_.push_back({static_cast<std::int32_t>(c)});
  update_sets(count());
}

template <typename T>
Bounded GramSpace<T>::total_variance(std::int64_t c) const {
  if (set_size_[c] == 1) return {0};
  double trace = 0;
  for (std::int64_t i = 0; i < n_; ++i) trace += set_of_row_[i] == c ? diagonal_[i] : 0;
  return {std::max(0.0, trace / static_cast<double>(set_size_[c]) - self_[c]), squared_error_};
}

template <typename T>
void GramSpace<T>::gather_members(std::int64_t set) {
  members_.clear();
  for (std::int64_t i = 0; i < n_; ++i) {
    if (set_of_row_[i] == set) members_.push_back(row(i));
  }
  mean_.resize(static_cast<std::size_t>(d_));
  kernels_.mean(members_.data(), static_cast<std::int64_t>(members_.size()), d_, mean_.data());
}

template <typename T>
Widest GramSpace<T>::widest(std::int64_t c) {
  gather_members(c);
  variance_.resize(static_cast<std::size_t>(d_));
  const double largest = kernels_.variance(members_.data(), static_cast<std::int64_t>(members_.size()), d_,
                                           mean_.data(), variance_.data());
  return widest_of(variance_.data(), largest);
}

template <typename T>
Bounded GramSpace<T>::spread(std::int64_t c, bool squared) const {
  Bounded sum{0};
  if (set_size_[c] == 1) return sum;
  for (std::int64_t i = 0; i < n_; ++i) {
    if (set_of_row_[i] != c) continue;
    const Bounded square{std::max(0.0, set_distance(c, i)), squared_error_};
    sum = sum + (squared ? square : root(square));
  }
  return sum;
}

// mean_ is the mean of set c: widest(c) was asked just before.
template <typename T>
void GramSpace<T>::split(std::int64_t c, std::int64_t axis, double step) {
  const std::int64_t column = static_cast<std::int64_t>(columns_.size()) / stride_;
  for (std::int64_t i = 0; i < stride_; ++i) {
    columns_.push_back(i < n_ ? static_cast<double>(row(i)[axis]) - mean_[axis] : 0);
  }
  centers_[c] = {static_cast<std::int32_t>(c), step, column};
  centers_.push_back({static_cast<std::int32_t>(c), -step, column});
}

// Sums of dot products between the members of two sets, for all pairs of sets: what distances of means need.
template <typename T>
void GramSpace<T>::fill_cross() {
  const std::int64_t k = count();
  cross_.assign(static_cast<std::size_t>(k * k), 0);
  for (std::int64_t i = 0; i < n_; ++i) {
    if (set_of_row_[i] < 0) continue;
    double* cross = cross_.data() + set_of_row_[i] * k;
    for (std::int64_t b = 0; b < k; ++b) cross[b] += sums_[b * stride_ + i];
  }
}

template <typename T>
Bounded GramSpace<T>::center_distance(std::int64_t a, std::int64_t b) {
  if (cross_.empty()) fill_cross();
  const double mean = cross_[a * count() + b] / (static_cast<double>(set_size_[a]) * static_cast<double>(set_size_[b]));
  return root({std::max(0.0, self_[a] - 2 * mean + self_[b]), squared_error_});
}

// The new centre is the mean of the union. Later calls of the same pass still see the sums of before.
template <typename T>
void GramSpace<T>::lump(std::int64_t a, std::int64_t b, const std::vector<std::int64_t>&) {
  for (std::int32_t& set : set_of_row_) {
    if (set == b) set = static_cast<std::int32_t>(a);
  }
  is_stale_ = true;
}

// ---- the end ----

template <typename T>
std::int32_t GramSpace<T>::nearest_exactly(std::int64_t i, std::int64_t k, const T* centers) {
  to_chosen_.clear();
  for (std::int64_t c = 0; c < k; ++c) to_chosen_.push_back(kernels_.squared_distance(row(i), centers + c * d_, d_));
  const double smallest = *std::min_element(to_chosen_.begin(), to_chosen_.end());
  std::int32_t label = 0;
  while (!ties_with_smallest(to_chosen_[label], smallest)) ++label;
  return label;
}

template <typename T>
bool GramSpace<T>::is_clear(std::int64_t i, std::int32_t label, std::int64_t k, double margin) const {
  const double nearest = std::max(0.0, set_distance(label, i));
  for (std::int64_t c = 0; c < k; ++c) {
    if (c != label && set_distance(c, i) - nearest <= margin + 2 * kTie * nearest) return false;
  }
  return true;
}

template <typename T>
std::int64_t GramSpace<T>::finish(const std::vector<std::uint8_t>& is_noise, const double* scores, std::int32_t* labels,
                                  T* centers, std::int64_t* medoids) {
  const std::int64_t k = count();
  for (std::int64_t c = 0; c < k; ++c) {
    gather_members(c);
    for (std::int64_t q = 0; q < d_; ++q) centers[c * d_ + q] = static_cast<T>(mean_[q]);
  }
  const double margin = 2 * (squared_error_ + rounding_error_);
  if (!kernels_.nearest(distances_.data(), k, n_, stride_, margin, 2 * kTie, labels)) {
    for (std::int64_t i = 0; i < n_; ++i) {
      if (!is_clear(i, labels[i], k, margin)) labels[i] = nearest_exactly(i, k, centers);
    }
  }
  for (std::int64_t i = 0; i < n_; ++i) labels[i] = is_noise[i] ? -1 : labels[i];
  const std::int64_t used = drop_unused(k, labels, centers);
  for (std::int64_t c = 0; c < used; ++c) medoids[c] = find_medoid(static_cast<std::int32_t>(c), labels, centers, scores, margin);
  return used;
}

// number_[c] becomes the set whose mean the c-th centre left is.
template <typename T>
std::int64_t GramSpace<T>::drop_unused(std::int64_t k, std::int32_t* labels, T* centers) {
  number_.assign(static_cast<std::size_t>(k), -1);
  for (std::int64_t i = 0; i < n_; ++i) {
    if (labels[i] >= 0) number_[labels[i]] = 0;
  }
  std::int32_t used = 0;
  for (std::int64_t c = 0; c < k; ++c) {
    if (number_[c] < 0) continue;
    if (used != c) std::copy_n(centers + c * d_, d_, centers + used * d_);
    number_[c] = used++;
  }
  for (std::int64_t i = 0; i < n_; ++i) labels[i] = labels[i] >= 0 ? number_[labels[i]] : -1;
  std::int32_t set = 0;
  for (std::int64_t c = 0; c < k; ++c) {
    if (number_[c] >= 0) number_[set++] = static_cast<std::int32_t>(c);
  }
  return used;
}

// Only members that may be the nearest are measured exactly.
template <typename T>
std::int64_t GramSpace<T>::find_medoid(std::int32_t c, const std::int32_t* labels, const T* centers,
                                       const double* scores, double margin) {
  const std::int64_t set = number_[c];
  double nearest = HUGE_VAL;
  for (std::int64_t i = 0; i < n_; ++i) {
    if (labels[i] == c) nearest = std::min(nearest, set_distance(set, i));
  }
  chosen_.clear();
  for (std::int64_t i = 0; i < n_; ++i) {
    if (labels[i] == c && set_distance(set, i) - nearest <= margin + 2 * kTie * std::max(0.0, nearest)) chosen_.push_back(i);
  }
  if (chosen_.size() == 1) return chosen_.front();
  to_chosen_.clear();
  for (const std::int64_t i : chosen_) to_chosen_.push_back(kernels_.squared_distance(row(i), centers + c * d_, d_));
  const double smallest = *std::min_element(to_chosen_.begin(), to_chosen_.end());
  std::int64_t medoid = -1;
  for (std::size_t j = 0; j < chosen_.size(); ++j) {
    const std::int64_t i = chosen_[j];
    if (!ties_with_smallest(to_chosen_[j], smallest)) continue;
    if (medoid < 0 || (scores != nullptr && scores[i] > scores[medoid])) medoid = i;
  }
  return medoid;
}

template class GramSpace<float>;
template class GramSpace<double>;
template void GramSpace<float>::bind(const float*, std::int64_t, std::int64_t, const GroupGram<float>&, Decider&);
template void GramSpace<float>::bind(const float*, std::int64_t, std::int64_t, const GroupGram<double>&, Decider&);
template void GramSpace<double>::bind(const double*, std::int64_t, std::int64_t, const GroupGram<double>&, Decider&);

}  // namespace rlsft::isodata_detail
