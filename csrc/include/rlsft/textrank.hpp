// TextRank scores of many small dense graphs.
#pragma once

#include <cstdint>
#include <memory>

#include "rlsft/edges.hpp"
#include "rlsft/similarity.hpp"

namespace rlsft {

enum class RankForm {
  stochastic = 0,   // x_j = (1-a) v_j + a (sum_{i: s_i>0} x_i w_ij / s_i + D v_j), sum x = 1; D: mass of rows with s_i = 0
  eigenvector = 1,  // principal eigenvector of W^T, or (1-a)(I - a W^T)^-1 n v when a * rho(W) <= 1; largest score 1
};

// How the stochastic form is solved; the results agree within tol. The eigenvector form is always power iteration.
enum class RankMethod {
  automatic = 0,     // whichever is the fastest on graphs of this kind
  gauss_seidel = 1,  // in place, in node order, carrying the mass; its last sweep is Jacobi's, which measures the residual
  jacobi = 2,
};

struct RankOptions {
  double damping = 0.85;         // a
  double tol = 1e-10;            // stop when sum_j |x_j - previous x_j| < tol (scores summing to 1)
  std::int64_t max_iter = 1000;  // sweeps
  RankForm form = RankForm::stochastic;
  RankMethod method = RankMethod::automatic;
};

// What came out, one entry for each group.
struct RankOutcome {
  std::int64_t n_iter;  // sweeps done; kBadInput or kOverflow when nothing was computed
  double residual;      // L1 step of the last sweep; not converged when >= tol
};
constexpr std::int64_t kBadInput = -1;  // NaN, inf or a negative edge in this group
constexpr std::int64_t kOverflow = -2;  // eigenvector form: sums of the weights leave the range of double

// teleport and start (each may be null): [offsets[groups]], each group's part non-negative and summing to 1.
// Each group stops by itself: its bits depend neither on its neighbours nor on `threads`. Sums run in double. Nodes
// that the graph cannot tell apart (equal weights, equal teleport) get exactly equal scores.
// O(sum m^2 (d + sweeps)) time, O(max m (m + d)) memory for each thread. A group of more than 256 rows is shared by the
// threads; with shifted_cosine (in the eigenvector form with cosine too) it takes O(m d) time a sweep and O(m) memory.
template <typename T>
void textrank_embeddings(const T* rows,  // [offsets[groups], d]
                         std::int64_t d, const std::int64_t* offsets, std::int64_t groups, EdgeMap map,
                         const double* teleport, const double* start, const RankOptions& options, int threads,
                         T* scores,              // [offsets[groups]], out
                         RankOutcome* outcome);  // [groups], out

// Does for one group after another what textrank_embeddings() does, from dot products that the caller has computed:
// clustering can share them. One for each thread.
template <typename T>
class GramRanker {
 public:
  GramRanker(EdgeMap map, const RankOptions& options);
  ~GramRanker();
  // gram: of m rows; teleport and start [m] as above, or null; scores [m], out.
  RankOutcome rank(GroupGram<T>& gram, std::int64_t m, const double* teleport, const double* start, T* scores);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

template <typename T>
void textrank_dense(const T* weights,  // flat m x m blocks, row i holds the edges that leave i
                    const std::int64_t* offsets, std::int64_t groups, const double* teleport, const double* start,
                    const RankOptions& options, int threads, T* scores, RankOutcome* outcome);

}  // namespace rlsft
