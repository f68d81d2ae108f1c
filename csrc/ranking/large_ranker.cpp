#include "large_ranker.hpp"

#include <algorithm>
#include <cmath>

namespace rlsft {
namespace {

constexpr double kSurelyBelow = 1.0 - 1e-9;  // as in GroupRanker

double l1_norm(const std::vector<double>& v) {
  double sum = 0.0;
  for (const double value : v) sum += std::abs(value);
  return sum;
}

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

// max_j y_j / x_j bounds rho for non-negative weights and positive x (Collatz, Wielandt).
double largest_growth(std::int64_t n, const double* x, const std::vector<double>& y) {
  double largest = 0.0;
  for (std::int64_t j = 0; j < n; ++j) {
    if (y[j] > largest * x[j]) largest = x[j] > 0.0 ? y[j] / x[j] : INFINITY;
  }
  return largest;
}

// x <- W^T x + rho/4 x, normalised: the shift changes no eigenvector, and a bipartite graph does not oscillate.
double shifted_step(std::vector<double>& y, double rho, double* x) {
  for (std::size_t j = 0; j < y.size(); ++j) y[j] += 0.25 * rho * x[j];
  const double norm = l1_norm(y);
  double step = 0.0;
  for (std::size_t j = 0; j < y.size(); ++j) {
    const double next = y[j] / norm;
    step += std::abs(next - x[j]);
    x[j] = next;
  }
  return step;
}

}  // namespace

RankOutcome large_eigenvector(LargeGraph& graph, const RankOptions& options, const double* teleport, double* x) {
  std::vector<double> y(static_cast<std::size_t>(graph.n));
  RankOutcome outcome{0, INFINITY};
  double rho = 0.0;
  while (outcome.n_iter < options.max_iter && !(outcome.residual < options.tol)) {
    graph.apply(x, y.data());
    rho = l1_norm(y);
    if (!std::isfinite(2.0 * rho)) return {kOverflow, 0.0};
    ++outcome.n_iter;
    const bool certain = !graph.has_negative_edges && options.damping * largest_growth(graph.n, x, y) <= kSurelyBelow;
    if (certain || rho == 0.0) return katz_sweeps(graph, options, teleport, x, outcome);
    outcome.residual = shifted_step(y, rho, x);
  }
  if (outcome.residual < options.tol && options.damping * rho <= kSurelyBelow) {
    return katz_sweeps(graph, options, teleport, x, outcome);
  }
  return outcome;
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

template <typename T>
void write_scores(const std::vector<double>& x, RankForm form, T* scores) {
  double scale = 1.0;
  if (form == RankForm::eigenvector) {
    const auto [smallest, largest] = std::minmax_element(x.begin(), x.end());
    scale = -*smallest > *largest ? *smallest : *largest;  // an eigenvector has no sign of its own
  }
  for (std::size_t i = 0; i < x.size(); ++i) scores[i] = static_cast<T>(x[i] / scale);
}
template void write_scores<float>(const std::vector<double>&, RankForm, float*);
template void write_scores<double>(const std::vector<double>&, RankForm, double*);

}  // namespace rlsft
