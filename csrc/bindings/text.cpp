#include "bindings.hpp"
#include "rlsft/keywords.hpp"
#include "rlsft/text_edges.hpp"

namespace rlsft::bindings {
namespace {

void text_edges(const Array<std::int64_t>& tokens, const Offsets& token_offsets, const Offsets& group_offsets, int kind,
                int threads, Array<double>& edges) {
  require(kind >= 0 && kind <= 2, "kind must be 0, 1 or 2");
  const std::int64_t responses = count_groups(token_offsets, tokens.size());
  const std::int64_t groups = count_groups(group_offsets, responses);
  require(edges.size() == count_block_entries(group_offsets), "edges must hold one m x m block a group");
  double* out = edges.mutable_data();
  py::gil_scoped_release release;
  text_edges_groups(tokens.data(), token_offsets.data(), group_offsets.data(), groups, static_cast<TextEdge>(kind),
                    threads, out);
}

// The items of a list or tuple. They are borrowed: nothing below runs Python code that could change them.
struct Items {
  PyObject* const* begin = nullptr;
  Py_ssize_t count = 0;
};

bool items_of(PyObject* sequence, Items& items) {
  if (!PyList_CheckExact(sequence) && !PyTuple_CheckExact(sequence)) return false;
  items = {PySequence_Fast_ITEMS(sequence), PySequence_Fast_GET_SIZE(sequence)};
  return true;
}

bool copy_ids(const Items& items, std::int64_t* ids) {
  for (Py_ssize_t t = 0; t < items.count; ++t) {
    if (!PyLong_Check(items.begin[t]) || PyBool_Check(items.begin[t])) return false;
    int overflow = 0;
    ids[t] = PyLong_AsLongLongAndOverflow(items.begin[t], &overflow);
    if (overflow != 0) return false;
  }
  return true;
}

// (ids, offsets) of a list of lists of ints, or None when it is anything else: the caller then takes the slow way,
// which also finds the words for what is wrong.
py::object flatten_token_lists(const py::object& responses) {
  Items rows, row;
  if (!items_of(responses.ptr(), rows)) return py::none();
  py::array_t<std::int64_t> offsets(rows.count + 1);
  std::int64_t* offset = offsets.mutable_data();
  offset[0] = 0;
  for (Py_ssize_t r = 0; r < rows.count; ++r) {
    if (!items_of(rows.begin[r], row)) return py::none();
    offset[r + 1] = offset[r] + row.count;
  }
  py::array_t<std::int64_t> ids(offset[rows.count]);
  for (Py_ssize_t r = 0; r < rows.count; ++r) {
    if (!items_of(rows.begin[r], row) || !copy_ids(row, ids.mutable_data() + offset[r])) return py::none();
  }
  return py::make_tuple(ids, offsets);
}

void keyword_rank(const Array<std::int64_t>& tokens, const Optional<bool>& keep, const Offsets& offsets,
                  std::int64_t window, bool weighted, bool directed, double damping, double tol, std::int64_t max_iter,
                  int threads, Array<std::int64_t>& ids, Array<double>& scores, Array<std::int64_t>& counts,
                  Array<std::int64_t>& words, Array<std::int64_t>& n_iter, Array<double>& residual) {
  const std::int64_t count = tokens.size(), texts = count_groups(offsets, count);
  require(!keep || keep->size() == count, "keep must have one entry a token");
  require(window >= 1, "window must be at least 1");
  require(ids.size() == count && scores.size() == count && counts.size() == count,
          "ids, scores and counts must have one entry a token");
  require(words.size() == texts && n_iter.size() == texts && residual.size() == texts,
          "words, n_iter and residual must have one entry a text");
  const bool* kept = pointer_or_null(keep);
  std::int64_t *ids_out = ids.mutable_data(), *counts_out = counts.mutable_data(), *words_out = words.mutable_data();
  std::int64_t* n_iter_out = n_iter.mutable_data();
  double *scores_out = scores.mutable_data(), *residual_out = residual.mutable_data();
  const KeywordOptions options{window, weighted, directed, damping, tol, max_iter};
  py::gil_scoped_release release;
  keyword_rank_texts(tokens.data(), kept, offsets.data(), texts, options, threads, ids_out, scores_out, counts_out,
                     words_out, n_iter_out, residual_out);
}

}  // namespace

void bind_text(py::module_& m) {
  m.def("text_edges_groups", &text_edges, py::arg("tokens").noconvert(), py::arg("token_offsets").noconvert(),
        py::arg("group_offsets").noconvert(), py::arg("kind"), py::arg("threads"), py::arg("edges").noconvert());
  m.def("keyword_rank", &keyword_rank, py::arg("tokens").noconvert(), py::arg("keep").noconvert(),
        py::arg("offsets").noconvert(), py::arg("window"), py::arg("weighted"), py::arg("directed"),
        py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("threads"), py::arg("ids").noconvert(),
        py::arg("scores").noconvert(), py::arg("counts").noconvert(), py::arg("words").noconvert(),
        py::arg("n_iter").noconvert(), py::arg("residual").noconvert());
  m.def("flatten_token_lists", &flatten_token_lists, py::arg("responses"));
}

}  // namespace rlsft::bindings
