#include "rlsft/text_edges.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "rlsft/group_words.hpp"
#include "rlsft/overlap_kernels.hpp"
#include "rlsft/parallel.hpp"
#include "rlsft/similarity.hpp"
#include "rlsft/vocabulary.hpp"

namespace rlsft {
namespace {

// A word that less than one response in kRareShare has is counted through its postings, other words through bits: so
// the bits of a group need at most kRareShare times the distinct words of a response, however many words there are.
constexpr std::int64_t kRareShare = 32;

// Word overlap of one group. Shared words are the common bits of two responses; a multiset gives the k-th occurrence
// of a word a bit of its own, so that common bits are the smaller count.
class Overlap {
 public:
  void prepare(GroupWords& group, bool multiset) {
    group_ = &group;
    multiset_ = multiset;
    ld_ = (group.responses + kOverlapLanes - 1) / kOverlapLanes * kOverlapLanes;
    // infinite for an empty response and for padding: 0 / inf = 0
    logs_.assign(static_cast<std::size_t>(ld_), std::numeric_limits<double>::infinity());
    for (std::int64_t r = 0; r < group.responses; ++r) {
      if (group.length[r] > 0) logs_[r] = std::log(static_cast<double>(group.length[r]));
    }
    has_rare_ = group.responses > kRareShare;
    if (!multiset && !has_rare_) return set_bits_of_tokens();
    group.count_words();
    assign_bits();
    set_bits_of_entries();
  }

  void row(std::int64_t i, double* weights) const {
    const GroupWords& group = *group_;
    std::fill(weights, weights + group.responses, 0.0);
    if (has_rare_) {
      for (std::int64_t e = group.response_begin[i]; e < group.response_begin[i + 1]; ++e) {
        if (first_bit_[group.entry_word[e]] == kRare) count_rare(group.entry_word[e], group.entry_count[e], weights);
      }
    }
    kernel_(bits_.data(), bit_words_, ld_, i, logs_.data(), group.responses, weights);
    weights[i] = 0.0;
  }

 private:
  static constexpr std::int64_t kRare = -1, kAlone = -2;  // instead of a bit; kAlone: in one response only

  void clear_bits(std::int64_t bits) {
    bit_words_ = (bits + 63) / 64;
    bits_.assign(static_cast<std::size_t>(bit_words_ * ld_), 0);
  }

  void set_bit(std::int64_t bit, std::int64_t response) {
    bits_[static_cast<std::size_t>((bit >> 6) * ld_ + response)] |= std::uint64_t{1} << (bit & 63);
  }

  // A small group as a set: who has a word need not be known, every word gets a bit.
  void set_bits_of_tokens() {
    clear_bits(group_->words);
    const std::int32_t* number = group_->numbers.data();
    for (std::int64_t r = 0; r < group_->responses; ++r) {
      for (std::int64_t left = group_->length[r]; left > 0; --left) set_bit(*number++, r);
    }
  }

  void assign_bits() {
    first_bit_.resize(static_cast<std::size_t>(group_->words));
    std::int64_t bits = 0;
    for (std::int64_t w = 0; w < group_->words; ++w) {
      const std::int64_t holders = group_->responses_with(w);
      if (holders == 1) {
        first_bit_[w] = kAlone;
      } else if (has_rare_ && holders * kRareShare < group_->responses) {
        first_bit_[w] = kRare;
      } else {
        first_bit_[w] = bits;
        bits += multiset_ ? largest_count(w) : 1;
      }
    }
    clear_bits(bits);
  }

  std::int64_t largest_count(std::int64_t word) const {
    const auto counts = group_->posting_count.begin();
    return *std::max_element(counts + group_->word_begin[word], counts + group_->word_begin[word + 1]);
  }

  void set_bits_of_entries() {
    for (std::int64_t r = 0; r < group_->responses; ++r) {
      for (std::int64_t e = group_->response_begin[r]; e < group_->response_begin[r + 1]; ++e) {
        const std::int64_t first = first_bit_[group_->entry_word[e]];
        const std::int64_t many = first < 0 ? 0 : multiset_ ? group_->entry_count[e] : 1;
        for (std::int64_t k = 0; k < many; ++k) set_bit(first + k, r);
      }
    }
  }

  void count_rare(std::int32_t word, std::int32_t count, double* weights) const {
    for (std::int64_t p = group_->word_begin[word]; p < group_->word_begin[word + 1]; ++p) {
      weights[group_->posting_response[p]] += multiset_ ? std::min(count, group_->posting_count[p]) : 1;
    }
  }

  const GroupWords* group_ = nullptr;
  bool multiset_ = false, has_rare_ = false;
  std::int64_t ld_ = 0, bit_words_ = 0;
  std::vector<double> logs_;              // [ld]
  std::vector<std::int64_t> first_bit_;   // [words]
  std::vector<std::uint64_t> bits_;       // [bit_words, ld]
  OverlapRow kernel_ = overlap_row_kernel();
};

// BM25 of one group: row i is the sum over the words of response i of count * (what the word is worth in each j).
class Bm25 {
 public:
  void prepare(GroupWords& group) {
    group_ = &group;
    group.count_words();
    find_idf();
    find_worth();
  }

  void row(std::int64_t i, double* weights) const {
    const GroupWords& group = *group_;
    std::fill(weights, weights + group.responses, 0.0);
    for (std::int64_t e = group.response_begin[i]; e < group.response_begin[i + 1]; ++e) {
      const std::int32_t word = group.entry_word[e];
      const double asked = group.entry_count[e];
      if (is_silent(word)) continue;
      if (full_row_[word] >= 0) {
        const double* worth = full_worth_.data() + full_row_[word];
        for (std::int64_t j = 0; j < group.responses; ++j) weights[j] += asked * worth[j];
      } else {
        for (std::int64_t p = group.word_begin[word]; p < group.word_begin[word + 1]; ++p) {
          weights[group.posting_response[p]] += asked * worth_[p];
        }
      }
    }
    weights[i] = 0.0;
  }

 private:
  // adds nothing to any edge: in one response only, or of no weight
  bool is_silent(std::int64_t word) const { return group_->responses_with(word) == 1 || idf_[word] == 0.0; }

  void find_idf() {
    const double n = static_cast<double>(group_->responses);
    idf_of_holders_.resize(static_cast<std::size_t>(group_->responses) + 1);
    for (std::int64_t c = 1; c <= group_->responses; ++c) {
      idf_of_holders_[c] = std::log(n - static_cast<double>(c) + 0.5) - std::log(static_cast<double>(c) + 0.5);
    }
    double sum = 0.0;
    for (std::int64_t w = 0; w < group_->words; ++w) sum += idf_of_holders_[group_->responses_with(w)];
    // a word in most responses has a negative idf, and a negative weight must never enter the graph
    const double floor = group_->words == 0 ? 0.0 : std::max(0.0, 0.25 * sum / static_cast<double>(group_->words));
    idf_.resize(static_cast<std::size_t>(group_->words));
    for (std::int64_t w = 0; w < group_->words; ++w) {
      const double raw = idf_of_holders_[group_->responses_with(w)];
      idf_[w] = raw < 0.0 ? floor : raw;
    }
  }

  void find_worth() {
    constexpr double kK1 = 1.2, kB = 0.75;
    if (group_->words == 0) return;
    const double mean_length = static_cast<double>(group_->numbers.size()) / static_cast<double>(group_->responses);
    norms_.resize(static_cast<std::size_t>(group_->responses));
    for (std::int64_t r = 0; r < group_->responses; ++r) {
      norms_[r] = kK1 * (1.0 - kB + kB * (static_cast<double>(group_->length[r]) / mean_length));
    }
    worth_.resize(group_->posting_count.size());
    full_row_.assign(static_cast<std::size_t>(group_->words), -1);
    full_worth_.clear();
    for (std::int64_t w = 0; w < group_->words; ++w) {
      if (is_silent(w)) continue;
      for (std::int64_t p = group_->word_begin[w]; p < group_->word_begin[w + 1]; ++p) {
        const double count = group_->posting_count[p];
        worth_[p] = idf_[w] * (count * (kK1 + 1.0) / (count + norms_[group_->posting_response[p]]));
      }
      if (group_->responses_with(w) * 4 >= group_->responses) spread(w);
    }
  }

  // A frequent word's worth for every response, 0 where it is missing: a plain loop beats the postings then.
  void spread(std::int64_t word) {
    full_row_[word] = static_cast<std::int64_t>(full_worth_.size());
    full_worth_.resize(full_worth_.size() + static_cast<std::size_t>(group_->responses), 0.0);
    double* row = full_worth_.data() + full_row_[word];
    for (std::int64_t p = group_->word_begin[word]; p < group_->word_begin[word + 1]; ++p) {
      row[group_->posting_response[p]] = worth_[p];
    }
  }

  const GroupWords* group_ = nullptr;
  std::vector<double> idf_of_holders_;  // [responses + 1]
  std::vector<double> idf_;             // [words]
  std::vector<double> norms_;           // [responses] k1 * (1 - b + b * length / mean length)
  std::vector<double> worth_;           // [postings]
  std::vector<std::int64_t> full_row_;  // [words] start in full_worth_, or -1
  std::vector<double> full_worth_;
};

// Everything one thread needs for its groups, kept from group to group.
class EdgeMaker {
 public:
  EdgeMaker(std::int64_t tokens, TextEdge kind) : vocabulary_(tokens), kind_(kind) {}

  void make(const std::int64_t* tokens, const std::int64_t* offsets, std::int64_t responses, int threads,
            double* edges) {
    if (responses == 0) return;
    words_.read(tokens, offsets, responses, vocabulary_);
    if (kind_ == TextEdge::bm25) {
      bm25_.prepare(words_);
    } else {
      overlap_.prepare(words_, kind_ == TextEdge::word_overlap_multiset);
    }
    parallel_for(responses, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        if (kind_ == TextEdge::bm25) {
          bm25_.row(i, edges + i * responses);
        } else {
          overlap_.row(i, edges + i * responses);
        }
      }
    });
  }

 private:
  Vocabulary vocabulary_;
  TextEdge kind_;
  GroupWords words_;
  Overlap overlap_;
  Bm25 bm25_;
};

}  // namespace

void text_edges_groups(const std::int64_t* tokens, const std::int64_t* token_offsets, const std::int64_t* group_offsets,
                       std::int64_t groups, TextEdge kind, int threads, double* edges) {
  std::vector<std::int64_t> blocks(static_cast<std::size_t>(groups) + 1);
  square_block_offsets(group_offsets, groups, blocks.data());
  const std::int64_t total = token_offsets[group_offsets[groups]];
  const double ns = static_cast<double>(blocks.back()) * 3.0 + static_cast<double>(total) * 4.0;
  const int useful = useful_threads(ns, threads);
  const bool by_rows = groups < useful;  // few large groups: threads share the rows of each
  const auto make = [&](std::int64_t begin, std::int64_t end) {
    EdgeMaker maker(total, kind);
    for (std::int64_t g = begin; g < end; ++g) {
      const std::int64_t first = group_offsets[g];
      maker.make(tokens, token_offsets + first, group_offsets[g + 1] - first, by_rows ? useful : 1,
                 edges + blocks[static_cast<std::size_t>(g)]);
    }
  };
  if (by_rows) {
    make(0, groups);
  } else {
    parallel_for(groups, useful, make);
  }
}

}  // namespace rlsft
