// Numbers for the n-grams of a few texts, one order after the other.
#pragma once

#include <cstdint>
#include <vector>

#include "rlsft/vocabulary.hpp"

namespace rlsft {

// Equal n-grams have equal numbers 0, 1, .. by first appearance. An n-gram is the pair of its first n-1 words' number
// and its last word, so each order costs one look-up a token. Made to be filled again and again.
class NGramNumbers {
 public:
  explicit NGramNumbers(std::int64_t expected_tokens) : vocabulary_(expected_tokens) {}

  void begin() {
    ids_.clear();
    length_.clear();
  }
  void add(const std::int64_t* ids, std::int64_t count) {
    ids_.insert(ids_.end(), ids, ids + count);
    length_.push_back(count);
  }
  void first_order();  // words
  void next_order();

  std::int64_t texts() const { return static_cast<std::int64_t>(length_.size()); }
  std::int64_t distinct() const { return distinct_; }
  // the n-grams of a text in reading order, of the order at hand
  const std::int32_t* grams(std::int64_t text) const { return grams_.data() + begin_[text]; }
  std::int64_t count(std::int64_t text) const { return begin_[text + 1] - begin_[text]; }
  std::int64_t count_all() const { return begin_.back(); }
  std::int64_t length(std::int64_t text) const { return length_[text]; }

 private:
  Vocabulary vocabulary_;
  std::int64_t order_ = 0, distinct_ = 0, words_ = 0;
  std::vector<std::int64_t> ids_;           // tokens, then the pairs that stand for n-grams
  std::vector<std::int64_t> length_;        // [texts] in words
  std::vector<std::int64_t> begin_;         // [texts + 1] into grams_
  std::vector<std::int32_t> word_, grams_;  // number of each token; of each n-gram
};

}  // namespace rlsft
