#include <algorithm>

#include "fuzz_input.hpp"
#include "rlsft/keywords.hpp"
#include "rlsft/text_scores.hpp"

namespace {

using namespace rlsft_fuzz;

struct Texts {
  std::vector<std::int64_t> ids, offsets;
};

Texts read_texts(Input& in, std::int64_t most) {
  Texts texts;
  texts.offsets = in.offsets(most, 20);
  const std::int64_t words = in.between(1, 12), scale = in.flag() ? 1 : 1000000007;
  for (std::int64_t i = 0; i < texts.offsets.back(); ++i) texts.ids.push_back((in.byte() % words - words / 3) * scale);
  return texts;
}

bool is_share(double value) { return value >= 0 && value <= 1 + 1e-12; }

void check_scores(Input& in, const Texts& texts) {
  const std::int64_t count = static_cast<std::int64_t>(texts.offsets.size()) - 1;
  rlsft::BleuOptions options;
  options.max_order = in.between(1, 5);
  options.smoothing = static_cast<rlsft::BleuSmoothing>(in.between(0, 3));
  // every text against the one after it; the last one has no reference
  std::vector<std::int64_t> references(static_cast<std::size_t>(count + 1));
  for (std::int64_t i = 0; i <= count; ++i) references[i] = std::min(i, count > 0 ? count - 1 : 0);
  const rlsft::TokenTexts hypotheses{texts.ids.data(), texts.offsets.data()};
  const rlsft::TokenTexts next{texts.ids.data(), texts.offsets.data() + (count > 0 ? 1 : 0)};
  const rlsft::ScoredTexts scored{hypotheses, count, next, references.data()};
  std::vector<double> bleu(static_cast<std::size_t>(count)), again(bleu), gleu(bleu), p(bleu), r(bleu), f1(bleu);
  rlsft::bleu_scores(scored, options, 1, bleu.data());
  rlsft::bleu_scores(scored, options, 3, again.data());
  REQUIRE(same_bits(bleu, again));
  rlsft::gleu_scores(scored, 1, options.max_order, 2, gleu.data());
  rlsft::rouge_l_scores(scored, 2, p.data(), r.data(), f1.data());
  for (std::int64_t i = 0; i < count; ++i) {
    REQUIRE(is_share(bleu[i]) && is_share(gleu[i]) && is_share(p[i]) && is_share(r[i]) && is_share(f1[i]));
    const bool has_reference = references[i + 1] > references[i];
    const std::int64_t length = texts.offsets[i + 1] - texts.offsets[i];
    if (!has_reference || length == 0) REQUIRE(bleu[i] == 0 && f1[i] == 0);
    const bool equal = has_reference && length > 0 && length == texts.offsets[i + 2] - texts.offsets[i + 1] &&
                       std::equal(texts.ids.begin() + texts.offsets[i], texts.ids.begin() + texts.offsets[i + 1],
                                  texts.ids.begin() + texts.offsets[i + 1]);
    if (equal) REQUIRE(std::abs(f1[i] - 1) < 1e-12 && std::abs(gleu[i] - 1) < 1e-12);
  }
  const std::vector<std::int64_t> groups{0, count};
  rlsft::self_bleu_groups(hypotheses, groups.data(), 1, options, 2, bleu.data());
  for (std::int64_t i = 0; i < count; ++i) REQUIRE(count == 1 ? std::isnan(bleu[i]) : is_share(bleu[i]));
}

void check_keywords(Input& in, const Texts& texts) {
  const std::int64_t count = static_cast<std::int64_t>(texts.offsets.size()) - 1;
  const std::size_t size = texts.ids.size();
  rlsft::KeywordOptions options;
  options.window = in.between(2, 10);
  options.weighted = in.flag();
  options.directed = in.flag();
  std::vector<char> keep(size + 1, 1);
  for (std::size_t i = 0; i < size; ++i) keep[i] = in.byte() % 4 != 3;
  static_assert(sizeof(bool) == sizeof(char), "keep is read as bool");
  const bool* mask = in.flag() ? reinterpret_cast<const bool*>(keep.data()) : nullptr;
  std::vector<std::int64_t> ids(size), counts(size), words(static_cast<std::size_t>(count)), n_iter(words);
  std::vector<double> scores(size), again(size), residual(words.size());
  for (std::vector<double>* out : {&scores, &again}) {
    rlsft::keyword_rank_texts(texts.ids.data(), mask, texts.offsets.data(), count, options, out == &scores ? 1 : 3,
                              ids.data(), out->data(), counts.data(), words.data(), n_iter.data(), residual.data());
  }
  for (std::int64_t t = 0; t < count; ++t) {
    double sum = 0;
    std::int64_t tokens = 0;
    for (std::int64_t w = 0; w < words[t]; ++w) {
      const std::int64_t at = texts.offsets[t] + w;
      REQUIRE(scores[at] >= 0 && counts[at] >= 1 && same_bits(&scores[at], &again[at], 1));
      sum += scores[at];
      tokens += counts[at];
    }
    REQUIRE(words[t] == 0 || std::abs(sum - 1) < 1e-9);
    REQUIRE(tokens <= texts.offsets[t + 1] - texts.offsets[t]);
    REQUIRE(words[t] == 0 || residual[t] < options.tol || n_iter[t] == options.max_iter);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  const bool scores = in.flag();
  const Texts texts = read_texts(in, 6);
  scores ? check_scores(in, texts) : check_keywords(in, texts);
  return 0;
}
