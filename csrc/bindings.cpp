// The only file that knows Python. It checks arrays, drops the GIL and calls the core; it holds no algorithm.
// Arguments cross as NumPy arrays without conversion (py::arg().noconvert()): a silently converted copy of an output
// would be filled and thrown away.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "rlsft/cpu.hpp"
#include "rlsft/parallel.hpp"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool ok, const std::string& message) {
  if (!ok) throw std::invalid_argument(message);
}

// ---- build facts -----------------------------------------------------------------------------------------------

py::dict build_info() {
  py::dict info;
  info["compiler"] = RLSFT_COMPILER;
  info["flags"] = RLSFT_FLAGS;
  return info;
}

void bind_build_info(py::module_& m) {
  m.def("build_info", &build_info);
  m.def("cpu_isa", &rlsft::active_isa_name);
}

// ---- isodata: bind_isodata(py::module_&) goes here ---------------------------------------------------------------

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native core of rlsft_kernels. Private: use the functions of rlsft_kernels.";
  bind_build_info(m);
}
