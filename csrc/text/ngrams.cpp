#include "rlsft/ngrams.hpp"

#include <algorithm>

namespace rlsft {

void NGramNumbers::first_order() {
  order_ = 1;
  word_.resize(ids_.size());
  words_ = distinct_ = vocabulary_.number(ids_.data(), static_cast<std::int64_t>(ids_.size()), word_.data());
  grams_ = word_;
  begin_.assign(1, 0);
  for (const std::int64_t length : length_) begin_.push_back(begin_.back() + length);
}

void NGramNumbers::next_order() {
  std::int64_t first_word = 0, pairs = 0;
  for (std::int64_t t = 0; t < texts(); ++t) {
    const std::int32_t* prefix = grams_.data() + begin_[t];
    const std::int64_t many = std::max<std::int64_t>(0, length_[t] - order_);
    begin_[t] = pairs;  // the old start is used up
    for (std::int64_t k = 0; k < many; ++k) ids_[pairs++] = prefix[k] * words_ + word_[first_word + k + order_];
    first_word += length_[t];
  }
  begin_.back() = pairs;
  ++order_;
  grams_.resize(static_cast<std::size_t>(pairs));
  distinct_ = vocabulary_.number(ids_.data(), pairs, grams_.data());
}

}  // namespace rlsft
