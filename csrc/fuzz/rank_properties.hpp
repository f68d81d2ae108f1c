// What must hold of the scores of any graph: shared by the entries that rank.
#pragma once

#include <algorithm>

#include "fuzz_input.hpp"
#include "rlsft/textrank.hpp"

namespace rlsft_fuzz {

template <typename T>
struct Ranking {
  std::vector<T> scores;
  std::vector<rlsft::RankOutcome> outcome;
};

template <typename T>
bool same(const Ranking<T>& a, const Ranking<T>& b) {
  if (!same_bits(a.scores, b.scores) || a.outcome.size() != b.outcome.size()) return false;
  for (std::size_t g = 0; g < a.outcome.size(); ++g) {
    if (a.outcome[g].n_iter != b.outcome[g].n_iter) return false;
    if (!same_bits(&a.outcome[g].residual, &b.outcome[g].residual, 1)) return false;
  }
  return true;
}

inline rlsft::RankOptions rank_options(Input& in) {
  rlsft::RankOptions options;
  options.damping = in.pick({0.85, 0.0, 0.5, 0.99});
  options.tol = in.pick({1e-10, 1e-2, 1e-6, 1e-13});
  options.max_iter = in.pick<std::int64_t>({200, 1, 2, 40});
  options.form = in.flag() ? rlsft::RankForm::eigenvector : rlsft::RankForm::stochastic;
  return options;
}

// How far two converged solutions of the same graph may lie apart, in L1.
template <typename T>
double distance_allowed(const rlsft::RankOptions& options) {
  const double stopping = 2.0 * options.damping / (1.0 - options.damping) * options.tol;
  return stopping + (sizeof(T) == 4 ? 1e-5 : 1e-10);
}

// Holds for one group that was ranked.
template <typename T>
void check_scores(const T* scores, std::int64_t m, const rlsft::RankOutcome& outcome,
                  const rlsft::RankOptions& options, bool may_be_negative) {
  REQUIRE(outcome.n_iter >= 0 && outcome.n_iter <= options.max_iter);
  REQUIRE(outcome.residual < options.tol || outcome.n_iter == options.max_iter);
  REQUIRE(all_finite(scores, m));
  if (m == 0) return;
  double sum = 0.0, largest = -std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < m; ++i) {
    REQUIRE(may_be_negative || scores[i] >= T(0));
    sum += static_cast<double>(scores[i]);
    largest = std::max(largest, static_cast<double>(scores[i]));
  }
  if (options.form == rlsft::RankForm::stochastic) {
    REQUIRE(std::abs(sum - 1.0) <= (sizeof(T) == 4 ? 1e-6 : 1e-12));
  } else {
    REQUIRE(largest == 1.0);
  }
}

template <typename T>
void check_close(const T* a, const T* b, std::int64_t m, double allowed) {
  double distance = 0.0;
  for (std::int64_t i = 0; i < m; ++i) distance += std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
  REQUIRE(distance <= allowed);
}

}  // namespace rlsft_fuzz
