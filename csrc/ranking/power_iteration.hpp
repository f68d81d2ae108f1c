// The eigenvector form of any graph: power iteration with its Katz branch, and how scores are written.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "rlsft/textrank.hpp"

namespace rlsft {

// Closer to 1 the eigenvector is what a singular Katz system falls back to: it must have converged by then.
constexpr double kSurelyBelow = 1.0 - 1e-9;

inline double l1_norm(std::int64_t n, const double* v) {
  double sum = 0.0;
  for (std::int64_t j = 0; j < n; ++j) sum += std::abs(v[j]);
  return sum;
}

// max_j y_j / x_j: an upper bound of rho for non-negative weights and positive x (Collatz, Wielandt).
inline double largest_growth(std::int64_t n, const double* x, const double* y) {
  double largest = 0.0;
  for (std::int64_t j = 0; j < n; ++j) {
    if (y[j] > largest * x[j]) largest = x[j] > 0.0 ? y[j] / x[j] : INFINITY;
  }
  return largest;
}

// x <- y + rho/4 x, normalised; y = W^T x is lost. The shift changes no eigenvector, and a bipartite graph does not
// oscillate.
inline double shifted_step(std::int64_t n, double rho, double* x, double* y) {
  for (std::int64_t j = 0; j < n; ++j) y[j] += 0.25 * rho * x[j];
  const double norm = l1_norm(n, y);
  double step = 0.0;
  for (std::int64_t j = 0; j < n; ++j) {
    const double next = y[j] / norm;
    step += std::abs(next - x[j]);
    x[j] = next;
  }
  return step;
}

// From x [n], positive and summing to 1: the principal eigenvector of W^T with L1 norm 1; or katz(outcome), as soon as
// a * rho <= 1 is certain, or when the converged rho says a * rho <= `katz_up_to`. apply(x, y): y = W^T x. y [n]: scratch.
template <typename Apply, typename Katz>
RankOutcome power_iteration(std::int64_t n, const RankOptions& options, bool has_negative_edges, double katz_up_to,
                            double* x, double* y, const Apply& apply, const Katz& katz) {
  RankOutcome outcome{0, INFINITY};
  double rho = 0.0;
  while (outcome.n_iter < options.max_iter && !(outcome.residual < options.tol)) {
    apply(x, y);
    rho = l1_norm(n, y);
    if (!std::isfinite(2.0 * rho)) return {kOverflow, 0.0};  // shifted_step() adds a quarter of rho
    ++outcome.n_iter;
    const bool certain = !has_negative_edges && options.damping * largest_growth(n, x, y) <= kSurelyBelow;
    if (certain || rho == 0.0) return katz(outcome);
    outcome.residual = shifted_step(n, rho, x, y);
  }
  if (outcome.residual < options.tol && options.damping * rho <= katz_up_to) return katz(outcome);
  return outcome;
}

// Writes x as the form wants it: summing to 1, or largest 1.
template <typename T>
void write_scores(std::int64_t n, const double* x, RankForm form, T* scores) {
  double scale = 1.0;
  if (form == RankForm::eigenvector) {
    const double largest = *std::max_element(x, x + n), smallest = *std::min_element(x, x + n);
    scale = -smallest > largest ? smallest : largest;  // an eigenvector has no sign of its own
  }
  for (std::int64_t i = 0; i < n; ++i) scores[i] = static_cast<T>(x[i] / scale);
}

}  // namespace rlsft
