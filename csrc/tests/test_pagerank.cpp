#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.hpp"
#include "rlsft/linear_solve.hpp"
#include "rlsft/pagerank.hpp"

namespace {

using rlsft::EdgeOrder;
using rlsft::GraphFault;
using rlsft::PagerankOptions;
using rlsft::PagerankOutcome;
using rlsft::SparseGraph;
using rlsft::SweepMethod;

// Edges with the arrays of all three orders.
struct Edges {
  std::int64_t n = 0;
  std::vector<std::int32_t> starts, ends;
  std::vector<double> weights;
  std::vector<std::int64_t> row_pointers, column_pointers;
  std::vector<std::int32_t> targets, sources;
  std::vector<double> row_weights, column_weights;

  void sort() {
    sort_by(starts, ends, row_pointers, targets, row_weights);
    sort_by(ends, starts, column_pointers, sources, column_weights);
  }
  SparseGraph view(EdgeOrder order, bool weighted) const {
    const auto edges = static_cast<std::int64_t>(starts.size());
    SparseGraph graph{n, edges, order, nullptr, nullptr, nullptr, nullptr, nullptr};
    if (order == EdgeOrder::coo) {
      graph.starts = starts.data();
      graph.ends = ends.data();
      if (weighted) graph.weights64 = weights.data();
      return graph;
    }
    const bool rows = order == EdgeOrder::csr;
    graph.pointers = rows ? row_pointers.data() : column_pointers.data();
    graph.ends = rows ? targets.data() : sources.data();
    if (weighted) graph.weights64 = rows ? row_weights.data() : column_weights.data();
    return graph;
  }

 private:
  void sort_by(const std::vector<std::int32_t>& keys, const std::vector<std::int32_t>& others,
               std::vector<std::int64_t>& pointers, std::vector<std::int32_t>& sorted, std::vector<double>& values) const {
    pointers.assign(static_cast<std::size_t>(n) + 1, 0);
    for (const std::int32_t key : keys) ++pointers[key + 1];
    std::partial_sum(pointers.begin(), pointers.end(), pointers.begin());
    std::vector<std::int64_t> next(pointers.begin(), pointers.end() - 1);
    sorted.resize(keys.size());
    values.resize(keys.size());
    for (std::size_t e = 0; e < keys.size(); ++e) {
      const std::int64_t at = next[keys[e]]++;
      sorted[at] = others[e];
      values[at] = weights[e];
    }
  }
};

// Most targets are few, so that there are hubs, and nodes that no edge enters.
Edges random_edges(std::int64_t n, std::int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<std::int32_t> any(0, static_cast<std::int32_t>(n) - 1);
  std::uniform_real_distribution<double> weight(0.1, 1.0);
  Edges edges;
  edges.n = n;
  for (std::int64_t e = 0; e < count; ++e) {
    const std::int32_t target = any(generator);
    edges.starts.push_back(any(generator));
    edges.ends.push_back(e % 3 == 0 ? target % 3 : e % 3 == 1 ? target / 2 : target);
    edges.weights.push_back(weight(generator));
  }
  edges.sort();
  return edges;
}

std::vector<double> solve(const Edges& edges, bool weighted, double a) {
  const std::int64_t n = edges.n;
  std::vector<double> strength(n, 0.0), system(n * n, 0.0), x(n, (1 - a) / static_cast<double>(n));
  for (std::size_t e = 0; e < edges.starts.size(); ++e) strength[edges.starts[e]] += weighted ? edges.weights[e] : 1.0;
  for (std::size_t e = 0; e < edges.starts.size(); ++e) {
    const double w = weighted ? edges.weights[e] : 1.0;
    system[edges.ends[e] * n + edges.starts[e]] -= a * w / strength[edges.starts[e]];
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; strength[i] == 0.0 && j < n; ++j) system[j * n + i] -= a / static_cast<double>(n);
    system[i * n + i] += 1.0;
  }
  CHECK(rlsft::solve_in_place(system.data(), x.data(), n));
  return x;
}

std::vector<double> rank(const SparseGraph& graph, SweepMethod method, int threads, double tol = 1e-13) {
  std::vector<double> scores(static_cast<std::size_t>(graph.n), std::numeric_limits<double>::quiet_NaN());
  CHECK(rlsft::check_graph(graph, threads).fault == GraphFault::none);
  const PagerankOptions options{0.85, tol, 2000, method};
  const PagerankOutcome outcome = rlsft::pagerank(graph, nullptr, nullptr, nullptr, options, threads, scores.data());
  CHECK(graph.n == 0 || outcome.residual < tol);
  return scores;
}

void scores_solve_the_linear_system() {
  for (const std::int64_t n : {1, 2, 15, 16, 17, 100, 300}) {
    const Edges edges = random_edges(n, 8 * n, static_cast<unsigned>(n));
    for (const bool weighted : {false, true}) {
      const std::vector<double> truth = solve(edges, weighted, 0.85);
      for (const EdgeOrder order : {EdgeOrder::csr, EdgeOrder::csc, EdgeOrder::coo}) {
        for (const SweepMethod method : {SweepMethod::gauss_seidel, SweepMethod::jacobi}) {
          const std::vector<double> x = rank(edges.view(order, weighted), method, 1);
          double error = 0.0;
          for (std::int64_t i = 0; i < n; ++i) error += std::abs(x[i] - truth[i]);
          CHECK_NEAR(error, 0.0, 1e-11);
        }
      }
    }
  }
}

// large enough for threads, for long rows of several segments and for the float32 phase
void any_number_of_threads_gives_the_same_bits() {
  const Edges edges = random_edges(150'000, 700'000, 7);
  for (const SweepMethod method : {SweepMethod::gauss_seidel, SweepMethod::jacobi}) {
    for (const EdgeOrder order : {EdgeOrder::csr, EdgeOrder::csc, EdgeOrder::coo}) {
      const std::vector<double> alone = rank(edges.view(order, order != EdgeOrder::coo), method, 1, 1e-9);
      for (const int threads : {2, 5}) {
        CHECK(rank(edges.view(order, order != EdgeOrder::coo), method, threads, 1e-9) == alone);
      }
    }
  }
}

void nothing_and_little() {
  const std::int64_t pointers[] = {0, 0, 0, 0};
  const std::int32_t none[] = {0};
  CHECK(rank({0, 0, EdgeOrder::csr, pointers, nullptr, none, nullptr, nullptr}, SweepMethod::jacobi, 1).empty());
  for (const double x : rank({3, 0, EdgeOrder::csr, pointers, nullptr, none, nullptr, nullptr}, {}, 1)) {
    CHECK_NEAR(x, 1.0 / 3.0, 1e-15);
  }
}

void faults_are_found_at_their_first_place() {
  Edges edges = random_edges(1000, 60'000, 9);
  SparseGraph graph = edges.view(EdgeOrder::csr, true);
  for (const std::int64_t at : {std::int64_t{0}, std::int64_t{16'383}, std::int64_t{16'384}, graph.edges - 1}) {
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1.0}) {
      std::vector<double> weights = edges.row_weights;
      for (std::int64_t e = at; e < graph.edges; ++e) weights[e] = bad;
      SparseGraph broken = graph;
      broken.weights64 = weights.data();
      const rlsft::GraphCheck check = rlsft::check_graph(broken, 2);
      CHECK(check.fault == GraphFault::weights);
      CHECK(check.position == at);
    }
    for (const std::int32_t bad : {-1, 1000}) {
      std::vector<std::int32_t> ends = edges.targets;
      ends[at] = bad;
      SparseGraph broken = graph;
      broken.ends = ends.data();
      CHECK(rlsft::check_graph(broken, 2).fault == GraphFault::ends);
      CHECK(rlsft::check_graph(broken, 2).position == at);
    }
  }
  std::vector<std::int64_t> pointers = edges.row_pointers;
  pointers[500] = pointers[499] - 1;
  SparseGraph broken = graph;
  broken.pointers = pointers.data();
  CHECK(rlsft::check_graph(broken, 1).fault == GraphFault::pointers);
  CHECK(rlsft::check_graph(broken, 1).position == 500);
}

void wide_ids_are_narrowed_or_refused() {
  const std::vector<std::int64_t> ids{0, 5, 9, 3};
  std::vector<std::int32_t> narrow(ids.size());
  CHECK(rlsft::narrow_ids(ids.data(), 4, 10, 1, narrow.data()) == -1);
  CHECK((narrow == std::vector<std::int32_t>{0, 5, 9, 3}));
  const std::vector<std::int64_t> wide{0, std::int64_t{1} << 32, -1, 3};
  CHECK(rlsft::narrow_ids(wide.data(), 4, 10, 1, narrow.data()) == 1);
  CHECK(rlsft::narrow_ids(ids.data(), 4, 9, 1, narrow.data()) == 2);
}

}  // namespace

int main() {
  scores_solve_the_linear_system();
  any_number_of_threads_gives_the_same_bits();
  nothing_and_little();
  faults_are_found_at_their_first_place();
  wide_ids_are_narrowed_or_refused();
  return rlsft_test::finish();
}
