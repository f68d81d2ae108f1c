#include "rlsft/keywords.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "rlsft/parallel.hpp"
#include "rlsft/vocabulary.hpp"

namespace rlsft {
namespace {

constexpr std::int32_t kNoWord = -1;

// The words of one text and, for each, the words with an edge to it. Made to be filled again and again.
class NeighbourGraph {
 public:
  explicit NeighbourGraph(std::int64_t tokens) : vocabulary_(tokens) {}

  // Writes ids and counts of the kept words; returns how many there are.
  std::int64_t read(const std::int64_t* tokens, const bool* keep, std::int64_t length, std::int64_t* ids,
                    std::int64_t* counts) {
    kept_.clear();
    for (std::int64_t t = 0; t < length; ++t) {
      if (keep == nullptr || keep[t]) kept_.push_back(tokens[t]);
    }
    numbers_.resize(kept_.size());
    words_ = vocabulary_.number(kept_.data(), static_cast<std::int64_t>(kept_.size()), numbers_.data());
    std::fill(counts, counts + words_, 0);
    place_.assign(static_cast<std::size_t>(length), kNoWord);
    std::size_t next = 0;
    for (std::int64_t t = 0; t < length; ++t) {
      if (keep != nullptr && !keep[t]) continue;
      const std::int32_t word = numbers_[next++];
      place_[t] = word;
      ids[word] = tokens[t];
      ++counts[word];
    }
    return words_;
  }

  void connect(const KeywordOptions& options) {
    collect_pairs(options);
    merge_pairs(options.weighted);
  }

  // Stops at a step below tol or at max_iter; returns the sweeps, `step` is the last one.
  std::int64_t rank(const KeywordOptions& options, double* x, double* step) {
    start(options, x);
    next_.resize(static_cast<std::size_t>(words_));
    spread_.resize(static_cast<std::size_t>(words_));
    std::int64_t sweeps = 0;
    *step = words_ == 0 ? 0.0 : std::numeric_limits<double>::infinity();
    while (sweeps < options.max_iter && !(*step < options.tol)) {
      *step = sweep(options.damping, x);
      std::copy(next_.begin(), next_.end(), x);
      ++sweeps;
    }
    return sweeps;
  }

 private:
  // Every ordered pair (from, to) that stands within a window, sorted by `to`.
  void collect_pairs(const KeywordOptions& options) {
    const std::int64_t length = static_cast<std::int64_t>(place_.size());
    const auto each_pair = [&](auto visit) {
      for (std::int64_t later = 0; later < length; ++later) {
        if (place_[later] == kNoWord) continue;
        for (std::int64_t earlier = std::max<std::int64_t>(0, later - options.window + 1); earlier < later; ++earlier) {
          if (place_[earlier] == kNoWord || place_[earlier] == place_[later]) continue;
          visit(place_[earlier], place_[later]);
          if (!options.directed) visit(place_[later], place_[earlier]);
        }
      }
    };
    begin_.assign(static_cast<std::size_t>(words_) + 1, 0);
    each_pair([&](std::int32_t, std::int32_t to) { ++begin_[to + 1]; });
    for (std::int64_t w = 0; w < words_; ++w) begin_[w + 1] += begin_[w];
    from_.resize(static_cast<std::size_t>(begin_[words_]));
    cursor_.assign(begin_.begin(), begin_.end() - 1);
    each_pair([&](std::int32_t from, std::int32_t to) { from_[cursor_[to]++] = from; });
  }

  // Repeated pairs become one edge, in place: row w then ends at end_[w].
  void merge_pairs(bool weighted) {
    weight_.resize(from_.size());
    end_.resize(static_cast<std::size_t>(words_));
    strength_.assign(static_cast<std::size_t>(words_), 0.0);
    edge_.assign(static_cast<std::size_t>(words_), -1);  // of a word in the row at hand
    for (std::int64_t w = 0; w < words_; ++w) {
      std::int64_t end = begin_[w];
      for (std::int64_t p = begin_[w]; p < begin_[w + 1]; ++p) {
        const std::int32_t from = from_[p];
        const bool is_new = edge_[from] < begin_[w];
        if (is_new) {
          edge_[from] = end;
          from_[end] = from;
          weight_[end++] = 0.0;
        }
        if (!is_new && !weighted) continue;
        weight_[edge_[from]] += 1.0;
        strength_[from] += 1.0;
      }
      end_[w] = end;
    }
  }

  // Without damping the scores of an undirected graph are proportional to the strengths: a start near the end.
  void start(const KeywordOptions& options, double* x) const {
    double total = 0.0;
    for (const double strength : strength_) total += strength;
    const double uniform = words_ == 0 ? 0.0 : 1.0 / static_cast<double>(words_);
    const bool by_strength = !options.directed && total > 0.0;
    for (std::int64_t w = 0; w < words_; ++w) {
      x[w] = by_strength ? options.damping * strength_[w] / total + (1.0 - options.damping) * uniform : uniform;
    }
  }

  double sweep(double damping, const double* x) {
    double dangling = 0.0;
    for (std::int64_t w = 0; w < words_; ++w) {
      const bool leads_on = strength_[w] > 0.0;
      spread_[w] = leads_on ? x[w] / strength_[w] : 0.0;
      if (!leads_on) dangling += x[w];
    }
    const double base = (1.0 - damping + damping * dangling) / static_cast<double>(words_);
    double step = 0.0;
    for (std::int64_t w = 0; w < words_; ++w) {
      double sum = 0.0;
      for (std::int64_t e = begin_[w]; e < end_[w]; ++e) sum += spread_[from_[e]] * weight_[e];
      next_[w] = base + damping * sum;
      step += std::abs(next_[w] - x[w]);
    }
    return step;
  }

  Vocabulary vocabulary_;
  std::int64_t words_ = 0;
  std::vector<std::int64_t> kept_;                 // kept tokens without the gaps
  std::vector<std::int32_t> numbers_, place_;      // word of each kept token; of each token, or kNoWord
  std::vector<std::int64_t> begin_, end_, cursor_;  // row of each word in from_ and weight_
  std::vector<std::int64_t> edge_;                 // [words]
  std::vector<std::int32_t> from_;
  std::vector<double> weight_, strength_, next_, spread_;
};

}  // namespace

void keyword_rank_texts(const std::int64_t* tokens, const bool* keep, const std::int64_t* offsets, std::int64_t texts,
                        const KeywordOptions& options, int threads, std::int64_t* ids, double* scores,
                        std::int64_t* counts, std::int64_t* words, std::int64_t* n_iter, double* residual) {
  const std::int64_t total = offsets[texts];
  const double ns = static_cast<double>(total) * 40.0 * static_cast<double>(options.window);
  parallel_for(texts, useful_threads(ns, threads), [&](std::int64_t begin, std::int64_t end) {
    NeighbourGraph graph(total);
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t first = offsets[t];
      const bool* kept = keep == nullptr ? nullptr : keep + first;
      words[t] = graph.read(tokens + first, kept, offsets[t + 1] - first, ids + first, counts + first);
      graph.connect(options);
      n_iter[t] = graph.rank(options, scores + first, residual + t);
    }
  });
}

}  // namespace rlsft
