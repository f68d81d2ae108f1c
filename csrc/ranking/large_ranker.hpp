// TextRank of one large graph, all threads inside the graph. Every sum has an order that depends on n alone, so the
// number of threads changes no bit.
#pragma once

#include <cstdint>
#include <vector>

#include "rlsft/edges.hpp"
#include "rlsft/textrank.hpp"

namespace rlsft {

// From this size on a group is ranked here. Below it one thread does a whole group.
constexpr std::int64_t kLargeGroup = 256;

// A graph as what power iteration needs of it.
class LargeGraph {
 public:
  virtual ~LargeGraph() = default;
  virtual void apply(const double* u, double* y) = 0;  // y = W^T u, [n] each
  // Groups of nodes that the graph cannot tell apart share their mean: x of such nodes within `near` of each other.
  virtual void equalise_twins(double* x, const double* teleport, double near) = 0;

  std::int64_t n = 0;
  bool has_negative_edges = false;
};

// The eigenvector form, with its Katz branch, of any graph. x [n] in: a positive start summing to 1; out: L1 norm 1.
RankOutcome large_eigenvector(LargeGraph& graph, const RankOptions& options, const double* teleport, double* x);

// The stochastic form by Jacobi sweeps of any graph. inverse [n]: 1 / row sum, 0 for a row without edges; x [n] in: the
// first guess; out: the scores. `done` sweeps were made before.
RankOutcome large_jacobi(LargeGraph& graph, const RankOptions& options, const std::vector<double>& inverse,
                         const std::vector<double>& teleport, std::vector<double>& x, std::int64_t done);

// Which entries of a matrix exist. `upper`: it is symmetric, and only columns j >= i of row i are read.
enum class Stored { all, upper };

// An explicit graph: weights [n, ld], row i holds the edges that leave i. O(n^2) a sweep; a symmetric one is found out,
// and half of it read. gauss_seidel needs all entries.
template <typename T>
RankOutcome rank_large_dense(const T* weights, std::int64_t n, std::int64_t ld, Stored stored,
                             bool allow_negative,
                             const double* teleport, const double* start, const RankOptions& options, int threads,
                             T* scores);

// Shifted or raw cosines without their n x n matrix: W = b (1 1^T - I) + c (X X^T - diag), X the unit rows. O(n d) time
// a sweep, O(n + d) memory. False, with nothing done, when squares of the rows leave the range of double.
template <typename T>
bool rank_large_cosine(const T* rows, std::int64_t n, std::int64_t d, EdgeMap map, const double* teleport,
                       const double* start, const RankOptions& options, int threads, T* scores, RankOutcome* outcome);

}  // namespace rlsft
