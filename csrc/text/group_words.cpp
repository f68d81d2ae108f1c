#include "rlsft/group_words.hpp"

namespace rlsft {

void GroupWords::read(const std::int64_t* tokens, const std::int64_t* offsets, std::int64_t count,
                      Vocabulary& vocabulary) {
  responses = count;
  const std::int64_t total = offsets[count] - offsets[0];
  numbers.resize(static_cast<std::size_t>(total));
  words = vocabulary.number(tokens + offsets[0], total, numbers.data());
  length.resize(static_cast<std::size_t>(count));
  for (std::int64_t r = 0; r < count; ++r) length[r] = offsets[r + 1] - offsets[r];
}

void GroupWords::count_words() {
  count_entries();
  make_postings();
  sort_entries();
}

// Free of branches on whether a word is new in its response, like Vocabulary.
void GroupWords::count_entries() {
  entry_word.resize(numbers.size());
  entry_count.assign(numbers.size(), 0);
  response_begin.assign(1, 0);
  word_begin.assign(static_cast<std::size_t>(words) + 1, 0);
  seen_.assign(static_cast<std::size_t>(words), 0);
  std::uint64_t entries = 0;
  const std::int32_t* number = numbers.data();
  for (std::int64_t r = 0; r < responses; ++r) {
    const std::uint64_t here = static_cast<std::uint64_t>(r + 1) << 32;
    for (const std::int32_t* end = number + length[r]; number != end; ++number) {
      std::uint64_t& seen = seen_[*number];
      const std::uint64_t is_new = (seen ^ here) >> 32 != 0;
      const std::uint64_t entry = entries ^ ((entries ^ (seen & 0xffffffffu)) & (is_new - 1));
      seen = here | entry;
      entry_word[entry] = *number;
      ++entry_count[entry];
      word_begin[*number + 1] += static_cast<std::int64_t>(is_new);
      entries += is_new;
    }
    response_begin.push_back(static_cast<std::int64_t>(entries));
  }
  for (std::int64_t w = 0; w < words; ++w) word_begin[w + 1] += word_begin[w];
}

void GroupWords::make_postings() {
  const std::size_t entries = static_cast<std::size_t>(response_begin.back());
  posting_response.resize(entries);
  posting_count.resize(entries);
  cursor_.assign(word_begin.begin(), word_begin.end() - 1);
  for (std::int64_t r = 0; r < responses; ++r) {
    for (std::int64_t e = response_begin[r]; e < response_begin[r + 1]; ++e) {
      const std::int64_t at = cursor_[entry_word[e]]++;
      posting_response[at] = static_cast<std::int32_t>(r);
      posting_count[at] = entry_count[e];
    }
  }
}

// Responses with the same words in another order must sum in the same order, or their edges would differ in bits.
void GroupWords::sort_entries() {
  cursor_.assign(response_begin.begin(), response_begin.end() - 1);
  for (std::int64_t w = 0; w < words; ++w) {
    for (std::int64_t p = word_begin[w]; p < word_begin[w + 1]; ++p) {
      const std::int64_t at = cursor_[posting_response[p]]++;
      entry_word[at] = static_cast<std::int32_t>(w);
      entry_count[at] = posting_count[p];
    }
  }
}

}  // namespace rlsft
