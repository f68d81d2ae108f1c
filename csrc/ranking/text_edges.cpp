#include "rlsft/text_edges.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "rlsft/parallel.hpp"
#include "rlsft/similarity.hpp"

namespace rlsft {
namespace {

struct Word {
  std::int64_t id;
  std::int64_t count;
};

struct Response {
  std::vector<Word> words;  // distinct, ascending ids
  std::int64_t length = 0;  // with repeats
};

Response count_words(const std::int64_t* begin, const std::int64_t* end) {
  std::vector<std::int64_t> sorted(begin, end);
  std::sort(sorted.begin(), sorted.end());
  Response response;
  response.length = end - begin;
  for (const std::int64_t id : sorted) {
    if (response.words.empty() || response.words.back().id != id) response.words.push_back({id, 0});
    ++response.words.back().count;
  }
  return response;
}

// Calls visit(word of a, word of b) for every id in both.
template <typename Visit>
void for_shared_words(const Response& a, const Response& b, Visit visit) {
  auto left = a.words.begin();
  auto right = b.words.begin();
  while (left != a.words.end() && right != b.words.end()) {
    if (left->id == right->id) {
      visit(*left++, *right++);
    } else if (left->id < right->id) {
      ++left;
    } else {
      ++right;
    }
  }
}

double word_overlap(const Response& a, const Response& b, bool multiset) {
  if (a.length == 0 || b.length == 0) return 0.0;
  const double denominator = std::log(static_cast<double>(a.length)) + std::log(static_cast<double>(b.length));
  if (denominator == 0.0) return 0.0;
  std::int64_t shared = 0;
  for_shared_words(a, b, [&](const Word& x, const Word& y) { shared += multiset ? std::min(x.count, y.count) : 1; });
  return static_cast<double>(shared) / denominator;
}

class Bm25 {
 public:
  explicit Bm25(const std::vector<Response>& responses) {
    const double n = static_cast<double>(responses.size());
    for (const Response& response : responses) {
      mean_length_ += static_cast<double>(response.length) / n;
      for (const Word& word : response.words) idf_[word.id] += 1.0;
    }
    double sum = 0.0;
    for (auto& [id, value] : idf_) {
      const double containing = value;
      value = std::log(n - containing + 0.5) - std::log(containing + 0.5);
      sum += value;
    }
    // a word in most responses has a negative idf, and a negative weight must never enter the graph
    const double floor = idf_.empty() ? 0.0 : std::max(0.0, 0.25 * sum / static_cast<double>(idf_.size()));
    for (auto& [id, value] : idf_) value = value < 0.0 ? floor : value;
  }

  double score(const Response& query, const Response& document) const {
    constexpr double kK1 = 1.2, kB = 0.75;
    const double length = mean_length_ > 0.0 ? static_cast<double>(document.length) / mean_length_ : 0.0;
    double sum = 0.0;
    for_shared_words(query, document, [&](const Word& asked, const Word& found) {
      const double count = static_cast<double>(found.count);
      const double saturated = count * (kK1 + 1.0) / (count + kK1 * (1.0 - kB + kB * length));
      sum += static_cast<double>(asked.count) * idf_.at(asked.id) * saturated;
    });
    return sum;
  }

 private:
  std::map<std::int64_t, double> idf_;
  double mean_length_ = 0.0;
};

void group_edges(const std::vector<Response>& responses, TextEdge kind, double* edges) {
  const std::size_t m = responses.size();
  const Bm25 bm25(kind == TextEdge::bm25 ? responses : std::vector<Response>{});
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < m; ++j) {
      double weight = 0.0;
      if (i != j && kind == TextEdge::bm25) weight = bm25.score(responses[i], responses[j]);
      if (i != j && kind != TextEdge::bm25) {
        weight = word_overlap(responses[i], responses[j], kind == TextEdge::word_overlap_multiset);
      }
      edges[i * m + j] = weight;
    }
  }
}

}  // namespace

void text_edges_groups(const std::int64_t* tokens, const std::int64_t* token_offsets, const std::int64_t* group_offsets,
                       std::int64_t groups, TextEdge kind, int threads, double* edges) {
  std::vector<std::int64_t> blocks(static_cast<std::size_t>(groups) + 1);
  square_block_offsets(group_offsets, groups, blocks.data());
  const double ns = static_cast<double>(blocks.back()) * 100.0;
  parallel_for(groups, useful_threads(ns, threads), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin; g < end; ++g) {
      std::vector<Response> responses;
      for (std::int64_t r = group_offsets[g]; r < group_offsets[g + 1]; ++r) {
        responses.push_back(count_words(tokens + token_offsets[r], tokens + token_offsets[r + 1]));
      }
      group_edges(responses, kind, edges + blocks[static_cast<std::size_t>(g)]);
    }
  });
}

}  // namespace rlsft
