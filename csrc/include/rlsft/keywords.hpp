// Keywords of texts: PageRank of words that stand near each other (Mihalcea and Tarau 2004), on token ids.
#pragma once

#include <cstdint>

namespace rlsft {

struct KeywordOptions {
  std::int64_t window = 2;   // words p and q are neighbours when |p - q| < window, counted over all tokens
  bool weighted = false;     // an edge weighs the number of pairs, not 1
  bool directed = false;     // from the earlier word to the later one
  double damping = 0.85;     // a
  double tol = 1e-10;        // stop when sum_j |x_j - previous x_j| < tol
  std::int64_t max_iter = 1000;
};

// x_j = (1-a)/n + a (sum_{i: s_i>0} x_i w_ij / s_i + D/n) over the n distinct kept tokens of each text; s_i = sum_j
// w_ij, D the sum of x_i over words without edges; a word is no neighbour of itself. Jacobi sweeps in double.
// Words are written in the order of their first appearance, those of text t from offsets[t] on: ids, scores and counts
// [offsets[texts]], of which words[t] are written for text t; n_iter and residual [texts].
// keep (may be null) [offsets[texts]]: which tokens may be words. O(tokens * window + sweeps * edges) time.
void keyword_rank_texts(const std::int64_t* tokens, const bool* keep, const std::int64_t* offsets, std::int64_t texts,
                        const KeywordOptions& options, int threads, std::int64_t* ids, double* scores,
                        std::int64_t* counts, std::int64_t* words, std::int64_t* n_iter, double* residual);

}  // namespace rlsft
