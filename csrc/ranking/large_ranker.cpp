#include "large_ranker.hpp"

#include <algorithm>
#include <cmath>

#include "power_iteration.hpp"

namespace rlsft {
namespace {

RankOutcome katz_sweeps(LargeGraph& graph, const RankOptions& options, const double* teleport, double* x,
                        RankOutcome outcome) {
  std::vector<double> y(static_cast<std::size_t>(graph.n));
  std::copy(teleport, teleport + graph.n, x);
  outcome.residual = INFINITY;
  double norm = 1.0;
  while (outcome.n_iter < options.max_iter && !(outcome.residual < options.tol)) {
    graph.apply(x, y.data());
    double step = 0.0;
    norm = 0.0;
    for (std::int64_t j = 0; j < graph.n; ++j) {
      const double next = options.damping * y[j] + teleport[j];
      step += std::abs(next - x[j]);
      norm += std::abs(next);
      x[j] = next;
    }
    ++outcome.n_iter;
    outcome.residual = step / norm;
  }
  for (std::int64_t j = 0; j < graph.n; ++j) x[j] /= norm;
  return outcome;
}

}  // namespace

RankOutcome large_eigenvector(LargeGraph& graph, const RankOptions& options, const double* teleport, double* x) {
  std::vector<double> scratch(static_cast<std::size_t>(graph.n));
  const auto apply = [&](const double* u, double* y) { graph.apply(u, y); };
  const auto katz = [&](RankOutcome outcome) { return katz_sweeps(graph, options, teleport, x, outcome); };
  return power_iteration(graph.n, options, graph.has_negative_edges, kSurelyBelow, x, scratch.data(), apply, katz);
}

RankOutcome large_jacobi(LargeGraph& graph, const RankOptions& options, const std::vector<double>& inverse,
                         const std::vector<double>& teleport, std::vector<double>& x, std::int64_t done) {
  const double a = options.damping;
  std::vector<double> u(x.size()), y(x.size());
  RankOutcome outcome{done, INFINITY};
  while (outcome.n_iter < options.max_iter && !(outcome.residual < options.tol)) {
    double dangling = 0.0, step = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      u[i] = x[i] * inverse[i];
      dangling += inverse[i] == 0.0 ? x[i] : 0.0;
    }
    graph.apply(u.data(), y.data());
    for (std::size_t j = 0; j < x.size(); ++j) {
      const double next = (1.0 - a) * teleport[j] + a * (y[j] + dangling * teleport[j]);
      step += std::abs(next - x[j]);
      x[j] = next;
    }
    ++outcome.n_iter;
    outcome.residual = step;
  }
  return outcome;
}

}  // namespace rlsft
