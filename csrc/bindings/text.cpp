#include "bindings.hpp"
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

}  // namespace

void bind_text(py::module_& m) {
  m.def("text_edges_groups", &text_edges, py::arg("tokens").noconvert(), py::arg("token_offsets").noconvert(),
        py::arg("group_offsets").noconvert(), py::arg("kind"), py::arg("threads"), py::arg("edges").noconvert());
  m.def("flatten_token_lists", &flatten_token_lists, py::arg("responses"));
}

}  // namespace rlsft::bindings
