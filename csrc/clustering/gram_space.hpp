// Points and centres as dot products: the Space (ball_hall.hpp) of small groups, O(n^2) a pass whatever the dimension.
//
// A centre is the mean of a set of rows, moved by a split along one coordinate or not. With G the Gram matrix and S the
// set: |x_i - mean|^2 = G_ii - 2/|S| sum_{j in S} G_ij + 1/|S|^2 sum_{j, l in S} G_jl. The dot products may be float32:
// every quantity carries a bound on its rounding error, and the Decider learns when a comparison is too close.
#pragma once

#include <cstdint>
#include <vector>

#include "ball_hall.hpp"
#include "gram_kernels.hpp"
#include "rlsft/similarity.hpp"

namespace rlsft::isodata_detail {

template <typename T>
class GramSpace {
 public:
  static constexpr std::int64_t kMaxRows = 64;

  // n <= kMaxRows rows x [n, d]; `gram` was computed from them, unscaled, in float or double.
  template <typename G>
  void bind(const T* x, std::int64_t n, std::int64_t d, const GroupGram<G>& gram, Decider& decider);

  // The starting centres that starting_centers() would pick.
  void start(const IsodataOptions& options);

  Bounded overall_variance();

  std::int64_t count() const { return static_cast<std::int64_t>(centers_.size()); }
  void assign(std::int32_t* labels);
  void keep(const std::vector<std::uint8_t>& flags);
  void move_to_means(const std::vector<std::int32_t>& labels, const std::vector<std::int64_t>& sizes);
  Bounded total_variance(std::int64_t c) const;
  Widest widest(std::int64_t c);
  Bounded spread(std::int64_t c, bool squared) const;
  void split(std::int64_t c, std::int64_t axis, double step);
  Bounded center_distance(std::int64_t a, std::int64_t b);
  void lump(std::int64_t a, std::int64_t b, const std::vector<std::int64_t>& sizes);

  // The end of a run: `centers` [count, d] become the means of the labelled rows, rounded to T; labels the nearest of
  // those, -1 for noise; centres without a row go and the rest is renumbered. medoids: per centre left the member
  // nearest to it; tie: the higher score, then the lower row. Returns how many are left. Leaves nothing undecided.
  std::int64_t finish(const std::vector<std::uint8_t>& is_noise, const double* scores, std::int32_t* labels, T* centers,
                      std::int64_t* medoids);

 private:
  struct Center {
    std::int32_t set;
    double step = 0;  // moved by this along `column`
    std::int64_t column = -1;
  };

  const T* row(std::int64_t i) const { return x_ + i * d_; }
  double squared(std::int64_t i, std::int64_t j) const;
  double set_distance(std::int64_t set, std::int64_t i) const { return distances_[set * stride_ + i]; }
  void start_spread(std::int64_t wanted, SplitMix64 random);
  void start_random(std::int64_t wanted, SplitMix64 random);
  void start_at_rows();
  void update_sets(std::int64_t num_sets);
  void fill_distances();
  void fill_cross();
  void add_step(const Center& center, double* distances) const;
  void gather_members(std::int64_t set);
  bool is_clear(std::int64_t i, std::int32_t label, std::int64_t k, double margin) const;
  std::int32_t nearest_exactly(std::int64_t i, std::int64_t k, const T* centers);
  std::int64_t drop_unused(std::int64_t k, std::int32_t* labels, T* centers);
  std::int64_t find_medoid(std::int32_t c, const std::int32_t* labels, const T* centers, const double* scores,
                           double margin);

  const T* x_ = nullptr;
  std::int64_t n_ = 0, d_ = 0, stride_ = 0;
  Decider* decider_ = nullptr;
  const GramKernels<T>& kernels_ = gram_kernels<T>();
  double dot_error_ = 0;      // of a Gram entry, absolute
  double squared_error_ = 0;  // of a squared distance between points or means
  double rounding_error_ = 0; // of a squared distance, when its centre is rounded to T
  std::vector<Center> centers_;
  std::vector<double> gram_;              // [n, stride]
  std::vector<double> diagonal_;          // [stride]
  std::vector<std::int32_t> set_of_row_;  // [n], -1 for none
  std::vector<std::int64_t> set_size_;
  std::vector<double> sums_, self_;       // [sets, stride] sums over each set; [sets] |mean|^2
  std::vector<double> cross_;             // [sets, sets] sums between sets; empty until asked for
  std::vector<double> distances_;         // [sets, stride] from row to mean; for assign [centres, stride]
  std::vector<double> center_distances_;
  std::vector<double> columns_;           // [splits, stride] x_i minus the mean along the split coordinate
  bool is_stale_ = false;                 // set_of_row_ changed since update_sets
  std::vector<const T*> members_;
  std::vector<double> mean_, variance_, cumulative_, to_chosen_;
  std::vector<std::int64_t> chosen_;
  std::vector<std::int32_t> number_;
};

}  // namespace rlsft::isodata_detail
