#include "rlsft/textrank.hpp"

#include <algorithm>
#include <vector>

#include "group_ranker.hpp"
#include "large_ranker.hpp"
#include "rlsft/parallel.hpp"
#include "rlsft/similarity.hpp"

namespace rlsft {
namespace {

const double* part(const double* all, std::int64_t begin) { return all == nullptr ? nullptr : all + begin; }

bool is_large(std::int64_t m) { return m > kLargeGroup; }

double estimated_sweeps_ns(const std::int64_t* offsets, std::int64_t groups) {
  double ns = 0.0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const double m = static_cast<double>(offsets[g + 1] - offsets[g]);
    ns += 10.0 * (m * m / 4.0 + 20.0);
  }
  return ns;
}

bool allows_negative(EdgeMap map, const RankOptions& options) {
  return map == EdgeMap::cosine && options.form == RankForm::eigenvector;
}

// Edges that are linear in the rows need no n x n matrix. Raw cosines may be negative, which only a matrix shows.
bool is_linear(EdgeMap map, const RankOptions& options) {
  return map == EdgeMap::shifted_cosine || allows_negative(map, options);
}

template <typename T>
RankOutcome rank_large_embeddings(const T* rows, std::int64_t m, std::int64_t d, EdgeMap map, const double* teleport,
                                  const double* start, const RankOptions& options, int threads, T* scores) {
  if (is_linear(map, options)) {
    RankOutcome outcome;
    if (rank_large_cosine(rows, m, d, map, teleport, start, options, threads, scores, &outcome)) return outcome;
  }
  GroupGram<T> gram;
  const bool needs_all = options.form == RankForm::stochastic && options.method == RankMethod::gauss_seidel;
  const T* edges = nullptr;
  if (!needs_all) edges = gram.upper_edges(rows, m, d, map, threads);
  else if (gram.compute(rows, m, d, false, threads)) edges = gram.edges(map);
  if (edges == nullptr) return {kBadInput, 0.0};
  return rank_large_dense(edges, m, gram.ld(), needs_all ? Stored::all : Stored::upper, allows_negative(map, options),
                          teleport, start, options, threads, scores);
}

}  // namespace

template <typename T>
struct GramRanker<T>::Parts {
  EdgeMap map;
  bool needs_check;  // raw cosines may be negative
  GroupRanker<T> ranker;
  std::vector<double> sums;
};

template <typename T>
GramRanker<T>::GramRanker(EdgeMap map, const RankOptions& options)
    : parts_(new Parts{map, map == EdgeMap::cosine && !allows_negative(map, options), GroupRanker<T>(options), {}}) {
  if (allows_negative(map, options)) parts_->ranker.allow_negative_edges();
}
template <typename T>
GramRanker<T>::~GramRanker() = default;

template <typename T>
RankOutcome GramRanker<T>::rank(GroupGram<T>& gram, std::int64_t m, const double* teleport, const double* start,
                                T* scores) {
  if (m == 0) return {0, 0.0};
  const Graph<T> graph{gram.edges(parts_->map), m, gram.ld()};
  if (parts_->needs_check) {
    parts_->sums.resize(static_cast<std::size_t>(m));
    const bool valid = sweep_kernels<T>().row_sums(graph.weights, 0, m, m, graph.ld, parts_->sums.data());
    if (!valid) return {kBadInput, 0.0};
  }
  return parts_->ranker.rank(graph, gram.edge_sums(), teleport, start, true, scores);
}

template <typename T>
void textrank_embeddings(const T* rows, std::int64_t d, const std::int64_t* offsets, std::int64_t groups, EdgeMap map,
                         const double* teleport, const double* start, const RankOptions& options, int threads,
                         T* scores, RankOutcome* outcome) {
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t first = offsets[g], m = offsets[g + 1] - first;
    if (!is_large(m)) continue;
    outcome[g] = rank_large_embeddings(rows + first * d, m, d, map, part(teleport, first), part(start, first), options,
                                       threads, scores + first);
  }
  const double ns = estimated_gram_ns(offsets, groups, d) + estimated_sweeps_ns(offsets, groups);
  parallel_for(groups, useful_threads(ns, threads), [&](std::int64_t begin, std::int64_t end) {
    GroupGram<T> gram;
    GramRanker<T> ranker(map, options);
    for (std::int64_t g = begin; g < end; ++g) {
      const std::int64_t first = offsets[g], m = offsets[g + 1] - first;
      if (is_large(m)) continue;
      const bool has_next = g + 1 < end && offsets[g + 2] - offsets[g + 1] == m;
      if (!gram.compute(rows + first * d, m, d, has_next)) {
        outcome[g] = {kBadInput, 0.0};
        continue;
      }
      outcome[g] = ranker.rank(gram, m, part(teleport, first), part(start, first), scores + first);
    }
  });
}

// Ranks small explicit graphs from a padded copy.
template <typename T>
class DenseRanker {
 public:
  explicit DenseRanker(const RankOptions& options) : ranker_(options) {}

  RankOutcome rank(const T* weights, std::int64_t m, const double* teleport, const double* start, T* scores) {
    const std::int64_t ld = round_up(m, 8);
    T* padded = padded_.reserve(m * ld);
    for (std::int64_t i = 0; i < m; ++i) {
      std::copy(weights + i * m, weights + (i + 1) * m, padded + i * ld);
      std::fill(padded + i * ld + m, padded + (i + 1) * ld, T(0));
    }
    sums_.resize(static_cast<std::size_t>(m));
    if (!sweep_kernels<T>().row_sums(padded, 0, m, m, ld, sums_.data())) return {kBadInput, 0.0};
    return ranker_.rank({padded, m, ld}, sums_.data(), teleport, start, false, scores);
  }

 private:
  GroupRanker<T> ranker_;
  Scratch<T> padded_;
  std::vector<double> sums_;
};

template <typename T>
void textrank_dense(const T* weights, const std::int64_t* offsets, std::int64_t groups, const double* teleport,
                    const double* start, const RankOptions& options, int threads, T* scores, RankOutcome* outcome) {
  std::vector<std::int64_t> blocks(static_cast<std::size_t>(groups) + 1);
  square_block_offsets(offsets, groups, blocks.data());
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t first = offsets[g], m = offsets[g + 1] - first;
    if (!is_large(m)) continue;
    outcome[g] = rank_large_dense(weights + blocks[static_cast<std::size_t>(g)], m, m, Stored::all, false,
                                  part(teleport, first), part(start, first), options, threads, scores + first);
  }
  const int used = useful_threads(estimated_sweeps_ns(offsets, groups), threads);
  parallel_for(groups, used, [&](std::int64_t begin, std::int64_t end) {
    DenseRanker<T> ranker(options);
    for (std::int64_t g = begin; g < end; ++g) {
      const std::int64_t first = offsets[g], m = offsets[g + 1] - first;
      if (is_large(m)) continue;
      outcome[g] = ranker.rank(weights + blocks[static_cast<std::size_t>(g)], m, part(teleport, first),
                               part(start, first), scores + first);
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
