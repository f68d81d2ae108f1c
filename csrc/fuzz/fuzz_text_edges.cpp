#include <algorithm>
#include <map>

#include "fuzz_input.hpp"
#include "rlsft/text_edges.hpp"

namespace {

using namespace rlsft_fuzz;
using rlsft::TextEdge;
using Counts = std::map<std::int64_t, std::int64_t>;

struct Texts {
  std::vector<std::int64_t> tokens, token_offsets, group_offsets;
};

Texts read(Input& in) {
  Texts texts;
  const bool any_id = in.flag();  // ids are any int64, not only small and positive
  texts.group_offsets = in.offsets(2, 10);
  texts.token_offsets = {0};
  for (std::int64_t r = 0; r < texts.group_offsets.back(); ++r) {
    for (std::int64_t length = in.between(0, 9); length > 0; --length) {
      const std::uint8_t id = in.byte();
      texts.tokens.push_back(any_id && id >= 128 ? std::numeric_limits<std::int64_t>::min() + 3 * (id / 8) : id % 24);
      if (any_id && id == 127) texts.tokens.back() = std::numeric_limits<std::int64_t>::max();
    }
    texts.token_offsets.push_back(static_cast<std::int64_t>(texts.tokens.size()));
  }
  return texts;
}

std::vector<double> edges_of(const Texts& texts, TextEdge kind, int threads) {
  std::int64_t entries = 0;
  for (std::size_t g = 0; g + 1 < texts.group_offsets.size(); ++g) {
    const std::int64_t m = texts.group_offsets[g + 1] - texts.group_offsets[g];
    entries += m * m;
  }
  std::vector<double> edges(static_cast<std::size_t>(entries), -7.0);
  rlsft::text_edges_groups(texts.tokens.data(), texts.token_offsets.data(), texts.group_offsets.data(),
                           static_cast<std::int64_t>(texts.group_offsets.size()) - 1, kind, threads, edges.data());
  return edges;
}

double size_of(const Counts& response) {
  double size = 0;
  for (const auto& [id, count] : response) size += static_cast<double>(count);
  return size;
}

double overlap(const Counts& a, const Counts& b, bool multiset) {
  double shared = 0;
  for (const auto& [id, count] : a) {
    const auto found = b.find(id);
    if (found != b.end()) shared += multiset ? static_cast<double>(std::min(count, found->second)) : 1.0;
  }
  const double denominator = a.empty() || b.empty() ? 0.0 : std::log(size_of(a)) + std::log(size_of(b));
  return denominator == 0 ? 0.0 : shared / denominator;
}

// BM25 straight from its definition.
class Bm25 {
 public:
  explicit Bm25(const std::vector<Counts>& all) : n_(static_cast<double>(all.size())) {
    for (const Counts& response : all) {
      total_length_ += size_of(response);
      for (const auto& [id, count] : response) ++containing_[id];
    }
    double sum_idf = 0;
    for (const auto& [id, count] : containing_) sum_idf += idf(id);
    floor_ = std::max(0.0, 0.25 * sum_idf / static_cast<double>(containing_.size()));
  }

  double score(const Counts& query, const Counts& document) const {
    double score = 0;
    for (const auto& [id, asked] : query) {
      const auto found = document.find(id);
      if (found == document.end()) continue;
      const double count = static_cast<double>(found->second), weight = idf(id) < 0 ? floor_ : idf(id);
      const double norm = 1.2 * (0.25 + 0.75 * size_of(document) * n_ / total_length_);
      score += static_cast<double>(asked) * weight * count * 2.2 / (count + norm);
    }
    return score;
  }

 private:
  double idf(std::int64_t id) const {
    const double holders = static_cast<double>(containing_.at(id));
    return std::log((n_ - holders + 0.5) / (holders + 0.5));
  }

  double n_, total_length_ = 0, floor_ = 0;
  Counts containing_;
};

void check_group(const std::vector<Counts>& all, TextEdge kind, const double* edges) {
  const std::size_t m = all.size();
  const Bm25 bm25(all);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < m; ++j) {
      const double edge = edges[i * m + j];
      REQUIRE(std::isfinite(edge) && edge >= 0);
      if (kind != TextEdge::bm25) REQUIRE(same_bits(&edge, &edges[j * m + i], 1));
      const double expected = i == j                   ? 0.0
                              : kind == TextEdge::bm25 ? bm25.score(all[i], all[j])
                                                       : overlap(all[i], all[j], kind == TextEdge::word_overlap_multiset);
      REQUIRE(std::abs(edge - expected) <= 1e-12 * std::max(1.0, expected));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  const TextEdge kind = in.pick({TextEdge::word_overlap_set, TextEdge::word_overlap_multiset, TextEdge::bm25});
  const int threads = static_cast<int>(in.between(1, 3));
  const Texts texts = read(in);
  const std::vector<double> edges = edges_of(texts, kind, 1);
  std::size_t block = 0;
  for (std::size_t g = 0; g + 1 < texts.group_offsets.size(); ++g) {
    std::vector<Counts> all;
    for (std::int64_t r = texts.group_offsets[g]; r < texts.group_offsets[g + 1]; ++r) {
      all.emplace_back();
      for (std::int64_t t = texts.token_offsets[r]; t < texts.token_offsets[r + 1]; ++t) ++all.back()[texts.tokens[t]];
    }
    check_group(all, kind, edges.data() + block);
    block += all.size() * all.size();
  }
  if (threads > 1) REQUIRE(same_bits(edges, edges_of(texts, kind, threads)));
  return 0;
}
