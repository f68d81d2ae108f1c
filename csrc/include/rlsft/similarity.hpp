// Cosines and edge weights of groups of embeddings.
#pragma once

#include <cstdint>
#include <limits>

#include "rlsft/edges.hpp"
#include "rlsft/scratch.hpp"

namespace rlsft {

// The Gram matrix of one group, kept in scratch so that ranking and clustering can share one computation.
template <typename T>
class GroupGram {
 public:
  // Computes the dot products of m rows of d values, O(m^2 d). False when a value is NaN or inf. A row with extreme
  // values is first scaled by a power of two (row_exponent), so that squares neither overflow nor vanish.
  bool compute(const T* rows, std::int64_t m, std::int64_t d);

  // edges [m, ld()] = map(cosine), diagonal and padding 0; valid until the next compute().
  T* edges(EdgeMap map);

  std::int64_t ld() const { return ld_; }
  const T* gram() const { return gram_.data(); }                           // [m, ld] of the scaled rows
  const double* inverse_norms() const { return inverse_norms_.data(); }    // [ld] of the scaled rows, 0 for a zero row
  // cosine of rows i and j, within [-1, 1]
  double cosine(std::int64_t i, std::int64_t j) const;
  // dot product of the rows as given: gram * 2^(exponent_i + exponent_j)
  int row_exponent(std::int64_t i) const { return exponents_.data()[i]; }
  bool has_scaled_rows() const;
  // |gram(i, j) - x_i . x_j| <= relative_error() |x_i| |x_j|, for any order of summation
  double relative_error() const { return static_cast<double>(d_ + 8) * (std::numeric_limits<T>::epsilon() / 2); }

 private:
  bool pack(const T* rows, std::int64_t d, T* packed, std::int64_t d_padded);

  Scratch<T> packed_, gram_, edges_;
  Scratch<double> inverse_norms_;
  Scratch<int> exponents_;
  std::int64_t m_ = 0, d_ = 0, ld_ = 0;
};

// Start of each group's m x m block in a flat run of blocks: block_offsets [groups + 1].
void square_block_offsets(const std::int64_t* offsets, std::int64_t groups, std::int64_t* block_offsets);

// edges of every group as flat m x m blocks. offsets [groups + 1] cut rows [offsets[groups], d]. ok[g] is false where
// a value of group g is NaN or inf; its block is then left unwritten. O(sum m^2 d) time.
template <typename T>
void similarity_groups(const T* rows, std::int64_t d, const std::int64_t* offsets, std::int64_t groups, EdgeMap map,
                       int threads, T* edges, bool* ok);

// Nanoseconds one thread takes, roughly: what useful_threads() wants to know.
double estimated_gram_ns(const std::int64_t* offsets, std::int64_t groups, std::int64_t d);

}  // namespace rlsft
