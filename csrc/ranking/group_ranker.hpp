// TextRank of one small dense graph after another, in one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "iteration_start.hpp"
#include "power_iteration.hpp"
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
      first_guess(graph.m, sums_.data(), v_.data(), start, options_.damping, symmetric, x_.data());
      outcome = iterate_stochastic(graph);
    } else {
      first_guess(graph.m, sums_.data(), v_.data(), start, options_.damping, false, x_.data());
      make_positive(graph.m, x_.data());
      outcome = iterate_eigenvector(graph);
    }
    if (outcome.n_iter < 0) return outcome;
    equalise_twins(graph, start == nullptr);
    write_scores(graph.m, x_.data(), options_.form, scores);
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

  // Row scaling by a power of two leaves a row's probabilities as they are, and keeps 1 / sum inside double's range.
  Graph<T> rescale_extreme_rows(const Graph<T>& graph) {
    if (std::none_of(sums_.data(), sums_.data() + graph.m, is_extreme_sum)) return graph;
    std::copy(graph.weights, graph.weights + graph.m * graph.ld, rescaled_.reserve(graph.m * graph.ld));
    for (std::int64_t i = 0; i < graph.m; ++i) {
      if (!is_extreme_sum(sums_[i])) continue;
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

  RankOutcome iterate_eigenvector(const Graph<T>& graph) {
    const auto apply = [&](const double* x, double* y) {
      kernels_.sweep(graph.weights, graph.m, graph.ld, 0, graph.m, x, y);
    };
    // near a * rho = 1 sweeps hardly converge: a group is small enough to be solved exactly, and the solution tells
    const auto katz = [&](RankOutcome outcome) { return katz_direct(graph, outcome); };
    return power_iteration(graph.m, options_, allows_negative_, 1.0, x_.data(), y_.data(), apply, katz);
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
      const double norm = l1_norm(m, y_.data());
      for (std::int64_t j = 0; j < m; ++j) x_[j] = y_[j] / norm;
    }
    return {outcome.n_iter, 0.0};
  }

  // A finite solution y of the Katz system without negative entries (rounding is cut off). Otherwise a * rho was 1, or
  // above 1 by less than power iteration could tell, and the eigenvector is the limit.
  bool is_katz(std::int64_t m) {
    const double norm = l1_norm(m, y_.data());
    if (!std::isfinite(norm)) return false;
    for (std::int64_t j = 0; j < m && !allows_negative_; ++j) {
      if (y_[j] < -1e-12 * norm) return false;
      y_[j] = std::max(y_[j], 0.0);
    }
    return true;
  }

  // Rounding may depend on where a node's own zero stands in the sum. Equal responses must still tie exactly. From an
  // uneven start twins also differ by what the iteration left over. Twins share their mean: the sum stays, and no node
  // is favoured for its place.
  void equalise_twins(const Graph<T>& graph, bool even_start) {
    const double near = twin_distance(even_start, options_.tol);
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

  const RankOptions options_;
  const SweepKernels<T>& kernels_ = sweep_kernels<T>();
  bool allows_negative_ = false;
  Vector sums_, x_, u_, y_, v_;  // [ld], 0 behind m
  std::vector<double> matrix_;
  Scratch<T> rescaled_;
  std::vector<std::int64_t> first_twin_;
};

}  // namespace rlsft
