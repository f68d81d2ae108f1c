// A small group as dot products: distances to means of its rows in O(n^2) a pass, whatever the dimension.
//
// With G the Gram matrix and S a set of rows: |x_i - mean|^2 = G_ii - 2/|S| sum_{j in S} G_ij + 1/|S|^2 sum_{j, l in S}
// G_jl. The dot products may be float32: every quantity carries a bound on its rounding error, and the Decider learns
// when a comparison is too close for it.
#pragma once

#include <cstdint>
#include <vector>

#include "bounded.hpp"
#include "gram_kernels.hpp"
#include "isodata_common.hpp"
#include "rlsft/similarity.hpp"

namespace rlsft::isodata_detail {

constexpr std::int64_t kMaxGramRows = 64;

// X: float or double, the type of the rows.
template <typename X>
class GramGroup {
 public:
  // n <= kMaxGramRows rows x [n, d], used until the next bind(); `gram` was computed from them, unscaled. With
  // `unit_rows` x is a copy scaled to unit length and `gram` may be that of the rows before: its cosines are used.
  template <typename G>
  void bind(const X* x, std::int64_t n, std::int64_t d, const GroupGram<G>& gram, bool unit_rows, Decider& decider);

  std::int64_t rows() const { return n_; }

  // Rows that starting_centers() would pick.
  const std::vector<std::int64_t>& choose_start(const IsodataOptions& options);

  // Variance of all rows, summed over coordinates.
  Bounded overall_variance() const;

  double dot(std::int64_t i, std::int64_t j) const { return gram_[i * stride_ + j]; }
  const double* dots(std::int64_t i) const { return gram_.data() + i * stride_; }
  double norm2(std::int64_t i) const { return diagonal_[i]; }
  const double* norms2() const { return diagonal_.data(); }  // [stride]
  double squared(std::int64_t i, std::int64_t j) const;
  const X* row(std::int64_t i) const { return x_ + i * d_; }

 protected:
  // Makes each set the rows i with set_of_row[i] == s, and fills sums_, self_, size_ and the distances to the means.
  void set_means(const std::int32_t* set_of_row, std::int64_t num_sets);
  // Sums of dot products between the members of two sets, [sets, sets].
  const std::vector<double>& cross_sums();
  double* distances(std::int64_t c) { return distances_.data() + c * stride_; }
  const double* distances(std::int64_t c) const { return distances_.data() + c * stride_; }
  void reserve_distances(std::int64_t k);
  void compute_mean(std::int64_t set);
  Widest widest_coordinate(std::int64_t set);

  // The end of a run. set_of_row [n] says which rows' mean each of the k centres is; `project` moves these to the unit
  // sphere, and distances(c) [k, stride] are those to the centres. Writes the centres, rounded to T; the nearest of
  // those for every row, -1 for noise; drops centres without a row and renumbers the rest; finds per centre the member
  // nearest to it (tie: the higher score, then the lower row). Returns how many are left. Leaves nothing undecided.
  template <typename T>
  std::int64_t finish(std::int64_t k, bool project, const std::uint8_t* is_noise, const double* scores,
                      std::int32_t* labels, T* centers, std::int64_t* medoids);

  const X* x_ = nullptr;
  std::int64_t n_ = 0, d_ = 0, stride_ = 0;
  Decider* decider_ = nullptr;
  const GramKernels<X>& kernels_ = gram_kernels<X>();
  double floor_ = 0;          // as in Rows
  double dot_error_ = 0;      // of a dot product, absolute
  double squared_error_ = 0;  // of a squared distance between rows or means
  double largest_ = 0;        // squared length of the longest row
  std::vector<std::int32_t> set_of_row_;  // [n], -1 for none
  std::vector<std::int64_t> size_;        // [sets]
  std::vector<double> sums_, self_;       // [sets, stride] sums of dot products over each set; [sets] |mean|^2
  std::vector<double> trace_;             // [sets] sum of the rows' squared lengths
  std::vector<double> distances_;         // [centres, stride] squared
  double center_error_ = 0;               // of distances_
  std::vector<double> mean_;              // [d] what compute_mean found

 private:
  void spread_start(std::int64_t wanted, SplitMix64 random);
  void random_start(std::int64_t wanted, SplitMix64 random);
  void round_mean(float* center) const;
  void round_mean(double* center) const;
  template <typename T>
  void widen(const T* center);
  template <typename T>
  std::int32_t nearest_exactly(std::int64_t i, std::int64_t k, const T* centers);
  bool is_clear(std::int64_t i, std::int32_t label, std::int64_t k, double margin) const;
  template <typename T>
  std::int64_t drop_unused(std::int64_t k, std::int32_t* labels, T* centers);
  template <typename T>
  std::int64_t find_medoid(std::int32_t c, const std::int32_t* labels, const T* center, const double* scores,
                           double margin);

  bool is_projected_ = false;
  double longest2_ = 0;                  // squared length of the longest centre at most
  std::vector<double> gram_, diagonal_;  // [n, stride], [stride]
  std::vector<double> cross_;            // empty until asked for
  std::vector<const X*> members_;
  std::vector<double> variance_, cumulative_, to_chosen_;
  std::vector<std::int64_t> chosen_;
  std::vector<std::int32_t> number_;
};

}  // namespace rlsft::isodata_detail
