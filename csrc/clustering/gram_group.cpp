#include "gram_group.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace rlsft::isodata_detail {

template <typename X>
template <typename G>
void GramGroup<X>::bind(const X* x, std::int64_t n, std::int64_t d, const GroupGram<G>& gram, bool unit_rows,
                        Decider& decider) {
  x_ = x;
  n_ = n;
  d_ = d;
  stride_ = (n + 7) / 8 * 8;
  decider_ = &decider;
  floor_ = unit_rows ? kSameDirection : 0;
  gram_.resize(static_cast<std::size_t>(n * stride_));
  diagonal_.assign(static_cast<std::size_t>(stride_), 0);
  mean_.resize(static_cast<std::size_t>(d));
  largest_ = 0;
  const double* scale = gram.inverse_norms();
  for (std::int64_t i = 0; i < n; ++i) {
    const G* from = gram.gram() + i * gram.ld();  // ld is a multiple of 8 too, and its padding 0
    double* to = gram_.data() + i * stride_;
    for (std::int64_t j = 0; j < stride_; ++j) to[j] = static_cast<double>(from[j]);
    for (std::int64_t j = 0; unit_rows && j < stride_; ++j) to[j] *= scale[i] * scale[j];
    diagonal_[i] = to[i];
    largest_ = std::max(largest_, diagonal_[i]);
  }
  // each of the two norms that a cosine is divided by has half the error of a dot product
  dot_error_ = (unit_rows ? 2.1 : 1.05) * gram.relative_error() * largest_;
  // G_ii, twice a mean of dot products and |mean|^2; an eighth more covers the float64 sums
  squared_error_ = 4.5 * dot_error_;
}

template <typename X>
double GramGroup<X>::squared(std::int64_t i, std::int64_t j) const {
  return std::max(0.0, diagonal_[i] + diagonal_[j] - 2 * dot(i, j));
}

// ---- starting centres ----

template <typename X>
const std::vector<std::int64_t>& GramGroup<X>::choose_start(const IsodataOptions& options) {
  chosen_.clear();
  const std::int64_t wanted = starting_clusters(options, n_);
  if (options.init == IsodataInit::random) {
    random_start(wanted, SplitMix64(options.seed));
  } else {
    spread_start(wanted, SplitMix64(options.seed));
  }
  return chosen_;
}

template <typename X>
void GramGroup<X>::spread_start(std::int64_t wanted, SplitMix64 random) {
  chosen_.push_back(random.below(n_));
  to_chosen_.assign(static_cast<std::size_t>(n_), HUGE_VAL);
  cumulative_.resize(to_chosen_.size());
  // n distances in a sum; the mark has the error of the whole sum
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

template <typename X>
void GramGroup<X>::random_start(std::int64_t wanted, SplitMix64 random) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n_));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::int64_t i = 0; i < n_ && static_cast<std::int64_t>(chosen_.size()) < wanted; ++i) {
    std::swap(order[i], order[i + random.below(n_ - i)]);
    for (const std::int64_t other : chosen_) decider_->require(squared(order[i], other) > 2 * squared_error_);
    chosen_.push_back(order[i]);  // distinct, or undecided
  }
}

// ---- sets and their means ----

template <typename X>
void GramGroup<X>::reserve_distances(std::int64_t k) {
  const std::size_t size = static_cast<std::size_t>(k * stride_);
  if (distances_.size() < size) distances_.resize(size);
}

template <typename X>
void GramGroup<X>::set_means(const std::int32_t* set_of_row, std::int64_t num_sets) {
  set_of_row_.assign(set_of_row, set_of_row + n_);
  const std::size_t size = static_cast<std::size_t>(num_sets * stride_);
  if (sums_.size() < size) sums_.resize(size);
  reserve_distances(num_sets);
  size_.assign(static_cast<std::size_t>(num_sets), 0);
  self_.assign(static_cast<std::size_t>(num_sets), 0);
  trace_.assign(static_cast<std::size_t>(num_sets), 0);
  cross_.clear();
  kernels_.member_sums(gram_.data(), stride_, n_, set_of_row_.data(), num_sets, stride_, sums_.data());
  for (std::int64_t i = 0; i < n_; ++i) {
    if (set_of_row_[i] < 0) continue;
    ++size_[set_of_row_[i]];
    trace_[set_of_row_[i]] += diagonal_[i];
    self_[set_of_row_[i]] += sums_[set_of_row_[i] * stride_ + i];
  }
  for (std::int64_t s = 0; s < num_sets; ++s) {
    const double members = static_cast<double>(size_[s]);
    self_[s] /= members * members;
    kernels_.distances(diagonal_.data(), sums_.data() + s * stride_, 2 / members, self_[s], stride_, distances(s));
  }
  center_error_ = squared_error_;
}

template <typename X>
const std::vector<double>& GramGroup<X>::cross_sums() {
  const std::int64_t k = static_cast<std::int64_t>(size_.size());
  if (!cross_.empty()) return cross_;
  cross_.assign(static_cast<std::size_t>(k * k), 0);
  for (std::int64_t i = 0; i < n_; ++i) {
    if (set_of_row_[i] < 0) continue;
    double* cross = cross_.data() + set_of_row_[i] * k;
    for (std::int64_t b = 0; b < k; ++b) cross[b] += sums_[b * stride_ + i];
  }
  return cross_;
}

template <typename X>
Bounded GramGroup<X>::overall_variance() const {
  double trace = 0, all = 0;
  for (std::int64_t i = 0; i < n_; ++i) {
    trace += diagonal_[i];
    for (std::int64_t j = 0; j < n_; ++j) all += dot(i, j);
  }
  const double n = static_cast<double>(n_);
  return {std::max(0.0, trace / n - all / (n * n)), n_ == 1 ? 0 : squared_error_};
}

template <typename X>
void GramGroup<X>::compute_mean(std::int64_t set) {
  members_.clear();
  for (std::int64_t i = 0; i < n_; ++i) {
    if (set_of_row_[i] == set) members_.push_back(row(i));
  }
  kernels_.mean(members_.data(), static_cast<std::int64_t>(members_.size()), d_, mean_.data());
}

template <typename X>
Widest GramGroup<X>::widest_coordinate(std::int64_t set) {
  compute_mean(set);
  variance_.resize(static_cast<std::size_t>(d_));
  const double largest = kernels_.variance(members_.data(), static_cast<std::int64_t>(members_.size()), d_,
                                           mean_.data(), variance_.data());
  return widest_of(variance_.data(), largest);
}

// ---- the end ----

template <typename X>
void GramGroup<X>::round_mean(float* center) const {
  kernels_.narrow(mean_.data(), d_, center);
}
template <typename X>
void GramGroup<X>::round_mean(double* center) const {
  std::copy_n(mean_.data(), d_, center);
}

template <typename X>
template <typename T>
std::int64_t GramGroup<X>::finish(std::int64_t k, bool project, const std::uint8_t* is_noise, const double* scores,
                                  std::int32_t* labels, T* centers, std::int64_t* medoids) {
  for (std::int64_t c = 0; c < k; ++c) {
    compute_mean(c);
    if (project) scale_to_unit(mean_.data(), d_);
    round_mean(centers + c * d_);
  }
  // a coordinate of a centre is rounded to T: 2 |x - c| |c| u, and |x - c| is at most twice the longest length
  is_projected_ = project;
  longest2_ = project ? std::max(1.0, largest_) : largest_;
  const double margin = 2 * (center_error_ + 4.5 * longest2_ * (std::numeric_limits<T>::epsilon() / 2));
  if (!kernels_.nearest(distances_.data(), k, n_, stride_, margin, 2 * kTie, labels)) {
    for (std::int64_t i = 0; i < n_; ++i) {
      if (!is_clear(i, labels[i], k, margin)) labels[i] = nearest_exactly(i, k, centers);
    }
  }
  for (std::int64_t i = 0; i < n_; ++i) labels[i] = is_noise[i] ? -1 : labels[i];
  const std::int64_t used = drop_unused(k, labels, centers);
  for (std::int64_t c = 0; c < used; ++c) {
    medoids[c] = find_medoid(static_cast<std::int32_t>(c), labels, centers + c * d_, scores, margin);
  }
  return used;
}

template <typename X>
bool GramGroup<X>::is_clear(std::int64_t i, std::int32_t label, std::int64_t k, double margin) const {
  const double nearest = std::max(0.0, distances(label)[i]);
  for (std::int64_t c = 0; c < k; ++c) {
    if (c != label && distances(c)[i] - nearest <= margin + 2 * kTie * nearest) return false;
  }
  return true;
}

template <typename X>
template <typename T>
void GramGroup<X>::widen(const T* center) {
  for (std::int64_t q = 0; q < d_; ++q) mean_[q] = static_cast<double>(center[q]);
}

template <typename X>
template <typename T>
std::int32_t GramGroup<X>::nearest_exactly(std::int64_t i, std::int64_t k, const T* centers) {
  to_chosen_.clear();
  for (std::int64_t c = 0; c < k; ++c) {
    widen(centers + c * d_);
    to_chosen_.push_back(kernels_.squared_distance(row(i), mean_.data(), d_));
  }
  const double smallest = *std::min_element(to_chosen_.begin(), to_chosen_.end());
  std::int32_t label = 0;
  while (!ties_with_smallest(to_chosen_[label], smallest, floor_)) ++label;
  return label;
}

// number_[c] becomes the old number of the c-th centre left.
template <typename X>
template <typename T>
std::int64_t GramGroup<X>::drop_unused(std::int64_t k, std::int32_t* labels, T* centers) {
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
  std::int32_t left = 0;
  for (std::int64_t c = 0; c < k; ++c) {
    if (number_[c] >= 0) number_[left++] = static_cast<std::int32_t>(c);
  }
  return used;
}

// Only members that may be the nearest are measured exactly.
template <typename X>
template <typename T>
std::int64_t GramGroup<X>::find_medoid(std::int32_t c, const std::int32_t* labels, const T* center,
                                       const double* scores, double margin) {
  constexpr double kEps = std::numeric_limits<T>::epsilon();
  const double* squares = distances(number_[c]);
  double nearest = HUGE_VAL;
  for (std::int64_t i = 0; i < n_; ++i) {
    if (labels[i] == c) nearest = std::min(nearest, squares[i]);
  }
  const double reach = medoid_reach(std::max(0.0, nearest) + margin, longest2_, kEps, floor_) + margin;
  chosen_.clear();
  for (std::int64_t i = 0; i < n_; ++i) {
    if (labels[i] == c && squares[i] <= reach) chosen_.push_back(i);
  }
  if (chosen_.size() == 1) return chosen_.front();
  widen(center);
  to_chosen_.clear();
  for (const std::int64_t i : chosen_) to_chosen_.push_back(kernels_.squared_distance(row(i), mean_.data(), d_));
  const double smallest = *std::min_element(to_chosen_.begin(), to_chosen_.end());
  const double exact_reach = medoid_reach(smallest, is_projected_ ? 1 : self_[number_[c]], kEps, floor_);
  std::int64_t medoid = -1;
  for (std::size_t j = 0; j < chosen_.size(); ++j) {
    const std::int64_t i = chosen_[j];
    if (to_chosen_[j] > exact_reach) continue;
    if (medoid < 0 || (scores != nullptr && scores[i] > scores[medoid])) medoid = i;
  }
  return medoid;
}

template class GramGroup<float>;
template class GramGroup<double>;
#define RLSFT_BIND(X, G) \
  template void GramGroup<X>::bind(const X*, std::int64_t, std::int64_t, const GroupGram<G>&, bool, Decider&);
RLSFT_BIND(float, float)
RLSFT_BIND(float, double)
RLSFT_BIND(double, float)
RLSFT_BIND(double, double)
#undef RLSFT_BIND
#define RLSFT_FINISH(X, T)                                                                                     \
  template std::int64_t GramGroup<X>::finish(std::int64_t, bool, const std::uint8_t*, const double*, std::int32_t*, \
                                             T*, std::int64_t*);
RLSFT_FINISH(float, float)
RLSFT_FINISH(double, float)
RLSFT_FINISH(double, double)
#undef RLSFT_FINISH

}  // namespace rlsft::isodata_detail
