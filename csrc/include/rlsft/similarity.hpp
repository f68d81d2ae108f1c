// Cosines and edge weights of groups of embeddings.
#pragma once

#include <cstdint>
#include <limits>

#include "rlsft/dense_kernels.hpp"
#include "rlsft/edges.hpp"
#include "rlsft/scratch.hpp"

namespace rlsft {

// The Gram matrix of one group, kept in scratch so that ranking and clustering can share one computation.
template <typename T>
class GroupGram {
 public:
  // Computes the dot products of m rows of d values, O(m^2 d). False when a value is NaN or inf. A row with extreme
  // values is first scaled by a power of two (row_exponent), so that squares neither overflow nor vanish.
  // `fetch_next`: another group of m rows follows in memory and is wanted next. Groups of more than a few hundred rows
  // use `threads`; the result does not depend on them.
  bool compute(const T* rows, std::int64_t m, std::int64_t d, bool fetch_next = false, int threads = 1);

  // edges [m, ld()] = map(cosine), diagonal and padding 0; valid until the next compute().
  T* edges(EdgeMap map);
  // For a large graph, in place of compute() and edges(): edges [m, ld()] of which only columns j >= i of row i are
  // made, in the memory of gram(). Null when a value is NaN or inf.
  T* upper_edges(const T* rows, std::int64_t m, std::int64_t d, EdgeMap map, int threads);
  const double* edge_sums() const { return sums_.data(); }  // [ld], sums of the columns (and rows), after edges()

  std::int64_t ld() const { return ld_; }
  const T* gram() const { return gram_.data(); }                           // [m, ld] of the scaled rows
  const double* inverse_norms() const { return inverse_norms_.data(); }    // [ld] of the scaled rows, 0 for a zero row
  // cosine of rows i and j, within [-1, 1]
  double cosine(std::int64_t i, std::int64_t j) const;
  // dot product of the rows as given: gram * 2^(exponent_i + exponent_j)
  int row_exponent(std::int64_t i) const { return exponents_.data()[i]; }
  bool has_scaled_rows() const;
  // |gram(i, j) - x_i . x_j| <= relative_error() |x_i| |x_j|: a lane rounds each of its products and sums, then a tree
  // of four additions follows
  double relative_error() const {
    const std::int64_t steps = round_up(d_, kLanes<T>) / kLanes<T>;
    return static_cast<double>(2 * steps + 8) * (std::numeric_limits<T>::epsilon() / 2);
  }

 private:
  bool compute_in_place(const T* rows, std::int64_t m, std::int64_t d, const T* next);
  bool pack(const T* rows, std::int64_t d, T* packed, std::int64_t d_padded, std::int64_t stride);
  void multiply(const T* rows, std::int64_t m_padded, std::int64_t d_padded, std::int64_t stride, const T* next,
                int threads, bool mirror);
  void mirror_upper(int threads);
  bool compute_part(const T* rows, std::int64_t m, std::int64_t d, bool fetch_next, int threads, bool mirror);

  Scratch<T> packed_, gram_, edges_;
  Scratch<double> inverse_norms_, sums_;
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
