// What the files of this folder share. They alone know Python: they check arrays, drop the GIL and call the core, and
// hold no algorithm. Arguments cross as NumPy arrays without conversion (py::arg().noconvert()): a silently converted
// copy of an output would be filled and thrown away.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "rlsft/isodata.hpp"
#include "rlsft/textrank.hpp"

namespace rlsft::bindings {

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Offsets = Array<std::int64_t>;
template <typename T>
using Optional = std::optional<Array<T>>;

inline void require(bool ok, const std::string& message) {
  if (!ok) throw std::invalid_argument(message);
}

template <typename T>
const T* pointer_or_null(const Optional<T>& array) {
  return array ? array->data() : nullptr;
}

template <typename U>
py::array_t<U> to_array(const std::vector<U>& values) {
  return py::array_t<U>(static_cast<py::ssize_t>(values.size()), values.data());
}

// Hands the memory over instead of copying it.
template <typename U>
py::array_t<U> own_array(std::vector<U>&& values) {
  auto* owned = new std::vector<U>(std::move(values));
  const py::capsule owner(owned, [](void* p) { delete static_cast<std::vector<U>*>(p); });
  return py::array_t<U>(static_cast<py::ssize_t>(owned->size()), owned->data(), owner);
}

// Offsets must be [0, .., rows], never decreasing: whatever Python checked, C++ must not read out of bounds.
std::int64_t count_groups(const Offsets& offsets, std::int64_t rows);

// Entries of one m x m block for each group.
std::int64_t count_block_entries(const Offsets& offsets);

// Checked codes of form and method (ranking.cpp).
RankOptions rank_options(double damping, double tol, std::int64_t max_iter, int form, int method);

// Checked options by name (isodata.cpp).
IsodataOptions isodata_options(const py::dict& given);

// One function a file: adds that topic's functions to the module.
void bind_ranking(py::module_& m);
void bind_isodata(py::module_& m);
void bind_text(py::module_& m);
void bind_text_scores(py::module_& m);
void bind_pagerank(py::module_& m);
void bind_head(py::module_& m);
void bind_losses(py::module_& m);
void bind_outer_product(py::module_& m);
void bind_cuda(py::module_& m);

// "built with CUDA 13.0 (sm_80, 90)", or "left out: " and why.
std::string cuda_facts();

}  // namespace rlsft::bindings
