#include "rank_properties.hpp"
#include "rlsft/similarity.hpp"

namespace {

using namespace rlsft_fuzz;
using rlsft::EdgeMap;
using rlsft::RankForm;

template <typename T>
struct Problem {
  std::int64_t d;
  std::vector<std::int64_t> offsets;
  EdgeMap map;
  rlsft::RankOptions options;
  std::vector<T> rows;
  std::vector<double> teleport, start;  // empty: none
  Reals kind;

  std::int64_t groups() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

template <typename T>
Ranking<T> rank(const Problem<T>& p, int threads) {
  Ranking<T> result{std::vector<T>(static_cast<std::size_t>(p.offsets.back()), T(-7)),
                    std::vector<rlsft::RankOutcome>(static_cast<std::size_t>(p.groups()))};
  rlsft::textrank_embeddings<T>(p.rows.data(), p.d, p.offsets.data(), p.groups(), p.map,
                                p.teleport.empty() ? nullptr : p.teleport.data(),
                                p.start.empty() ? nullptr : p.start.data(), p.options, threads, result.scores.data(),
                                result.outcome.data());
  return result;
}

template <typename T>
Problem<T> read(Input& in) {
  Problem<T> p;
  const std::uint8_t shape = in.byte();
  p.kind.wide = (shape & 1) != 0;
  p.kind.bad = (shape & 6) == 6;
  p.d = in.between(1, 20);
  p.offsets = in.offsets(3, 18);
  p.map = in.pick({EdgeMap::shifted_cosine, EdgeMap::relu_cosine, EdgeMap::cosine});
  p.options = rank_options(in);
  const std::uint8_t extra = in.byte();
  if (extra & 1) p.teleport = in.distribution(p.offsets);
  if (extra & 2) p.start = in.distribution(p.offsets);
  p.rows = in.rows<T>(p.offsets.back(), p.d, p.kind);
  return p;
}

template <typename T>
std::vector<T> slice(const std::vector<T>& values, std::int64_t begin, std::int64_t end) {
  return values.empty() ? values : std::vector<T>(values.begin() + begin, values.begin() + end);
}

template <typename T>
Problem<T> only_group(const Problem<T>& p, std::int64_t g) {
  Problem<T> one = p;
  const std::int64_t first = p.offsets[g], last = p.offsets[g + 1];
  one.offsets = {0, last - first};
  one.rows = slice(p.rows, first * p.d, last * p.d);
  one.teleport = slice(p.teleport, first, last);
  one.start = slice(p.start, first, last);
  return one;
}

// Edges that the contract refuses: of a value that is not finite, or negative in the stochastic form.
template <typename T>
bool must_be_refused(const Problem<T>& group) {
  const std::int64_t m = group.offsets.back();
  if (!all_finite(group.rows.data(), m * group.d)) return true;
  if (group.map != EdgeMap::cosine || group.options.form == RankForm::eigenvector) return false;
  std::vector<T> edges(static_cast<std::size_t>(m * m));
  bool ok = false;
  rlsft::similarity_groups<T>(group.rows.data(), group.d, group.offsets.data(), 1, group.map, 1, edges.data(), &ok);
  return std::any_of(edges.begin(), edges.end(), [](T edge) { return edge < T(0); });
}

// Rows that the graph cannot tell apart.
template <typename T>
void check_ties(const Problem<T>& group, const T* scores, const rlsft::RankOutcome& outcome) {
  if (!group.start.empty() && !(outcome.residual < group.options.tol)) return;  // twins still on their way together
  const std::int64_t m = group.offsets.back(), d = group.d;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t k = i + 1; k < m; ++k) {
      const bool equal = std::equal(group.rows.begin() + i * d, group.rows.begin() + (i + 1) * d,
                                    group.rows.begin() + k * d);
      if (equal && (group.teleport.empty() || group.teleport[i] == group.teleport[k])) REQUIRE(scores[i] == scores[k]);
    }
  }
}

template <typename T>
void check_moved(const Problem<T>& p, const Ranking<T>& plain, std::int64_t by) {
  if (p.options.form != RankForm::stochastic) return;  // an eigenvector without a gap is not determined
  const std::vector<std::int64_t> order = rotated(p.offsets, by);
  Problem<T> moved = p;
  moved.rows = take_rows(p.rows, order, p.d);
  if (!p.teleport.empty()) moved.teleport = take_rows(p.teleport, order, 1);
  if (!p.start.empty()) moved.start = take_rows(p.start, order, 1);
  const Ranking<T> other = rank(moved, 1);
  const std::vector<T> expected = take_rows(plain.scores, order, 1);
  for (std::int64_t g = 0; g < p.groups(); ++g) {
    if (plain.outcome[g].n_iter < 0 || other.outcome[g].n_iter < 0) continue;  // a cosine of +-1e-17 may change sign
    if (!(plain.outcome[g].residual < p.options.tol)) continue;
    check_close(expected.data() + p.offsets[g], other.scores.data() + p.offsets[g], p.offsets[g + 1] - p.offsets[g],
                distance_allowed<T>(p.options));
  }
}

template <typename T>
void run(Input& in) {
  const Problem<T> p = read<T>(in);
  const std::uint8_t twist = in.byte();
  const Ranking<T> plain = rank(p, 1);
  for (std::int64_t g = 0; g < p.groups(); ++g) {
    const Problem<T> group = only_group(p, g);
    const T* scores = plain.scores.data() + p.offsets[g];
    const bool refused = must_be_refused(group);
    REQUIRE((plain.outcome[g].n_iter == rlsft::kBadInput) == refused);
    if (refused) continue;
    check_scores(scores, group.offsets.back(), plain.outcome[g], p.options,
                 p.map == EdgeMap::cosine && p.options.form == RankForm::eigenvector);
    check_ties(group, scores, plain.outcome[g]);
    if (twist % 4 == 0) {
      const Ranking<T> alone = rank(group, 1);
      REQUIRE(same_bits(alone.scores.data(), scores, group.offsets.back()));
      REQUIRE(alone.outcome[0].n_iter == plain.outcome[g].n_iter);
    }
  }
  if (twist % 4 == 1) REQUIRE(same(plain, rank(p, 2 + twist / 4 % 2)));
  if (twist % 4 == 2) check_moved(p, plain, 1 + twist / 4);
  if (twist % 4 == 3 && !p.kind.wide) {
    Problem<T> scaled = p;
    for (T& value : scaled.rows) value = std::ldexp(value, twist / 4 % 40 - 20);
    REQUIRE(same(plain, rank(scaled, 1)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  in.flag() ? run<double>(in) : run<float>(in);
  return 0;
}
