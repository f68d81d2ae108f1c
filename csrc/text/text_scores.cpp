#include "rlsft/text_scores.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "rlsft/ngrams.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft {
namespace {

constexpr double kNsPerNgram = 8.0;  // of one thread, for useful_threads

std::int64_t length_of(const TokenTexts& texts, std::int64_t i) { return texts.offsets[i + 1] - texts.offsets[i]; }
const std::int64_t* ids_of(const TokenTexts& texts, std::int64_t i) { return texts.ids + texts.offsets[i]; }

std::int64_t total_tokens(const ScoredTexts& texts) {
  return texts.hypotheses.offsets[texts.count] + texts.references.offsets[texts.reference_groups[texts.count]];
}

// The precisions of one hypothesis, added order by order.
class Bleu {
 public:
  Bleu(const BleuOptions& options, std::int64_t length) : options_(options), length_(length) {}

  void consider_reference(std::int64_t length) {
    const std::int64_t gap = std::abs(length - length_), best = std::abs(reference_ - length_);
    if (reference_ < 0 || gap < best || (gap == best && length < reference_)) reference_ = length;
  }

  // the next order: `matches` of the hypothesis's `grams` n-grams
  void add_order(std::int64_t matches, std::int64_t grams) {
    if (orders_++ == 0) is_zero_ = matches == 0;
    const double total = static_cast<double>(std::max<std::int64_t>(1, grams));
    const double precision = matches > 0 ? static_cast<double>(matches) / total : smoothed(total);
    if (precision > 0.0) log_sum_ += std::log(precision) / static_cast<double>(options_.max_order);
  }

  double score() const {
    if (is_zero_) return 0.0;
    const double penalty =
        length_ > reference_ ? 1.0 : std::exp(1.0 - static_cast<double>(reference_) / static_cast<double>(length_));
    return penalty * std::exp(log_sum_);
  }

 private:
  double smoothed(double total) {
    ++empty_orders_;
    switch (options_.smoothing) {
      case BleuSmoothing::none: return DBL_MIN;
      case BleuSmoothing::method1: return 0.1 / total;
      case BleuSmoothing::method3: return std::ldexp(1.0 / total, -empty_orders_);
      case BleuSmoothing::method4:  // 0, and so left out, for a hypothesis of one word
        return std::ldexp(std::log(static_cast<double>(length_)) / 5.0 / total, -empty_orders_);
    }
    return 0.0;
  }

  BleuOptions options_;
  std::int64_t length_, reference_ = -1;
  int orders_ = 0, empty_orders_ = 0;
  bool is_zero_ = true;
  double log_sum_ = 0.0;
};

// Counts of the n-grams of the first text and of others, by number: those of the first text come before all others.
class SharedGrams {
 public:
  void count_first(const NGramNumbers& grams) {
    first_.clear();
    for (std::int64_t k = 0; k < grams.count(0); ++k) {
      const std::size_t number = static_cast<std::size_t>(grams.grams(0)[k]);
      if (number == first_.size()) first_.push_back(0);
      ++first_[number];
    }
    most_.assign(first_.size(), 0);
  }

  void count_other(const NGramNumbers& grams, std::int64_t text) {
    other_.assign(first_.size(), 0);
    for (std::int64_t k = 0; k < grams.count(text); ++k) {
      const std::size_t number = static_cast<std::size_t>(grams.grams(text)[k]);
      if (number < other_.size()) ++other_[number];
    }
  }

  void keep_most() {
    for (std::size_t g = 0; g < most_.size(); ++g) most_[g] = std::max(most_[g], other_[g]);
  }
  std::int64_t shared_with_other() const { return sum_of_smaller(other_); }
  std::int64_t shared_with_most() const { return sum_of_smaller(most_); }

 private:
  std::int64_t sum_of_smaller(const std::vector<std::int32_t>& counts) const {
    std::int64_t sum = 0;
    for (std::size_t g = 0; g < first_.size(); ++g) sum += std::min(first_[g], counts[g]);
    return sum;
  }

  std::vector<std::int32_t> first_, other_, most_;
};

// Runs score(i, n-grams of hypothesis i and its references) for every i.
template <typename Score>
void for_each_hypothesis(const ScoredTexts& texts, std::int64_t max_order, int threads, const Score& make_score) {
  const std::int64_t total = total_tokens(texts);
  const double ns = static_cast<double>(total) * static_cast<double>(max_order) * kNsPerNgram;
  parallel_for(texts.count, useful_threads(ns, threads), [&](std::int64_t begin, std::int64_t end) {
    NGramNumbers grams(total);
    auto score = make_score();
    for (std::int64_t i = begin; i < end; ++i) {
      grams.begin();
      grams.add(ids_of(texts.hypotheses, i), length_of(texts.hypotheses, i));
      for (std::int64_t r = texts.reference_groups[i]; r < texts.reference_groups[i + 1]; ++r) {
        grams.add(ids_of(texts.references, r), length_of(texts.references, r));
      }
      grams.first_order();
      score(i, grams);
    }
  });
}

// Of one n-gram in a group: the largest count, the text that has it, and the largest count of the other texts.
struct TopCounts {
  std::int32_t most = 0, holder = -1, second = 0;
};

class GroupBleu {
 public:
  GroupBleu(std::int64_t tokens, const BleuOptions& options) : grams_(tokens), options_(options) {}

  void score(const TokenTexts& texts, std::int64_t first, std::int64_t count, double* scores) {
    grams_.begin();
    bleus_.clear();
    for (std::int64_t t = 0; t < count; ++t) {
      grams_.add(ids_of(texts, first + t), length_of(texts, first + t));
      bleus_.emplace_back(options_, length_of(texts, first + t));
    }
    consider_other_lengths();
    for (std::int64_t order = 1; order <= options_.max_order; ++order) {
      if (order == 1) {
        grams_.first_order();
      } else {
        grams_.next_order();
      }
      add_order();
    }
    for (std::int64_t t = 0; t < count; ++t) {
      scores[t] = count < 2 ? std::numeric_limits<double>::quiet_NaN() : bleus_[static_cast<std::size_t>(t)].score();
    }
  }

 private:
  struct Entry {
    std::int32_t gram, count;
  };

  // The nearest other length stands beside a text's own among the sorted ones; each is tried with its first equal.
  void consider_other_lengths() {
    by_length_.resize(bleus_.size());
    for (std::size_t t = 0; t < by_length_.size(); ++t) by_length_[t] = static_cast<std::int64_t>(t);
    std::sort(by_length_.begin(), by_length_.end(),
              [&](std::int64_t a, std::int64_t b) { return grams_.length(a) < grams_.length(b); });
    for (std::size_t at = 0; at < by_length_.size(); ++at) {
      Bleu& bleu = bleus_[static_cast<std::size_t>(by_length_[at])];
      if (at > 0) bleu.consider_reference(grams_.length(by_length_[at - 1]));
      if (at + 1 < by_length_.size()) bleu.consider_reference(grams_.length(by_length_[at + 1]));
    }
  }

  void add_order() {
    count_entries();
    top_.assign(static_cast<std::size_t>(grams_.distinct()), TopCounts{});
    for (std::int64_t t = 0; t < grams_.texts(); ++t) {
      for (std::int64_t e = entry_begin_[t]; e < entry_begin_[t + 1]; ++e) {
        raise(top_[entries_[e].gram], entries_[e].count, t);
      }
    }
    for (std::int64_t t = 0; t < grams_.texts(); ++t) {
      std::int64_t matches = 0;
      for (std::int64_t e = entry_begin_[t]; e < entry_begin_[t + 1]; ++e) {
        const TopCounts& top = top_[entries_[e].gram];
        matches += std::min(entries_[e].count, top.holder == t ? top.second : top.most);
      }
      bleus_[static_cast<std::size_t>(t)].add_order(matches, grams_.count(t));
    }
  }

  static void raise(TopCounts& top, std::int32_t count, std::int64_t text) {
    if (count > top.most) {
      top.second = top.most;
      top.most = count;
      top.holder = static_cast<std::int32_t>(text);
    } else {
      top.second = std::max(top.second, count);
    }
  }

  // Distinct n-grams of each text with their counts, without a branch on whether one is new.
  void count_entries() {
    entry_begin_.assign(1, 0);
    entries_.assign(static_cast<std::size_t>(grams_.count_all()), Entry{0, 0});
    seen_.assign(static_cast<std::size_t>(grams_.distinct()), 0);
    std::uint64_t count = 0;
    for (std::int64_t t = 0; t < grams_.texts(); ++t) {
      const std::uint64_t here = static_cast<std::uint64_t>(t + 1) << 32;
      const std::int32_t* gram = grams_.grams(t);
      for (const std::int32_t* end = gram + grams_.count(t); gram != end; ++gram) {
        std::uint64_t& seen = seen_[*gram];
        const std::uint64_t is_new = (seen ^ here) >> 32 != 0;
        const std::uint64_t entry = count ^ ((count ^ (seen & 0xffffffffu)) & (is_new - 1));
        seen = here | entry;
        entries_[entry].gram = *gram;
        ++entries_[entry].count;
        count += is_new;
      }
      entry_begin_.push_back(static_cast<std::int64_t>(count));
    }
  }

  NGramNumbers grams_;
  BleuOptions options_;
  std::vector<Bleu> bleus_;                            // [texts]
  std::vector<std::int64_t> by_length_, entry_begin_;  // [texts], [texts + 1]
  std::vector<Entry> entries_;
  std::vector<TopCounts> top_;        // [distinct]
  std::vector<std::uint64_t> seen_;   // [distinct] (last text with the n-gram + 1) << 32 | its entry
};

}  // namespace

void bleu_scores(const ScoredTexts& texts, const BleuOptions& options, int threads, double* scores) {
  for_each_hypothesis(texts, options.max_order, threads, [&] {
    return [&, shared = SharedGrams()](std::int64_t i, NGramNumbers& grams) mutable {
      Bleu bleu(options, grams.length(0));
      for (std::int64_t t = 1; t < grams.texts(); ++t) bleu.consider_reference(grams.length(t));
      for (std::int64_t order = 1; order <= options.max_order; ++order) {
        if (order > 1) grams.next_order();
        shared.count_first(grams);
        for (std::int64_t t = 1; t < grams.texts(); ++t) {
          shared.count_other(grams, t);
          shared.keep_most();
        }
        bleu.add_order(shared.shared_with_most(), grams.count(0));
      }
      scores[i] = bleu.score();
    };
  });
}

void gleu_scores(const ScoredTexts& texts, std::int64_t min_order, std::int64_t max_order, int threads,
                 double* scores) {
  for_each_hypothesis(texts, max_order, threads, [&] {
    return [&, shared = SharedGrams(), matches = std::vector<std::int64_t>(), totals = std::vector<std::int64_t>()](
               std::int64_t i, NGramNumbers& grams) mutable {
      matches.assign(static_cast<std::size_t>(grams.texts()), 0);
      totals.assign(static_cast<std::size_t>(grams.texts()), 0);
      for (std::int64_t order = 1; order <= max_order; ++order) {
        if (order > 1) grams.next_order();
        if (order < min_order) continue;
        shared.count_first(grams);
        for (std::int64_t t = 0; t < grams.texts(); ++t) {
          totals[t] += grams.count(t);
          if (t == 0) continue;
          shared.count_other(grams, t);
          matches[t] += shared.shared_with_other();
        }
      }
      double best = 0.0;
      for (std::size_t t = 1; t < totals.size(); ++t) {
        const std::int64_t larger = std::max(totals[0], totals[t]);
        if (larger > 0) best = std::max(best, static_cast<double>(matches[t]) / static_cast<double>(larger));
      }
      scores[i] = best;
    };
  });
}

void self_bleu_groups(const TokenTexts& texts, const std::int64_t* groups, std::int64_t num_groups,
                      const BleuOptions& options, int threads, double* scores) {
  const std::int64_t total = texts.offsets[groups[num_groups]];
  const double ns = static_cast<double>(total) * static_cast<double>(options.max_order) * kNsPerNgram;
  parallel_for(num_groups, useful_threads(ns, threads), [&](std::int64_t begin, std::int64_t end) {
    GroupBleu group(total, options);
    for (std::int64_t g = begin; g < end; ++g) {
      group.score(texts, groups[g], groups[g + 1] - groups[g], scores + groups[g]);
    }
  });
}

}  // namespace rlsft
