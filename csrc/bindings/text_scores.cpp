#include "rlsft/text_scores.hpp"

#include "bindings.hpp"

namespace rlsft::bindings {
namespace {

using Ids = Array<std::int64_t>;

ScoredTexts scored_texts(const Ids& hypothesis_ids, const Offsets& hypothesis_offsets, const Ids& reference_ids,
                         const Offsets& reference_offsets, const Offsets& reference_groups) {
  const std::int64_t count = count_groups(hypothesis_offsets, hypothesis_ids.size());
  const std::int64_t references = count_groups(reference_offsets, reference_ids.size());
  require(count_groups(reference_groups, references) == count, "reference_groups must have one group a hypothesis");
  return {{hypothesis_ids.data(), hypothesis_offsets.data()},
          count,
          {reference_ids.data(), reference_offsets.data()},
          reference_groups.data()};
}

BleuOptions bleu_options(std::int64_t max_order, int smoothing) {
  require(max_order >= 1, "max_order must be at least 1");
  require(smoothing >= 0 && smoothing <= 3, "smoothing must be 0 to 3");
  return {max_order, static_cast<BleuSmoothing>(smoothing)};
}

void bleu(const Ids& hypothesis_ids, const Offsets& hypothesis_offsets, const Ids& reference_ids,
          const Offsets& reference_offsets, const Offsets& reference_groups, std::int64_t max_order, int smoothing,
          int threads, Array<double>& scores) {
  const ScoredTexts texts =
      scored_texts(hypothesis_ids, hypothesis_offsets, reference_ids, reference_offsets, reference_groups);
  require(scores.size() == texts.count, "scores must have one entry a hypothesis");
  const BleuOptions options = bleu_options(max_order, smoothing);
  double* out = scores.mutable_data();
  py::gil_scoped_release release;
  bleu_scores(texts, options, threads, out);
}

void gleu(const Ids& hypothesis_ids, const Offsets& hypothesis_offsets, const Ids& reference_ids,
          const Offsets& reference_offsets, const Offsets& reference_groups, std::int64_t min_order,
          std::int64_t max_order, int threads, Array<double>& scores) {
  const ScoredTexts texts =
      scored_texts(hypothesis_ids, hypothesis_offsets, reference_ids, reference_offsets, reference_groups);
  require(scores.size() == texts.count, "scores must have one entry a hypothesis");
  require(1 <= min_order && min_order <= max_order, "orders must be 1 <= min_order <= max_order");
  double* out = scores.mutable_data();
  py::gil_scoped_release release;
  gleu_scores(texts, min_order, max_order, threads, out);
}

void rouge_l(const Ids& hypothesis_ids, const Offsets& hypothesis_offsets, const Ids& reference_ids,
             const Offsets& reference_offsets, const Offsets& reference_groups, int threads, Array<double>& precision,
             Array<double>& recall, Array<double>& f1) {
  const ScoredTexts texts =
      scored_texts(hypothesis_ids, hypothesis_offsets, reference_ids, reference_offsets, reference_groups);
  require(precision.size() == texts.count && recall.size() == texts.count && f1.size() == texts.count,
          "precision, recall and f1 must have one entry a hypothesis");
  double *precision_out = precision.mutable_data(), *recall_out = recall.mutable_data(), *f1_out = f1.mutable_data();
  py::gil_scoped_release release;
  rouge_l_scores(texts, threads, precision_out, recall_out, f1_out);
}

void self_bleu(const Ids& tokens, const Offsets& offsets, const Offsets& groups, std::int64_t max_order, int smoothing,
               int threads, Array<double>& scores) {
  const std::int64_t texts = count_groups(offsets, tokens.size());
  const std::int64_t num_groups = count_groups(groups, texts);
  require(scores.size() == texts, "scores must have one entry a text");
  const BleuOptions options = bleu_options(max_order, smoothing);
  double* out = scores.mutable_data();
  py::gil_scoped_release release;
  self_bleu_groups({tokens.data(), offsets.data()}, groups.data(), num_groups, options, threads, out);
}

}  // namespace

void bind_text_scores(py::module_& m) {
  m.def("bleu_scores", &bleu, py::arg("hypothesis_ids").noconvert(), py::arg("hypothesis_offsets").noconvert(),
        py::arg("reference_ids").noconvert(), py::arg("reference_offsets").noconvert(),
        py::arg("reference_groups").noconvert(), py::arg("max_order"), py::arg("smoothing"), py::arg("threads"),
        py::arg("scores").noconvert());
  m.def("gleu_scores", &gleu, py::arg("hypothesis_ids").noconvert(), py::arg("hypothesis_offsets").noconvert(),
        py::arg("reference_ids").noconvert(), py::arg("reference_offsets").noconvert(),
        py::arg("reference_groups").noconvert(), py::arg("min_order"), py::arg("max_order"), py::arg("threads"),
        py::arg("scores").noconvert());
  m.def("rouge_l_scores", &rouge_l, py::arg("hypothesis_ids").noconvert(), py::arg("hypothesis_offsets").noconvert(),
        py::arg("reference_ids").noconvert(), py::arg("reference_offsets").noconvert(),
        py::arg("reference_groups").noconvert(), py::arg("threads"), py::arg("precision").noconvert(),
        py::arg("recall").noconvert(), py::arg("f1").noconvert());
  m.def("self_bleu_groups", &self_bleu, py::arg("tokens").noconvert(), py::arg("offsets").noconvert(),
        py::arg("groups").noconvert(), py::arg("max_order"), py::arg("smoothing"), py::arg("threads"),
        py::arg("scores").noconvert());
}

}  // namespace rlsft::bindings
