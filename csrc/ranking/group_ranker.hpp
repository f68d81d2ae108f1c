// TextRank of one small dense graph after another, in one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "rlsft/dense_kernels.hpp"
#include "rlsft/linear_solve.hpp"
#include "rlsft/scratch.hpp"
#include "rlsft/textrank.hpp"
#include "sweep_kernels.hpp"

namespace rlsft {

// One dense graph: weights [m, ld], 64-byte aligned, ld a multiple of 8, columns m..ld-1 zero.
template <typename T>
struct Graph {
  const T* weights;
  std::int64_t m, ld;
};

// Ranks one small graph after another, reusing its memory.
template <typename T>
class GroupRanker {
 public:
  explicit GroupRanker(const RankOptions& options) : options_(options) {}

  // `sums` of the rows; `symmetric`: they are the sums of the columns too.
  RankOutcome rank(Graph<T> graph, const double* sums, const double* teleport, const double* start, bool symmetric,
                   T* scores) {
    if (graph.m == 0) return {0, 0.0};
    prepare(graph, sums, teleport);
    RankOutcome outcome;
    if (options_.form == RankForm::stochastic) {
      graph = rescale_extreme_rows(graph);
      set_start(graph.m, start, symmetric);
      outcome = iterate_stochastic(graph);
    } else {
      set_start(graph.m, start, false);
      make_positive(graph.m);
      outcome = iterate_eigenvector(graph);
    }
    if (outcome.n_iter < 0) return outcome;
    equalise_twins(graph, start == nullptr);
    write(graph.m, scores);
    return outcome;
  }

  // Raw cosines in the eigenvector form: a study, not a ranking.
  void allow_negative_edges() { allows_negative_ = true; }

 private:
  struct Vector : Scratch<double> {
    double& operator[](std::int64_t i) { return data()[i]; }
    double operator[](std::int64_t i) const { return data()[i]; }
  };

  void prepare(const Graph<T>& graph, const double* sums, const double* teleport) {
    const std::int64_t m = graph.m;
    for (Vector* vector : {&sums_, &x_, &u_, &y_, &v_}) {
      double* values = vector->reserve(graph.ld);
      std::fill(values + m, values + graph.ld, 0.0);
    }
    std::copy(sums, sums + m, sums_.data());
    if (teleport != nullptr) std::copy(teleport, teleport + m, v_.data());
    else std::fill_n(v_.data(), m, 1.0 / static_cast<double>(m));
  }

  void set_start(std::int64_t m, const double* start, bool symmetric) {
    double total = 0.0;
    for (std::int64_t i = 0; i < m; ++i) total += sums_[i];
    // the stationary vector of a symmetric graph without damping is its degree: a start that saves sweeps
    const bool by_degree = symmetric && start == nullptr && total > 0.0;
    for (std::int64_t i = 0; i < m; ++i) {
      const double a = options_.damping;
      x_[i] = start != nullptr ? start[i] : by_degree ? a * (sums_[i] / total) + (1.0 - a) * v_[i] : v_[i];
    }
  }

  // Power iteration that starts without a share of some node may find another eigenvector, and the bound of
  // largest_growth() needs positive x.
  void make_positive(std::int64_t m) {
    if (std::none_of(x_.data(), x_.data() + m, [](double x) { return x == 0.0; })) return;
    for (std::int64_t i = 0; i < m; ++i) x_[i] = 0.5 * x_[i] + 0.5 / static_cast<double>(m);
  }

  // Row scaling by a power of two leaves a row's probabilities as they are, and keeps 1 / sum inside double's range.
  Graph<T> rescale_extreme_rows(const Graph<T>& graph) {
    constexpr double kSmall = 1e-280, kLarge = 1e280;
    const auto extreme = [](double sum) { return sum != 0.0 && !(sum >= kSmall && sum <= kLarge); };
    if (std::none_of(sums_.data(), sums_.data() + graph.m, extreme)) return graph;
    std::copy(graph.weights, graph.weights + graph.m * graph.ld, rescaled_.reserve(graph.m * graph.ld));
    for (std::int64_t i = 0; i < graph.m; ++i) {
      if (!extreme(sums_[i])) continue;
      T* row = rescaled_.data() + i * graph.ld;
      const int exponent = std::ilogb(*std::max_element(row, row + graph.m));
      for (std::int64_t j = 0; j < graph.m; ++j) row[j] = static_cast<T>(std::ldexp(static_cast<double>(row[j]), -exponent));
    }
    kernels_.row_sums(rescaled_.data(), 0, graph.m, graph.m, graph.ld, sums_.data());
    return {rescaled_.data(), graph.m, graph.ld};
  }

  RankOutcome iterate_stochastic(const Graph<T>& graph) {
    for (std::int64_t i = 0; i < graph.m; ++i) sums_[i] = sums_[i] > 0.0 ? 1.0 / sums_[i] : 0.0;
    const PaddedGraph<T> padded{graph.weights, graph.m, graph.ld, sums_.data(), v_.data()};
    SweepLimits limits{options_.damping, options_.tol, options_.max_iter};
    RankOutcome outcome{0, INFINITY};
    std::int64_t before = 0;
    if (options_.method == RankMethod::gauss_seidel) {
      // the last sweep is Jacobi's: its step bounds the error, that of Gauss-Seidel does not
      limits.max_iter -= 1;
      before = kernels_.iterate_in_place(padded, limits, x_.data(), y_.data(), &outcome.residual);
      limits.max_iter -= before - 1;
    }
    outcome.n_iter = before + kernels_.iterate(padded, limits, x_.data(), u_.data(), y_.data(), &outcome.residual);
    return outcome;
  }

  // Closer to 1 the eigenvector is what a singular Katz system falls back to: it must have converged by then.
  static constexpr double kSurelyBelow = 1.0 - 1e-9;

  // Power iteration, with the two ways out: Katz as soon as a * rho <= 1 is certain, the eigenvector otherwise.
  RankOutcome iterate_eigenvector(const Graph<T>& graph) {
    RankOutcome outcome{0, INFINITY};
    double rho = 0.0;
    while (outcome.n_iter < options_.max_iter && !(outcome.residual < options_.tol)) {
      kernels_.sweep(graph.weights, graph.m, graph.ld, 0, graph.m, x_.data(), y_.data());
      rho = l1_norm(graph.m, y_);
      if (!std::isfinite(2.0 * rho)) return {kOverflow, 0.0};  // shifted_step() adds a quarter of rho
      ++outcome.n_iter;
      if (!allows_negative_ && options_.damping * largest_growth(graph.m) <= kSurelyBelow) return katz(graph, outcome);
      if (rho == 0.0) return katz(graph, outcome);
      outcome.residual = shifted_step(graph.m, rho);
    }
    if (outcome.residual < options_.tol && options_.damping * rho <= 1.0) return katz(graph, outcome);
    return outcome;
  }

  static double l1_norm(std::int64_t m, const Vector& v) {
    double sum = 0.0;
    for (std::int64_t j = 0; j < m; ++j) sum += std::abs(v[j]);
    return sum;
  }

  // max_j y_j / x_j: an upper bound of rho for non-negative weights and positive x (Collatz, Wielandt).
  double largest_growth(std::int64_t m) const {
    double largest = 0.0;
    for (std::int64_t j = 0; j < m; ++j) {
      if (y_[j] > largest * x_[j]) largest = x_[j] > 0.0 ? y_[j] / x_[j] : INFINITY;
    }
    return largest;
  }

  // x <- W^T x + rho/4 x, normalised. The shift changes no eigenvector, and a bipartite graph no longer oscillates.
  double shifted_step(std::int64_t m, double rho) {
    for (std::int64_t j = 0; j < m; ++j) y_[j] += 0.25 * rho * x_[j];
    const double norm = l1_norm(m, y_);
    double step = 0.0;
    for (std::int64_t j = 0; j < m; ++j) {
      const double next = y_[j] / norm;
      step += std::abs(next - x_[j]);
      x_[j] = next;
    }
    return step;
  }

  RankOutcome katz(const Graph<T>& graph, RankOutcome outcome) {
    constexpr std::int64_t kDirect = 256;  // near a * rho = 1 sweeps hardly converge; small graphs are solved exactly
    return graph.m <= kDirect ? katz_direct(graph, outcome) : katz_sweeps(graph, outcome);
  }

  RankOutcome katz_direct(const Graph<T>& graph, RankOutcome outcome) {
    const std::int64_t m = graph.m;
    matrix_.assign(static_cast<std::size_t>(m * m), 0.0);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < m; ++j) {
        matrix_[j * m + i] = (i == j ? 1.0 : 0.0) - options_.damping * static_cast<double>(graph.weights[i * graph.ld + j]);
      }
    }
    std::copy(v_.data(), v_.data() + m, y_.data());
    if (solve_in_place(matrix_.data(), y_.data(), m) && is_katz(m)) {
      const double norm = l1_norm(m, y_);
      for (std::int64_t j = 0; j < m; ++j) x_[j] = y_[j] / norm;
    }
    return {outcome.n_iter, 0.0};
  }

  // A finite solution y of the Katz system without negative entries (rounding is cut off). Otherwise a * rho was 1, or
  // above 1 by less than power iteration could tell, and the eigenvector is the limit.
  bool is_katz(std::int64_t m) {
    const double norm = l1_norm(m, y_);
    if (!std::isfinite(norm)) return false;
    for (std::int64_t j = 0; j < m && !allows_negative_; ++j) {
      if (y_[j] < -1e-12 * norm) return false;
      y_[j] = std::max(y_[j], 0.0);
    }
    return true;
  }

  RankOutcome katz_sweeps(const Graph<T>& graph, RankOutcome outcome) {
    std::copy(v_.data(), v_.data() + graph.m, x_.data());
    outcome.residual = INFINITY;
    while (outcome.n_iter < options_.max_iter && !(outcome.residual < options_.tol)) {
      kernels_.sweep(graph.weights, graph.m, graph.ld, 0, graph.m, x_.data(), y_.data());
      double step = 0.0, total = 0.0;
      for (std::int64_t j = 0; j < graph.m; ++j) {
        const double next = options_.damping * y_[j] + v_[j];
        step += std::abs(next - x_[j]);
        total += next;
        x_[j] = next;
      }
      ++outcome.n_iter;
      outcome.residual = step / total;
    }
    const double norm = l1_norm(graph.m, x_);
    for (std::int64_t j = 0; j < graph.m; ++j) x_[j] /= norm;
    return outcome;
  }

  // Rounding may depend on where a node's own zero stands in the sum. Equal responses must still tie exactly. From an
  // uneven start twins also differ by what the iteration left over. Twins share their mean: the sum stays, and no node
  // is favoured for its place.
  void equalise_twins(const Graph<T>& graph, bool even_start) {
    const double near = even_start ? 1e-12 : 1e-12 + 10.0 * options_.tol;
    first_twin_.resize(static_cast<std::size_t>(graph.m));
    bool found = false;
    for (std::int64_t k = 0; k < graph.m; ++k) {
      first_twin_[k] = k;
      int close = 0;
      for (std::int64_t i = 0; i < k; ++i) close |= std::abs(x_[i] - x_[k]) <= near;
      for (std::int64_t i = 0; close != 0 && i < k; ++i) {
        if (first_twin_[i] == i && std::abs(x_[i] - x_[k]) <= near && v_[i] == v_[k] && twins(graph, i, k)) {
          first_twin_[k] = i;
          found = true;
          break;
        }
      }
    }
    if (found) share_means(graph.m);
  }

  void share_means(std::int64_t m) {
    for (std::int64_t k = 0; k < m; ++k) y_[k] = u_[k] = 0.0;  // sums and sizes of the classes
    for (std::int64_t k = 0; k < m; ++k) {
      y_[first_twin_[k]] += x_[k];
      u_[first_twin_[k]] += 1.0;
    }
    for (std::int64_t k = 0; k < m; ++k) x_[k] = y_[first_twin_[k]] / u_[first_twin_[k]];
  }

  static bool twins(const Graph<T>& graph, std::int64_t i, std::int64_t k) {
    const T* w = graph.weights;
    const std::int64_t ld = graph.ld;
    if (w[i * ld + k] != w[k * ld + i] || w[i * ld + i] != w[k * ld + k]) return false;
    for (std::int64_t j = 0; j < graph.m; ++j) {
      if (j == i || j == k) continue;
      if (w[i * ld + j] != w[k * ld + j] || w[j * ld + i] != w[j * ld + k]) return false;
    }
    return true;
  }

  void write(std::int64_t m, T* scores) const {
    double scale = 1.0;
    if (options_.form == RankForm::eigenvector) {
      const double largest = *std::max_element(x_.data(), x_.data() + m);
      const double smallest = *std::min_element(x_.data(), x_.data() + m);
      scale = -smallest > largest ? smallest : largest;  // an eigenvector has no sign of its own
    }
    for (std::int64_t i = 0; i < m; ++i) scores[i] = static_cast<T>(x_[i] / scale);
  }

  const RankOptions options_;
  const SweepKernels<T>& kernels_ = sweep_kernels<T>();
  bool allows_negative_ = false;
  Vector sums_, x_, u_, y_, v_;  // [ld], 0 behind m
  std::vector<double> matrix_;
  Scratch<T> rescaled_;
  std::vector<std::int64_t> first_twin_;
};

}  // namespace rlsft
