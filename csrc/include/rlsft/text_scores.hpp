// BLEU, GLEU and ROUGE-L of many token sequences: what a reward or a monitor needs in a loop.
#pragma once

#include <cstdint>

namespace rlsft {

// What stands for a precision without a match (Chen and Cherry 2014), by nltk's names. `order` counts such precisions,
// from 1; d is the number of n-grams, at least 1; L the length of the hypothesis.
enum class BleuSmoothing {
  none = 0,     // the smallest normal double
  method1 = 1,  // 0.1 / d
  method3 = 2,  // 1 / (2^order d)
  method4 = 3,  // log L / (5 * 2^order d), nothing for L = 1
};

struct BleuOptions {
  std::int64_t max_order = 4;  // at least 1
  BleuSmoothing smoothing = BleuSmoothing::method3;
};

// `count` token sequences one after the other; offsets [count + 1].
struct TokenTexts {
  const std::int64_t* ids;
  const std::int64_t* offsets;
};

// The references of hypothesis i are number reference_groups[i] to reference_groups[i + 1] - 1; there may be none.
struct ScoredTexts {
  TokenTexts hypotheses;
  std::int64_t count;
  TokenTexts references;
  const std::int64_t* reference_groups;  // [count + 1]
};

// bp * exp(mean of log p_n), with p_n the share of the hypothesis's n-grams that a reference holds (as often as the
// reference that holds it most often), bp = exp(min(0, 1 - r / L)) and r the reference length nearest to L, the
// smaller of two. 0 without a shared word. O(tokens * max_order). scores [count], out.
void bleu_scores(const ScoredTexts& texts, const BleuOptions& options, int threads, double* scores);

// Shared n-grams of min_order to max_order over the larger number of them in hypothesis and reference, for the best
// reference; 0 where both have none. O(tokens * max_order). scores [count], out.
void gleu_scores(const ScoredTexts& texts, std::int64_t min_order, std::int64_t max_order, int threads, double* scores);

// Longest common subsequence over the length of hypothesis (precision) and reference (recall), and their harmonic
// mean, of the reference with the largest mean. Bit-parallel (Hyyro 2004): O(reference * hypothesis / 64).
// precision, recall and f1 [count], out.
void rouge_l_scores(const ScoredTexts& texts, int threads, double* precision, double* recall, double* f1);

// BLEU of each text with the others of its group as references, NaN for one alone. O(tokens * max_order), where the
// plain way costs the number of texts times that. groups [num_groups + 1] cut the texts; scores [groups[num_groups]].
void self_bleu_groups(const TokenTexts& texts, const std::int64_t* groups, std::int64_t num_groups,
                      const BleuOptions& options, int threads, double* scores);

}  // namespace rlsft
