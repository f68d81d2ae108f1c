#include <algorithm>

#include "fuzz_input.hpp"
#include "rlsft/pagerank.hpp"

namespace {

using namespace rlsft_fuzz;
using rlsft::EdgeOrder;
using rlsft::GraphFault;
using rlsft::SparseGraph;
using rlsft::SweepMethod;

struct Edge {
  std::int32_t from, to;
  double weight;
};

struct Problem {
  std::int64_t n;
  std::vector<Edge> edges;
  bool has_weights;
  std::vector<double> teleport, dangling, start;  // empty: none
  rlsft::PagerankOptions options;
};

// The arrays that a SparseGraph borrows.
struct Stored {
  std::vector<std::int64_t> pointers;
  std::vector<std::int32_t> starts, ends;
  std::vector<double> weights;
  SparseGraph graph;
};

Stored store(const Problem& p, EdgeOrder order) {
  Stored s;
  std::vector<Edge> edges = p.edges;
  const auto key = [&](const Edge& e) { return order == EdgeOrder::csc ? e.to : e.from; };
  if (order != EdgeOrder::coo) {
    std::stable_sort(edges.begin(), edges.end(), [&](const Edge& a, const Edge& b) { return key(a) < key(b); });
    s.pointers.assign(static_cast<std::size_t>(p.n + 1), 0);
    for (const Edge& e : edges) ++s.pointers[static_cast<std::size_t>(key(e)) + 1];
    for (std::int64_t i = 0; i < p.n; ++i) s.pointers[i + 1] += s.pointers[i];
  }
  for (const Edge& e : edges) {
    s.starts.push_back(e.from);
    s.ends.push_back(order == EdgeOrder::csc ? e.from : e.to);
    s.weights.push_back(e.weight);
  }
  s.graph = {p.n, static_cast<std::int64_t>(edges.size()), order, order == EdgeOrder::coo ? nullptr : s.pointers.data(),
             order == EdgeOrder::coo ? s.starts.data() : nullptr, s.ends.data(), nullptr,
             p.has_weights ? s.weights.data() : nullptr};
  return s;
}

const double* or_null(const std::vector<double>& v) { return v.empty() ? nullptr : v.data(); }

std::vector<double> rank(const Problem& p, EdgeOrder order, SweepMethod method, int threads,
                         rlsft::PagerankOutcome* outcome) {
  const Stored stored = store(p, order);
  rlsft::PagerankOptions options = p.options;
  options.method = method;
  std::vector<double> scores(static_cast<std::size_t>(p.n), -7);
  *outcome = rlsft::pagerank(stored.graph, or_null(p.teleport), or_null(p.dangling), or_null(p.start), options, threads,
                             scores.data());
  return scores;
}

Problem read(Input& in, bool* is_bad) {
  Problem p;
  p.n = in.between(1, 40);
  p.has_weights = in.flag();
  Reals kind;
  kind.negative = false;
  kind.bad = in.byte() % 8 == 7;
  kind.wide = in.byte() % 4 == 3;
  kind.max_exponent = 300;
  *is_bad = false;
  for (std::int64_t e = in.between(0, 120); e > 0; --e) {
    Edge edge{static_cast<std::int32_t>(in.byte() % p.n), static_cast<std::int32_t>(in.byte() % p.n), 1.0};
    if (p.has_weights) edge.weight = in.real<double>(kind);
    *is_bad |= !(edge.weight >= 0 && std::isfinite(edge.weight));
    p.edges.push_back(edge);
  }
  const std::uint8_t extra = in.byte();
  const std::vector<std::int64_t> one{0, p.n};
  if (extra & 1) p.teleport = in.distribution(one);
  if (extra & 2) p.dangling = in.distribution(one);
  if (extra & 4) p.start = in.distribution(one);
  p.options.damping = in.pick({0.85, 0.5, 0.0, 0.99});
  p.options.tol = in.pick({1e-8, 1e-4, 1e-12});
  p.options.max_iter = in.pick<std::int64_t>({30, 3, 1});  // more would repeat the same code, slowly
  return p;
}

void check_scores(const Problem& p, const std::vector<double>& scores, const rlsft::PagerankOutcome& outcome) {
  double sum = 0;
  for (const double score : scores) {
    REQUIRE(std::isfinite(score) && score >= 0);
    sum += score;
  }
  REQUIRE(std::abs(sum - 1) < 1e-9);
  REQUIRE(outcome.n_iter >= 1 && outcome.n_iter <= p.options.max_iter);
  REQUIRE(outcome.residual < p.options.tol || outcome.n_iter == p.options.max_iter);
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  bool is_bad = false;
  const Problem p = read(in, &is_bad);
  const EdgeOrder order = in.pick({EdgeOrder::csr, EdgeOrder::csc, EdgeOrder::coo});
  const Stored stored = store(p, order);
  const rlsft::GraphCheck check = rlsft::check_graph(stored.graph, 1 + in.byte() % 3);
  REQUIRE((check.fault == GraphFault::weights) == is_bad);
  REQUIRE(check.fault == GraphFault::none || is_bad);
  if (is_bad) {
    const double found = stored.weights[static_cast<std::size_t>(check.position)];
    REQUIRE(!(found >= 0 && std::isfinite(found)));
    return 0;
  }
  const SweepMethod method = in.pick({SweepMethod::gauss_seidel, SweepMethod::jacobi});
  rlsft::PagerankOutcome outcome, other;
  const std::vector<double> scores = rank(p, order, method, 1, &outcome);
  check_scores(p, scores, outcome);
  const std::uint8_t twist = in.byte();
  if (twist % 16 == 1) {  // seldom: threads that wait for each other are slow where cores are busy
    REQUIRE(same_bits(scores, rank(p, order, method, 2 + twist / 16 % 2, &other)));
    REQUIRE(other.n_iter == outcome.n_iter);
  }
  // the steps bound the errors: a / (1 - a) times for Jacobi, and Gauss-Seidel is no slower
  const double allowed = 4 * p.options.tol / (1 - p.options.damping) + 1e-12;
  const std::vector<double> elsewhere = rank(p, EdgeOrder::coo, SweepMethod::jacobi, 1, &other);
  if (outcome.residual < p.options.tol && other.residual < p.options.tol) REQUIRE(distance(scores, elsewhere) <= allowed);
  return 0;
}
