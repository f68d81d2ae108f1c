#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "rlsft/linear_solve.hpp"
#include "rlsft/similarity.hpp"
#include "rlsft/text_edges.hpp"
#include "rlsft/textrank.hpp"

namespace {

using rlsft::EdgeMap;
using rlsft::RankOptions;
using rlsft::RankOutcome;

template <typename T>
std::vector<T> random_rows(std::int64_t count, std::int64_t d, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<T> rows(static_cast<std::size_t>(count * d));
  for (T& value : rows) value = static_cast<T>(normal(generator));
  return rows;
}

std::vector<double> rank_dense(const std::vector<double>& weights, std::int64_t n, RankOptions options = {}) {
  const std::vector<std::int64_t> offsets{0, n};
  std::vector<double> scores(static_cast<std::size_t>(n));
  RankOutcome outcome{};
  rlsft::textrank_dense<double>(weights.data(), offsets.data(), 1, nullptr, nullptr, options, 1, scores.data(),
                                &outcome);
  CHECK(outcome.residual < options.tol);
  return scores;
}

// 0 <-> 1, both -> 2, and 2 has no edge: x = (.2919708, .2919708, .4160584)
void a_dangling_node_shares_its_mass() {
  const std::vector<double> x = rank_dense({0, 1, 1, 1, 0, 1, 0, 0, 0}, 3);
  CHECK_NEAR(x[0], .2919708, 1e-7);
  CHECK_NEAR(x[1], .2919708, 1e-7);
  CHECK_NEAR(x[2], .4160584, 1e-7);
}

// the scores solve the linear system (I - a P^T) x = (1 - a) v
template <typename T>
void scores_solve_the_linear_system(EdgeMap map, std::int64_t m, std::int64_t d, double tolerance) {
  const std::vector<T> rows = random_rows<T>(m, d, 3);
  const std::vector<std::int64_t> offsets{0, m};
  std::vector<T> scores(static_cast<std::size_t>(m)), edges(static_cast<std::size_t>(m * m));
  RankOutcome outcome{};
  rlsft::textrank_embeddings<T>(rows.data(), d, offsets.data(), 1, map, nullptr, nullptr, {}, 1, scores.data(),
                                &outcome);
  bool ok = false;
  rlsft::similarity_groups<T>(rows.data(), d, offsets.data(), 1, map, 1, edges.data(), &ok);
  CHECK(ok);
  std::vector<double> system(static_cast<std::size_t>(m * m)), truth(static_cast<std::size_t>(m), .15 / m);
  for (std::int64_t i = 0; i < m; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < m; ++j) sum += edges[i * m + j];
    for (std::int64_t j = 0; j < m; ++j) {
      system[j * m + i] = (i == j ? 1.0 : 0.0) - .85 * (sum > 0 ? edges[i * m + j] / sum : 1.0 / m);
    }
  }
  CHECK(rlsft::solve_in_place(system.data(), truth.data(), m));
  for (std::int64_t i = 0; i < m; ++i) CHECK_NEAR(scores[i], truth[i], tolerance);
}

// every size around the row tile and the vector width, so that sanitizers see all paddings
void all_paddings() {
  for (const std::int64_t m : {1, 2, 3, 4, 5, 15, 16, 17, 33, 70}) {
    for (const std::int64_t d : {1, 7, 16, 17, 384}) {
      scores_solve_the_linear_system<float>(EdgeMap::shifted_cosine, m, d, 1e-6);
      scores_solve_the_linear_system<double>(EdgeMap::relu_cosine, m, d, 1e-9);
    }
  }
}

// groups that the threads share: without a matrix (shifted), and from the upper half of one (relu)
void large_groups() {
  for (const std::int64_t m : {257, 262}) {
    for (const std::int64_t d : {1, 7, 17}) {
      scores_solve_the_linear_system<float>(EdgeMap::shifted_cosine, m, d, 1e-6);
      scores_solve_the_linear_system<double>(EdgeMap::shifted_cosine, m, d, 1e-9);
      scores_solve_the_linear_system<float>(EdgeMap::relu_cosine, m, d, 1e-6);
      scores_solve_the_linear_system<double>(EdgeMap::relu_cosine, m, d, 1e-9);
    }
  }
}

void batch_equals_loop_and_threads_change_nothing() {
  const std::vector<std::int64_t> offsets{0, 3, 3, 4, 20, 37};
  const std::int64_t groups = 5, d = 33;
  const std::vector<float> rows = random_rows<float>(37, d, 5);
  std::vector<float> batch(37), looped(37);
  std::vector<RankOutcome> outcome(5);
  for (const int threads : {1, 3}) {
    rlsft::textrank_embeddings<float>(rows.data(), d, offsets.data(), groups, EdgeMap::relu_cosine, nullptr, nullptr, {},
                                      threads, batch.data(), outcome.data());
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::vector<std::int64_t> one{0, offsets[g + 1] - offsets[g]};
      rlsft::textrank_embeddings<float>(rows.data() + offsets[g] * d, d, one.data(), 1, EdgeMap::relu_cosine, nullptr,
                                        nullptr, {}, 1, looped.data() + offsets[g], outcome.data());
    }
    CHECK(batch == looped);
  }
}

void bad_values_are_reported_for_their_group() {
  const std::vector<std::int64_t> offsets{0, 2, 4};
  std::vector<double> rows = random_rows<double>(4, 3, 7);
  rows[7] = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> scores(4);
  std::vector<RankOutcome> outcome(2);
  rlsft::textrank_embeddings<double>(rows.data(), 3, offsets.data(), 2, EdgeMap::cosine, nullptr, nullptr, {}, 1,
                                     scores.data(), outcome.data());
  CHECK(outcome[1].n_iter == rlsft::kBadInput);
  const std::vector<double> negative{0, -1, 1, 0};
  const std::vector<std::int64_t> one{0, 2};
  rlsft::textrank_dense<double>(negative.data(), one.data(), 1, nullptr, nullptr, {}, 1, scores.data(), outcome.data());
  CHECK(outcome[0].n_iter == rlsft::kBadInput);
}

void eigenvector_and_its_katz_branch() {
  RankOptions options;
  options.form = rlsft::RankForm::eigenvector;
  // star with weight 2: rho = 2 sqrt(2); centre sqrt(2) times a leaf. Bipartite: raw iteration would oscillate.
  const std::vector<double> star = rank_dense({0, 2, 2, 2, 0, 0, 2, 0, 0}, 3, options);
  CHECK_NEAR(star[0], 1.0, 1e-12);
  CHECK_NEAR(star[1], std::sqrt(0.5), 1e-9);
  // one weak edge: a * rho = .425, Katz x = v + a W^T x gives equal scores; a directed one gives 1 / (1 + .425)
  const std::vector<double> directed = rank_dense({0, .5, 0, 0}, 2, options);
  CHECK_NEAR(directed[0], 1.0 / 1.425, 1e-12);
}

void text_edges_by_hand() {
  const std::vector<std::int64_t> tokens{1, 2, 2, 3, 2, 2, 3, 9};  // {1,2,2}, {3,2,2}, {}, {3}, {9}
  const std::vector<std::int64_t> token_offsets{0, 3, 6, 6, 7, 8}, groups{0, 5};
  std::vector<double> edges(25);
  const auto run = [&](rlsft::TextEdge kind) {
    rlsft::text_edges_groups(tokens.data(), token_offsets.data(), groups.data(), 1, kind, 1, edges.data());
  };
  run(rlsft::TextEdge::word_overlap_set);
  CHECK_NEAR(edges[1], 1 / (2 * std::log(3.0)), 1e-15);
  CHECK(edges[3 * 5 + 4] == 0 && edges[2] == 0 && edges[0] == 0);
  run(rlsft::TextEdge::word_overlap_multiset);
  CHECK_NEAR(edges[1], 2 / (2 * std::log(3.0)), 1e-15);
  run(rlsft::TextEdge::bm25);
  for (const double weight : edges) CHECK(weight >= 0);
}

}  // namespace

int main() {
  a_dangling_node_shares_its_mass();
  all_paddings();
  large_groups();
  batch_equals_loop_and_threads_change_nothing();
  bad_values_are_reported_for_their_group();
  eigenvector_and_its_katz_branch();
  text_edges_by_hand();
  return rlsft_test::finish();
}
