// Edges between responses from the words (token ids) they share.
#pragma once

#include <cstdint>

namespace rlsft {

enum class TextEdge {
  // |shared words| / (log |S_i| + log |S_j|) (Mihalcea and Tarau 2004); |S| counts words with repeats; 0 when the
  // denominator is 0 or a side is empty. Shared words as a set, or as a multiset: sum of the smaller counts.
  word_overlap_set = 0,
  word_overlap_multiset = 1,
  // w_ij = BM25 score of response j for the words of response i (Barrios et al. 2016): k1 = 1.2, b = 0.75, idf =
  // log((N - n + 0.5) / (n + 0.5)), and max(0, 0.25 * mean idf) for a word in more than half of the N responses.
  bm25 = 2,
};

// edges: flat m x m blocks, diagonal 0. token_offsets [responses + 1] cut `tokens`; group_offsets [groups + 1] cut the
// responses; the statistics of bm25 are those of the group. Bits depend neither on `threads` nor on the instruction
// set, and responses with the same words have equal edges. Overlap: O(tokens + m^2 * words a response) time, 64 words
// a step; bm25: O(tokens + sum over words of (responses with the word)^2).
void text_edges_groups(const std::int64_t* tokens, const std::int64_t* token_offsets, const std::int64_t* group_offsets,
                       std::int64_t groups, TextEdge kind, int threads, double* edges);

}  // namespace rlsft
