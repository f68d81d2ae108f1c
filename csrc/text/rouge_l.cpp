// ROUGE-L by the bit-parallel longest common subsequence: a step a word of the reference.
#include <algorithm>
#include <vector>

#include "rlsft/parallel.hpp"
#include "rlsft/text_scores.hpp"
#include "rlsft/vocabulary.hpp"

namespace rlsft {
namespace {

class CommonSubsequence {
 public:
  explicit CommonSubsequence(std::int64_t tokens) : vocabulary_(tokens) {}

  // Length of the longest common subsequence of pattern and text. O(text * pattern / 64).
  std::int64_t length(const std::int64_t* pattern, std::int64_t pattern_length, const std::int64_t* text,
                      std::int64_t text_length) {
    if (pattern_length == 0 || text_length == 0) return 0;
    mark_places(pattern, pattern_length, text, text_length);
    rest_.assign(static_cast<std::size_t>(words_), ~std::uint64_t{0});
    for (std::int64_t t = 0; t < text_length; ++t) {
      const std::int32_t number = numbers_[static_cast<std::size_t>(pattern_length + t)];
      if (number < known_) step(places_.data() + number * words_);
    }
    std::int64_t common = 0;  // bits that became 0; those beyond the pattern stay 1
    for (const std::uint64_t word : rest_) common += __builtin_popcountll(~word);
    return common;
  }

 private:
  // places_[word]: where the pattern has it, as bits
  void mark_places(const std::int64_t* pattern, std::int64_t pattern_length, const std::int64_t* text,
                   std::int64_t text_length) {
    ids_.assign(pattern, pattern + pattern_length);
    ids_.insert(ids_.end(), text, text + text_length);
    numbers_.resize(ids_.size());
    vocabulary_.number(ids_.data(), static_cast<std::int64_t>(ids_.size()), numbers_.data());
    known_ = *std::max_element(numbers_.begin(), numbers_.begin() + pattern_length) + 1;
    words_ = (pattern_length + 63) / 64;
    places_.assign(static_cast<std::size_t>(known_ * words_), 0);
    for (std::int64_t p = 0; p < pattern_length; ++p) {
      places_[static_cast<std::size_t>(numbers_[p] * words_ + (p >> 6))] |= std::uint64_t{1} << (p & 63);
    }
  }

  // V = (V + (V & M)) | (V & ~M) over all words of the pattern, the carry running through them
  void step(const std::uint64_t* match) {
    std::uint64_t carry = 0;
    for (std::int64_t w = 0; w < words_; ++w) {
      const std::uint64_t rest = rest_[w], hit = rest & match[w];
      const std::uint64_t with_carry = rest + carry;
      const std::uint64_t sum = with_carry + hit;
      carry = static_cast<std::uint64_t>(with_carry < carry) | static_cast<std::uint64_t>(sum < hit);
      rest_[w] = sum | (rest & ~match[w]);
    }
  }

  Vocabulary vocabulary_;
  std::int64_t known_ = 0, words_ = 0;
  std::vector<std::int64_t> ids_;
  std::vector<std::int32_t> numbers_;
  std::vector<std::uint64_t> places_, rest_;
};

}  // namespace

void rouge_l_scores(const ScoredTexts& texts, int threads, double* precision, double* recall, double* f1) {
  const std::int64_t* hypothesis = texts.hypotheses.offsets;
  const std::int64_t* reference = texts.references.offsets;
  const std::int64_t total = hypothesis[texts.count] + reference[texts.reference_groups[texts.count]];
  parallel_for(texts.count, useful_threads(static_cast<double>(total) * 15.0, threads),
               [&](std::int64_t begin, std::int64_t end) {
    CommonSubsequence common(total);
    for (std::int64_t i = begin; i < end; ++i) {
      precision[i] = recall[i] = f1[i] = 0.0;
      const std::int64_t length = hypothesis[i + 1] - hypothesis[i];
      for (std::int64_t r = texts.reference_groups[i]; r < texts.reference_groups[i + 1]; ++r) {
        const std::int64_t other = reference[r + 1] - reference[r];
        const std::int64_t shared = common.length(texts.hypotheses.ids + hypothesis[i], length,
                                                  texts.references.ids + reference[r], other);
        if (shared == 0) continue;
        const double p = static_cast<double>(shared) / static_cast<double>(length);
        const double q = static_cast<double>(shared) / static_cast<double>(other);
        const double f = 2 * p * q / (p + q);
        if (f <= f1[i]) continue;
        precision[i] = p;
        recall[i] = q;
        f1[i] = f;
      }
    }
  });
}

}  // namespace rlsft
