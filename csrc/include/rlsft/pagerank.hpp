// PageRank of one large sparse graph: x_j = (1-a) v_j + a (sum_{i: s_i>0} x_i w_ij / s_i + D d_j), sum x = 1, with edges
// w_ij from i to j, s_i = sum_j w_ij, teleport v, D the sum of x_i over nodes with s_i = 0, and d where that mass goes.
#pragma once

#include <cstdint>

namespace rlsft {

enum class EdgeOrder {
  csr = 0,  // pointers[i] .. pointers[i+1] are the edges that leave i, ends[] their targets
  csc = 1,  // pointers[j] .. pointers[j+1] are the edges that enter j, ends[] their sources
  coo = 2,  // edge e runs from starts[e] to ends[e]
};

// Borrowed arrays, used as they are. Repeated edges count as one edge with the sum of their weights.
struct SparseGraph {
  std::int64_t n, edges;
  EdgeOrder order;
  const std::int64_t* pointers;  // [n + 1]; null with coo
  const std::int32_t* starts;    // [edges]; coo alone
  const std::int32_t* ends;      // [edges]
  const float* weights32;        // [edges], or null
  const double* weights64;       // [edges], or null; all weights are 1 when both are null
};

enum class GraphFault { none = 0, pointers, starts, ends, weights };

// What is wrong with a graph and the first place of it: an entry of pointers, or an edge.
struct GraphCheck {
  GraphFault fault;
  std::int64_t position;
  bool equal_weights;  // there are weights, and all are the same positive number: scores need none then
};

// Pointers rise from 0 to `edges`, node ids lie in [0, n), weights are finite and not negative. O(n + edges).
// The position does not depend on `threads`.
GraphCheck check_graph(const SparseGraph& graph, int threads);

// int64 node ids as int32. Returns the position of the first id outside [0, n), or -1. Needs n < 2^31.
std::int64_t narrow_ids(const std::int64_t* ids, std::int64_t count, std::int64_t n, int threads, std::int32_t* out);

enum class SweepMethod {
  gauss_seidel = 0,  // newest values, in rounds that do not depend on `threads`; carries the mass of the last sweep
  jacobi = 1,        // values of the last sweep alone
};

struct PagerankOptions {
  double damping = 0.85;        // a, in [0, 1)
  double tol = 1e-8;            // stop when sum_j |x_j - previous x_j| < tol (scores summing to 1)
  std::int64_t max_iter = 200;  // sweeps
  SweepMethod method = SweepMethod::gauss_seidel;
};

struct PagerankOutcome {
  std::int64_t n_iter;  // sweeps done
  double residual;      // L1 step of the last sweep; not converged when >= tol
  double build_ms;      // in-edge layout: the transpose and the ordering of the rows
  double sweep_ms;
};

// teleport, dangling, start: [n], not negative, each summing to 1; null is uniform, the teleport, and a guess from the
// in-degrees. `graph` must have passed check_graph, and n < 2^31 - 64.
// Scores and sums are float64; while the step is above 1e-6, large graphs gather float32 copies.
// The bits of the scores depend on the method, but not on `threads`.
// O(n + edges * sweeps) time; memory: 4 bytes an edge (plus its weight), about 56 bytes a node, and 4 bytes a node for
// each thread.
PagerankOutcome pagerank(const SparseGraph& graph, const double* teleport, const double* dangling, const double* start,
                         const PagerankOptions& options, int threads,
                         double* scores);  // [n], out

}  // namespace rlsft
