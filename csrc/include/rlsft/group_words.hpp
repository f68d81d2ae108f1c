// Which words a group's responses have, and which responses have a word.
#pragma once

#include <cstdint>
#include <vector>

#include "rlsft/vocabulary.hpp"

namespace rlsft {

// Numbers of words rise within a response, numbers of responses within a word. Made to be filled again and again.
struct GroupWords {
  std::int64_t responses = 0, words = 0;
  std::vector<std::int32_t> numbers;  // [tokens] word of each token
  std::vector<std::int64_t> length;   // [responses] with repeats

  // after count_words()
  std::vector<std::int64_t> response_begin;                   // [responses + 1] into entry_*
  std::vector<std::int32_t> entry_word, entry_count;          // distinct words of each response
  std::vector<std::int64_t> word_begin;                       // [words + 1] into posting_*
  std::vector<std::int32_t> posting_response, posting_count;  // responses that have each word

  std::int64_t responses_with(std::int64_t word) const { return word_begin[word + 1] - word_begin[word]; }

  // Numbers the words of `count` responses, tokens[offsets[0]] to tokens[offsets[count]]. O(tokens).
  void read(const std::int64_t* tokens, const std::int64_t* offsets, std::int64_t count, Vocabulary& vocabulary);
  // Fills entries and postings. O(tokens + words).
  void count_words();

 private:
  void count_entries();
  void make_postings();
  void sort_entries();

  std::vector<std::int64_t> cursor_;
  std::vector<std::uint64_t> seen_;  // [words] (last response with the word + 1) << 32 | its entry there
};

}  // namespace rlsft
