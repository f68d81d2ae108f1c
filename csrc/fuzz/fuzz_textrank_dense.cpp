#include "rank_properties.hpp"

namespace {

using namespace rlsft_fuzz;
using rlsft::RankForm;

template <typename T>
struct Problem {
  std::vector<std::int64_t> offsets;
  rlsft::RankOptions options;
  std::vector<T> weights;               // flat m x m blocks
  std::vector<double> teleport, start;  // empty: none

  std::int64_t groups() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

template <typename T>
Ranking<T> rank(const Problem<T>& p, int threads) {
  Ranking<T> result{std::vector<T>(static_cast<std::size_t>(p.offsets.back()), T(-7)),
                    std::vector<rlsft::RankOutcome>(static_cast<std::size_t>(p.groups()))};
  rlsft::textrank_dense<T>(p.weights.data(), p.offsets.data(), p.groups(),
                           p.teleport.empty() ? nullptr : p.teleport.data(), p.start.empty() ? nullptr : p.start.data(),
                           p.options, threads, result.scores.data(), result.outcome.data());
  return result;
}

template <typename T>
Problem<T> read(Input& in, Reals& kind) {
  Problem<T> p;
  const std::uint8_t shape = in.byte();
  kind.negative = false;
  kind.wide = (shape & 1) != 0;
  kind.bad = (shape & 6) == 6;
  p.offsets = in.offsets(3, 10);
  p.options = rank_options(in);
  const std::uint8_t extra = in.byte();
  if (extra & 1) p.teleport = in.distribution(p.offsets);
  if (extra & 2) p.start = in.distribution(p.offsets);
  for (std::int64_t g = 0; g < p.groups(); ++g) {
    const std::int64_t m = p.offsets[g + 1] - p.offsets[g];
    const std::vector<T> block = in.rows<T>(m, m, kind);
    p.weights.insert(p.weights.end(), block.begin(), block.end());
  }
  return p;
}

template <typename T>
std::vector<T> slice(const std::vector<T>& values, std::int64_t begin, std::int64_t end) {
  return values.empty() ? values : std::vector<T>(values.begin() + begin, values.begin() + end);
}

template <typename T>
Problem<T> only_group(const Problem<T>& p, std::int64_t g, std::int64_t block) {
  const std::int64_t first = p.offsets[g], last = p.offsets[g + 1], m = last - first;
  return {{0, m}, p.options, slice(p.weights, block, block + m * m), slice(p.teleport, first, last),
          slice(p.start, first, last)};
}

template <typename T>
bool must_be_refused(const std::vector<T>& weights) {
  return std::any_of(weights.begin(), weights.end(), [](T w) { return !std::isfinite(w) || w < T(0); });
}

template <typename T>
bool sums_may_overflow(const std::vector<T>& weights) {
  double sum = 0.0;
  for (const T w : weights) sum += 0.25 * static_cast<double>(w);
  return sum > 0.1 * std::numeric_limits<double>::max();
}

template <typename T>
bool twins(const std::vector<T>& w, std::int64_t m, std::int64_t i, std::int64_t k) {
  bool equal = w[i * m + k] == w[k * m + i] && w[i * m + i] == w[k * m + k];
  for (std::int64_t j = 0; j < m && equal; ++j) {
    if (j != i && j != k) equal = w[i * m + j] == w[k * m + j] && w[j * m + i] == w[j * m + k];
  }
  return equal;
}

template <typename T>
void check_ties(const Problem<T>& group, const T* scores, const rlsft::RankOutcome& outcome) {
  if (!group.start.empty() && !(outcome.residual < group.options.tol)) return;  // twins still on their way together
  const std::int64_t m = group.offsets.back();
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t k = i + 1; k < m; ++k) {
      if (!group.teleport.empty() && group.teleport[i] != group.teleport[k]) continue;
      if (twins(group.weights, m, i, k)) REQUIRE(scores[i] == scores[k]);
    }
  }
}

template <typename T>
Problem<T> moved(const Problem<T>& group, std::int64_t by) {
  const std::vector<std::int64_t> order = rotated(group.offsets, by);
  const std::int64_t m = group.offsets.back();
  Problem<T> other = group;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < m; ++j) other.weights[i * m + j] = group.weights[order[i] * m + order[j]];
  }
  if (!group.teleport.empty()) other.teleport = take_rows(group.teleport, order, 1);
  if (!group.start.empty()) other.start = take_rows(group.start, order, 1);
  return other;
}

template <typename T>
void check_group(const Problem<T>& group, const T* scores, const rlsft::RankOutcome& outcome, std::uint8_t twist) {
  const std::int64_t m = group.offsets.back();
  check_scores(scores, m, outcome, group.options, false);
  check_ties(group, scores, outcome);
  if (twist % 4 == 0) {
    const Ranking<T> alone = rank(group, 1);
    REQUIRE(same_bits(alone.scores.data(), scores, m) && alone.outcome[0].n_iter == outcome.n_iter);
  }
  if (group.options.form != RankForm::stochastic) return;  // an eigenvector without a gap is not determined
  if (twist % 4 == 2) {
    const Problem<T> other = moved(group, 1 + twist / 4);
    const Ranking<T> result = rank(other, 1);
    if (!(outcome.residual < group.options.tol)) return;
    const std::vector<T> expected = take_rows(std::vector<T>(scores, scores + m), rotated(group.offsets, 1 + twist / 4), 1);
    check_close(expected.data(), result.scores.data(), m, distance_allowed<T>(group.options));
  }
}

template <typename T>
void run(Input& in) {
  Reals kind;
  const Problem<T> p = read<T>(in, kind);
  const std::uint8_t twist = in.byte();
  const Ranking<T> plain = rank(p, 1);
  std::int64_t block = 0;
  for (std::int64_t g = 0; g < p.groups(); ++g) {
    const Problem<T> group = only_group(p, g, block);
    block += static_cast<std::int64_t>(group.weights.size());
    const rlsft::RankOutcome& outcome = plain.outcome[g];
    REQUIRE((outcome.n_iter == rlsft::kBadInput) == must_be_refused(group.weights));
    if (outcome.n_iter == rlsft::kBadInput) continue;
    if (outcome.n_iter == rlsft::kOverflow) {
      REQUIRE(p.options.form == RankForm::eigenvector && sums_may_overflow(group.weights));
      continue;
    }
    check_group(group, plain.scores.data() + p.offsets[g], outcome, twist);
  }
  if (twist % 4 == 1) REQUIRE(same(plain, rank(p, 2 + twist / 4 % 2)));
  if (twist % 4 == 3 && !kind.wide && p.options.form == RankForm::stochastic) {
    Problem<T> scaled = p;
    for (T& value : scaled.weights) value = std::ldexp(value, twist / 4 % 40 - 20);
    REQUIRE(same(plain, rank(scaled, 1)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  in.flag() ? run<double>(in) : run<float>(in);
  return 0;
}
