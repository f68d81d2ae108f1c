#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "check.hpp"
#include "rlsft/keywords.hpp"
#include "rlsft/text_edges.hpp"
#include "rlsft/text_scores.hpp"
#include "rlsft/vocabulary.hpp"

namespace {

using rlsft::TextEdge;
using Ids = std::vector<std::int64_t>;

Ids random_ids(std::int64_t count, std::int64_t vocabulary, std::int64_t step, unsigned seed) {
  std::mt19937 generator(seed);
  std::geometric_distribution<std::int64_t> word(4.0 / static_cast<double>(vocabulary));
  Ids ids(static_cast<std::size_t>(count));
  for (std::int64_t& id : ids) id = (word(generator) - 3) * step;
  return ids;
}

// small ids, ids beyond any table, equal low bits, negative ids
void numbers_follow_first_appearance() {
  for (const std::int64_t step : {std::int64_t{1}, std::int64_t{1} << 20, std::int64_t{1} << 52}) {
    rlsft::Vocabulary vocabulary(100);
    for (const std::int64_t count : {0, 1, 5, 1000, 3, 5000}) {
      const Ids ids = random_ids(count, 300, step, static_cast<unsigned>(count));
      std::vector<std::int32_t> numbers(ids.size());
      const std::int64_t words = vocabulary.number(ids.data(), count, numbers.data());
      std::map<std::int64_t, std::int32_t> expected;
      for (std::size_t t = 0; t < ids.size(); ++t) {
        const auto known = expected.emplace(ids[t], static_cast<std::int32_t>(expected.size())).first;
        CHECK(known->second == numbers[t]);
      }
      CHECK(words == static_cast<std::int64_t>(expected.size()));
    }
  }
}

std::vector<double> edges_of(const Ids& ids, const Ids& offsets, const Ids& groups, TextEdge kind, int threads) {
  std::int64_t entries = 0;
  for (std::size_t g = 0; g + 1 < groups.size(); ++g) {
    const std::int64_t m = groups[g + 1] - groups[g];
    entries += m * m;
  }
  std::vector<double> edges(static_cast<std::size_t>(entries), -1.0);
  const std::int64_t count = static_cast<std::int64_t>(groups.size()) - 1;
  rlsft::text_edges_groups(ids.data(), offsets.data(), groups.data(), count, kind, threads, edges.data());
  return edges;
}

double naive_overlap(const Ids& ids, const Ids& offsets, std::int64_t i, std::int64_t j, bool multiset) {
  std::map<std::int64_t, std::int64_t> a, b;
  for (std::int64_t t = offsets[i]; t < offsets[i + 1]; ++t) ++a[ids[t]];
  for (std::int64_t t = offsets[j]; t < offsets[j + 1]; ++t) ++b[ids[t]];
  std::int64_t shared = 0;
  for (const auto& [id, count] : a) {
    if (b.count(id) != 0) shared += multiset ? std::min(count, b[id]) : 1;
  }
  const double logs = std::log(static_cast<double>(offsets[i + 1] - offsets[i])) +
                      std::log(static_cast<double>(offsets[j + 1] - offsets[j]));
  return shared == 0 || i == j || logs == 0.0 ? 0.0 : static_cast<double>(shared) / logs;
}

// every number of responses around the vector width and the limit of rare words
void overlap_equals_a_naive_count() {
  for (const std::int64_t m : {1, 2, 7, 8, 9, 32, 33, 64, 100}) {
    for (const std::int64_t length : {1, 3, 40}) {
      Ids offsets{0};
      for (std::int64_t r = 0; r < m; ++r) offsets.push_back(offsets.back() + (r * 7 + length) % (length + 2));
      const Ids ids = random_ids(offsets.back(), 200, 1, static_cast<unsigned>(m));
      for (const bool multiset : {false, true}) {
        const TextEdge kind = multiset ? TextEdge::word_overlap_multiset : TextEdge::word_overlap_set;
        const std::vector<double> edges = edges_of(ids, offsets, {0, m}, kind, 1);
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < m; ++j) CHECK(edges[i * m + j] == naive_overlap(ids, offsets, i, j, multiset));
        }
      }
    }
  }
}

void groups_and_threads_change_no_bit() {
  Ids offsets{0};
  for (std::int64_t r = 0; r < 900; ++r) offsets.push_back(offsets.back() + r % 50);
  const Ids ids = random_ids(offsets.back(), 400, 1, 3);
  for (const TextEdge kind : {TextEdge::word_overlap_set, TextEdge::word_overlap_multiset, TextEdge::bm25}) {
    const Ids groups{0, 0, 3, 40, 900};
    const std::vector<double> one = edges_of(ids, offsets, groups, kind, 1);
    CHECK(one == edges_of(ids, offsets, groups, kind, 3));
    CHECK(edges_of(ids, offsets, {0, 900}, kind, 1) == edges_of(ids, offsets, {0, 900}, kind, 4));
    for (const double weight : one) CHECK(weight >= 0.0);
    CHECK(edges_of(ids, offsets, {0}, kind, 2).empty());
  }
}

struct Keywords {
  explicit Keywords(std::size_t tokens, std::size_t texts)
      : ids(tokens), scores(tokens), counts(tokens), words(texts), n_iter(texts), residual(texts) {}
  Ids ids;
  std::vector<double> scores;
  Ids counts, words, n_iter;
  std::vector<double> residual;
};

Keywords keywords_of(const Ids& ids, const bool* keep, const Ids& offsets, const rlsft::KeywordOptions& options,
                     int threads) {
  Keywords found(ids.size(), offsets.size() - 1);
  rlsft::keyword_rank_texts(ids.data(), keep, offsets.data(), static_cast<std::int64_t>(offsets.size()) - 1, options,
                            threads, found.ids.data(), found.scores.data(), found.counts.data(), found.words.data(),
                            found.n_iter.data(), found.residual.data());
  return found;
}

// 7 - 8 - 9: x_8 = .05 + .85 (x_7 + x_9), x_7 = x_9 = .05 + .425 x_8
void keywords_of_a_path_by_hand() {
  const Keywords found = keywords_of({7, 8, 9}, nullptr, {0, 3}, {}, 1);
  CHECK(found.words[0] == 3 && found.ids == Ids({7, 8, 9}));
  CHECK_NEAR(found.scores[1], .135 / .2775, 1e-9);
  CHECK_NEAR(found.scores[0], .05 + .425 * .135 / .2775, 1e-9);
}

void keywords_of_every_shape_sum_to_one() {
  Ids offsets{0};
  for (const std::int64_t length : {0, 1, 2, 0, 40, 3000, 5}) offsets.push_back(offsets.back() + length);
  const Ids ids = random_ids(offsets.back(), 200, 1, 11);
  const std::unique_ptr<bool[]> keep(new bool[ids.size()]);
  for (std::size_t t = 0; t < ids.size(); ++t) keep[t] = t % 3 != 0;
  for (const std::int64_t window : {2, 3, 200}) {
    for (const bool directed : {false, true}) {
      for (const bool* kept : {static_cast<const bool*>(nullptr), static_cast<const bool*>(keep.get())}) {
        const rlsft::KeywordOptions options{window, true, directed};
        const Keywords found = keywords_of(ids, kept, offsets, options, 1);
        for (std::size_t t = 0; t < found.words.size(); ++t) {
          const auto begin = found.scores.begin() + offsets[t];
          const double sum = std::accumulate(begin, begin + found.words[t], 0.0);
          CHECK_NEAR(sum, found.words[t] == 0 ? 0.0 : 1.0, 1e-12);
          CHECK(found.residual[t] < options.tol);
        }
        CHECK(found.scores == keywords_of(ids, kept, offsets, options, 3).scores);
      }
    }
  }
}

std::int64_t naive_common_subsequence(const Ids& a, const Ids& b) {
  std::vector<std::int64_t> row(b.size() + 1, 0);
  for (const std::int64_t id : a) {
    std::int64_t diagonal = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::int64_t above = row[j + 1];
      row[j + 1] = id == b[j] ? diagonal + 1 : std::max(above, row[j]);
      diagonal = above;
    }
  }
  return row.back();
}

// lengths around a machine word, ids from few to many: the carry runs through full and empty words
void rouge_l_equals_a_table() {
  for (const std::int64_t hypothesis : {0, 1, 63, 64, 65, 128, 129, 300}) {
    for (const std::int64_t reference : {0, 1, 64, 100, 257}) {
      for (const std::int64_t vocabulary : {4, 8, 200}) {
        const Ids a = random_ids(hypothesis, vocabulary, 1, 1), b = random_ids(reference, vocabulary, 1, 2);
        const Ids a_offsets{0, hypothesis}, b_offsets{0, reference}, groups{0, 1};
        double precision = -1, recall = -1, f1 = -1;
        rlsft::rouge_l_scores({{a.data(), a_offsets.data()}, 1, {b.data(), b_offsets.data()}, groups.data()}, 1,
                              &precision, &recall, &f1);
        const double shared = static_cast<double>(naive_common_subsequence(a, b));
        CHECK(precision == (shared == 0 ? 0 : shared / static_cast<double>(hypothesis)));
        CHECK(recall == (shared == 0 ? 0 : shared / static_cast<double>(reference)));
      }
    }
  }
}

// a text's score in its group is that of the text with all others as references
void self_bleu_equals_bleu_with_the_others() {
  Ids offsets{0};
  for (const std::int64_t length : {9, 0, 30, 1, 30, 31, 3, 200}) offsets.push_back(offsets.back() + length);
  const std::int64_t texts = static_cast<std::int64_t>(offsets.size()) - 1;
  const Ids ids = random_ids(offsets.back(), 20, 1, 4), groups{0, texts};
  for (const int smoothing : {0, 1, 2, 3}) {
    const rlsft::BleuOptions options{4, static_cast<rlsft::BleuSmoothing>(smoothing)};
    std::vector<double> scores(static_cast<std::size_t>(texts));
    rlsft::self_bleu_groups({ids.data(), offsets.data()}, groups.data(), 1, options, 1, scores.data());
    for (std::int64_t t = 0; t < texts; ++t) {
      Ids others(ids), other_offsets{0};
      others.erase(others.begin() + offsets[t], others.begin() + offsets[t + 1]);
      for (std::int64_t r = 0; r < texts; ++r) {
        if (r != t) other_offsets.push_back(other_offsets.back() + offsets[r + 1] - offsets[r]);
      }
      const Ids own{0, offsets[t + 1] - offsets[t]}, own_group{0, texts - 1};
      double bleu = -1, gleu = -1;
      const rlsft::ScoredTexts scored{
          {ids.data() + offsets[t], own.data()}, 1, {others.data(), other_offsets.data()}, own_group.data()};
      rlsft::bleu_scores(scored, options, 1, &bleu);
      rlsft::gleu_scores(scored, 1, 4, 1, &gleu);
      CHECK_NEAR(bleu, scores[static_cast<std::size_t>(t)], 1e-15);
      CHECK(gleu >= 0 && gleu <= 1);
    }
  }
}

}  // namespace

int main() {
  rouge_l_equals_a_table();
  self_bleu_equals_bleu_with_the_others();
  keywords_of_a_path_by_hand();
  keywords_of_every_shape_sum_to_one();
  numbers_follow_first_appearance();
  overlap_equals_a_naive_count();
  groups_and_threads_change_no_bit();
  return rlsft_test::finish();
}
