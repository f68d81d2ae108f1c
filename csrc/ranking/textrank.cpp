#include "rlsft/textrank.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "rlsft/dense_kernels.hpp"
#include "rlsft/linear_solve.hpp"
#include "rlsft/parallel.hpp"
#include "rlsft/similarity.hpp"

namespace rlsft {
namespace {

// One dense graph: weights [m, ld]; columns m..ld-1 are zero when `padded`.
template <typename T>
struct Graph {
  const T* weights;
  std::int64_t m, ld, columns;
};

// Ranks one graph after another, reusing its memory.
template <typename T>
class GroupRanker {
 public:
  explicit GroupRanker(const RankOptions& options) : options_(options) {}

  RankOutcome rank(Graph<T> graph, const double* teleport, const double* start, bool symmetric, T* scores) {
    if (graph.m == 0) return {0, 0.0};
    prepare(graph.m, teleport);
    const bool valid = kernels_.row_sums(graph.weights, graph.m, graph.ld, sums_.data());
    if (!valid && !allows_negative_) return {kBadInput, 0.0};
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
  void prepare(std::int64_t m, const double* teleport) {
    const auto size = static_cast<std::size_t>(round_up(m, kLanes<float>));
    for (std::vector<double>* v : {&sums_, &x_, &u_, &y_, &v_}) v->assign(size, 0.0);
    for (std::int64_t j = 0; j < m; ++j) v_[j] = teleport != nullptr ? teleport[j] : 1.0 / static_cast<double>(m);
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
    if (std::none_of(x_.begin(), x_.begin() + m, [](double x) { return x == 0.0; })) return;
    for (std::int64_t i = 0; i < m; ++i) x_[i] = 0.5 * x_[i] + 0.5 / static_cast<double>(m);
  }

  // Row scaling by a power of two leaves a row's probabilities as they are, and keeps 1 / sum inside double's range.
  Graph<T> rescale_extreme_rows(const Graph<T>& graph) {
    constexpr double kSmall = 1e-280, kLarge = 1e280;
    const auto extreme = [](double sum) { return sum != 0.0 && !(sum >= kSmall && sum <= kLarge); };
    if (std::none_of(sums_.begin(), sums_.begin() + graph.m, extreme)) return graph;
    rescaled_.assign(graph.weights, graph.weights + graph.m * graph.ld);
    for (std::int64_t i = 0; i < graph.m; ++i) {
      if (!extreme(sums_[i])) continue;
      T* row = rescaled_.data() + i * graph.ld;
      const int exponent = std::ilogb(*std::max_element(row, row + graph.m));
      for (std::int64_t j = 0; j < graph.m; ++j) row[j] = static_cast<T>(std::ldexp(static_cast<double>(row[j]), -exponent));
    }
    kernels_.row_sums(rescaled_.data(), graph.m, graph.ld, sums_.data());
    return {rescaled_.data(), graph.m, graph.ld, graph.columns};
  }

  RankOutcome iterate_stochastic(const Graph<T>& graph) {
    const double a = options_.damping;
    for (std::int64_t i = 0; i < graph.m; ++i) sums_[i] = sums_[i] > 0.0 ? 1.0 / sums_[i] : 0.0;
    RankOutcome outcome{0, INFINITY};
    while (outcome.n_iter < options_.max_iter && !(outcome.residual < options_.tol)) {
      double dangling = 0.0;
      for (std::int64_t i = 0; i < graph.m; ++i) {
        u_[i] = x_[i] * sums_[i];
        dangling += sums_[i] == 0.0 ? x_[i] : 0.0;
      }
      kernels_.sweep(graph.weights, graph.m, graph.columns, graph.ld, u_.data(), y_.data());
      double step = 0.0;
      for (std::int64_t j = 0; j < graph.m; ++j) {
        const double next = (1.0 - a) * v_[j] + a * (y_[j] + dangling * v_[j]);
        step += std::abs(next - x_[j]);
        x_[j] = next;
      }
      ++outcome.n_iter;
      outcome.residual = step;
    }
    return outcome;
  }

  // Closer to 1 the eigenvector is what a singular Katz system falls back to: it must have converged by then.
  static constexpr double kSurelyBelow = 1.0 - 1e-9;

  // Power iteration, with the two ways out: Katz as soon as a * rho <= 1 is certain, the eigenvector otherwise.
  RankOutcome iterate_eigenvector(const Graph<T>& graph) {
    RankOutcome outcome{0, INFINITY};
    double rho = 0.0;
    while (outcome.n_iter < options_.max_iter && !(outcome.residual < options_.tol)) {
      kernels_.sweep(graph.weights, graph.m, graph.columns, graph.ld, x_.data(), y_.data());
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

  static double l1_norm(std::int64_t m, const std::vector<double>& v) {
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
    y_ = v_;
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
    x_ = v_;
    outcome.residual = INFINITY;
    while (outcome.n_iter < options_.max_iter && !(outcome.residual < options_.tol)) {
      kernels_.sweep(graph.weights, graph.m, graph.columns, graph.ld, x_.data(), y_.data());
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
      const double largest = *std::max_element(x_.begin(), x_.begin() + m);
      const double smallest = *std::min_element(x_.begin(), x_.begin() + m);
      scale = -smallest > largest ? smallest : largest;  // an eigenvector has no sign of its own
    }
    for (std::int64_t i = 0; i < m; ++i) scores[i] = static_cast<T>(x_[i] / scale);
  }

  const RankOptions options_;
  const DenseKernels<T>& kernels_ = dense_kernels<T>();
  bool allows_negative_ = false;
  std::vector<double> sums_, x_, u_, y_, v_, matrix_;
  std::vector<T> rescaled_;
  std::vector<std::int64_t> first_twin_;
};

const double* part(const double* all, std::int64_t begin) { return all == nullptr ? nullptr : all + begin; }

double estimated_sweeps_ns(const std::int64_t* offsets, std::int64_t groups) {
  double ns = 0.0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const double m = static_cast<double>(offsets[g + 1] - offsets[g]);
    ns += 10.0 * (m * m / 4.0 + 20.0);
  }
  return ns;
}

}  // namespace

template <typename T>
void textrank_embeddings(const T* rows, std::int64_t d, const std::int64_t* offsets, std::int64_t groups, EdgeMap map,
                         const double* teleport, const double* start, const RankOptions& options, int threads,
                         T* scores, RankOutcome* outcome) {
  const double ns = estimated_gram_ns(offsets, groups, d) + estimated_sweeps_ns(offsets, groups);
  parallel_for(groups, useful_threads(ns, threads), [&](std::int64_t begin, std::int64_t end) {
    GroupGram<T> gram;
    GramRanker<T> ranker(map, options);
    for (std::int64_t g = begin; g < end; ++g) {
      const std::int64_t first = offsets[g], m = offsets[g + 1] - first;
      if (!gram.compute(rows + first * d, m, d)) {
        outcome[g] = {kBadInput, 0.0};
        continue;
      }
      outcome[g] = ranker.rank(gram, m, part(teleport, first), part(start, first), scores + first);
    }
  });
}

template <typename T>
struct GramRanker<T>::Parts {
  EdgeMap map;
  GroupRanker<T> ranker;
};

template <typename T>
GramRanker<T>::GramRanker(EdgeMap map, const RankOptions& options) : parts_(new Parts{map, GroupRanker<T>(options)}) {
  if (map == EdgeMap::cosine && options.form == RankForm::eigenvector) parts_->ranker.allow_negative_edges();
}
template <typename T>
GramRanker<T>::~GramRanker() = default;

template <typename T>
RankOutcome GramRanker<T>::rank(GroupGram<T>& gram, std::int64_t m, const double* teleport, const double* start,
                                T* scores) {
  const Graph<T> graph{gram.edges(parts_->map), m, gram.ld(), gram.ld()};
  return parts_->ranker.rank(graph, teleport, start, true, scores);
}

template <typename T>
void textrank_dense(const T* weights, const std::int64_t* offsets, std::int64_t groups, const double* teleport,
                    const double* start, const RankOptions& options, int threads, T* scores, RankOutcome* outcome) {
  std::vector<std::int64_t> blocks(static_cast<std::size_t>(groups) + 1);
  square_block_offsets(offsets, groups, blocks.data());
  const int used = useful_threads(estimated_sweeps_ns(offsets, groups), threads);
  parallel_for(groups, used, [&](std::int64_t begin, std::int64_t end) {
    GroupRanker<T> ranker(options);
    for (std::int64_t g = begin; g < end; ++g) {
      const std::int64_t first = offsets[g], m = offsets[g + 1] - first;
      const Graph<T> graph{weights + blocks[static_cast<std::size_t>(g)], m, m, m};
      outcome[g] = ranker.rank(graph, part(teleport, first), part(start, first), false, scores + first);
    }
  });
}

template class GramRanker<float>;
template class GramRanker<double>;
template void textrank_embeddings<float>(const float*, std::int64_t, const std::int64_t*, std::int64_t, EdgeMap,
                                         const double*, const double*, const RankOptions&, int, float*, RankOutcome*);
template void textrank_embeddings<double>(const double*, std::int64_t, const std::int64_t*, std::int64_t, EdgeMap,
                                          const double*, const double*, const RankOptions&, int, double*, RankOutcome*);
template void textrank_dense<float>(const float*, const std::int64_t*, std::int64_t, const double*, const double*,
                                    const RankOptions&, int, float*, RankOutcome*);
template void textrank_dense<double>(const double*, const std::int64_t*, std::int64_t, const double*, const double*,
                                     const RankOptions&, int, double*, RankOutcome*);

}  // namespace rlsft
