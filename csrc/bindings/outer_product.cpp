// Weight gradients of a language-model head on CPUs.
#include "rlsft/outer_product.hpp"

#include "bindings.hpp"

namespace rlsft::bindings {
namespace {

// A matrix of bfloat16 bits; rows are contiguous, their distance is free.
struct Matrix {
  const std::uint16_t* values;
  std::int64_t rows, columns, stride;
};

Matrix matrix_of(const py::array_t<std::uint16_t>& x, const char* name) {
  require(x.ndim() == 2, std::string(name) + " must be two-dimensional");
  if (x.size() == 0) return {x.data(), x.shape(0), x.shape(1), x.shape(1)};  // NumPy's strides then mean nothing
  require(x.shape(1) <= 1 || x.strides(1) == 2, std::string(name) + " must have contiguous rows");
  require(x.shape(0) <= 1 || (x.strides(0) >= 2 * x.shape(1) && x.strides(0) % 2 == 0),
          std::string(name) + " must have rows that do not overlap");
  return {x.data(), x.shape(0), x.shape(1), x.strides(0) / 2};
}

void accumulate(const py::array_t<std::uint16_t>& grad, const py::array_t<std::uint16_t>& hidden, Array<float> out,
                bool overwrite, int threads) {
  const Matrix g = matrix_of(grad, "grad"), x = matrix_of(hidden, "hidden");
  require(g.rows == x.rows, "grad and hidden must have the same number of rows");
  require(out.ndim() == 2 && out.shape(0) == g.columns && out.shape(1) == x.columns,
          "out must be [columns of grad, columns of hidden]");
  float* sums = out.mutable_data();
  py::gil_scoped_release release;
  accumulate_outer(g.values, g.rows, g.stride, g.columns, x.values, x.stride, x.columns, sums, overwrite, threads);
}

void add(Array<float> sum, const Array<std::uint16_t>& product, int threads) {
  require(sum.ndim() == 1 && product.ndim() == 1 && sum.size() == product.size(),
          "sum and product must be one-dimensional and equally long");
  float* sums = sum.mutable_data();
  const std::uint16_t* products = product.data();
  const std::int64_t count = sum.size();
  py::gil_scoped_release release;
  add_product(sums, products, count, threads);
}

}  // namespace

void bind_outer_product(py::module_& m) {
  m.def("outer_product_isa", &outer_product_isa);
  m.def("accumulate_outer", &accumulate, py::arg("grad").noconvert(), py::arg("hidden").noconvert(),
        py::arg("out").noconvert(), py::arg("overwrite"), py::arg("threads"));
  m.def("add_product", &add, py::arg("sum").noconvert(), py::arg("product").noconvert(), py::arg("threads"));
}

}  // namespace rlsft::bindings
