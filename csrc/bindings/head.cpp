// Softmax statistics and gradients of tiles of logits.
#include "rlsft/head_rows.hpp"

#include "bindings.hpp"

namespace rlsft::bindings {
namespace {

// A tile is float32, or uint16 holding bfloat16; its rows are contiguous, their distance is free.
Tile tile_of(const py::array& values, std::int64_t column_start) {
  require(values.ndim() == 2, "tile must be [rows, columns]");
  const bool narrow = py::isinstance<py::array_t<std::uint16_t>>(values);
  require(narrow || py::isinstance<py::array_t<float>>(values), "tile must be float32, or uint16 holding bfloat16");
  const auto size = static_cast<py::ssize_t>(values.itemsize());
  require(values.shape(1) <= 1 || values.strides(1) == size, "the columns of a tile must be contiguous");
  require(values.shape(0) <= 1 || (values.strides(0) >= values.shape(1) * size && values.strides(0) % size == 0),
          "the rows of a tile must not overlap");
  return {values.data(),   narrow ? TileType::bfloat16 : TileType::float32, values.shape(0), values.shape(1),
          values.strides(0) / size, column_start};
}

template <typename T>
void require_rows(const Optional<T>& array, std::int64_t rows, const char* name) {
  require(!array || (array->ndim() == 1 && array->size() == rows), std::string(name) + " must be [rows]");
}

HeadTransform transform_of(const Optional<float>& bias, float logit_scale, float softcap, float temperature,
                           const Optional<float>& temperatures, const Tile& tile) {
  require(!bias || bias->size() == tile.columns, "bias must be [columns]");
  require_rows(temperatures, tile.rows, "temperatures");
  return {pointer_or_null(bias), logit_scale, softcap, temperature, pointer_or_null(temperatures)};
}

template <typename T>
T* rows_or_null(Optional<T>& array, std::int64_t rows, const char* name) {
  require_rows(array, rows, name);
  return array ? array->mutable_data() : nullptr;
}

void fold(const py::array& values, std::int64_t column_start, const Offsets& targets, const Optional<float>& bias,
          float logit_scale, float softcap, float temperature, const Optional<float>& temperatures,
          Array<double> row_max, Array<double> sum_exp, Array<double> target_logit, Optional<double> sum_exp_shifted,
          Optional<double> sum_exp_sq, Optional<double> sum_logit, Optional<std::int64_t> first_largest, int threads) {
  const Tile tile = tile_of(values, column_start);
  const HeadTransform transform = transform_of(bias, logit_scale, softcap, temperature, temperatures, tile);
  require(targets.size() == tile.rows, "targets must be [rows]");
  require(row_max.size() == tile.rows && sum_exp.size() == tile.rows && target_logit.size() == tile.rows,
          "row_max, sum_exp and target_logit must be [rows]");
  const FoldState state{row_max.mutable_data(),
                        sum_exp.mutable_data(),
                        target_logit.mutable_data(),
                        rows_or_null(sum_exp_shifted, tile.rows, "sum_exp_shifted"),
                        rows_or_null(sum_exp_sq, tile.rows, "sum_exp_sq"),
                        rows_or_null(sum_logit, tile.rows, "sum_logit"),
                        rows_or_null(first_largest, tile.rows, "first_largest")};
  const std::int64_t* ids = targets.data();
  py::gil_scoped_release release;
  fold_rows(tile, ids, transform, state, threads);
}

// order[i] must be a row of the tile, and safe in place where `out` is the tile.
void require_order(const Optional<std::int64_t>& order, const Tile& tile, std::int64_t rows_out, bool in_place) {
  require(order || rows_out <= tile.rows, "out has more rows than the tile");
  if (!order) return;
  require(order->size() == rows_out, "order must have one entry a row of out");
  for (std::int64_t i = 0; i < rows_out; ++i) {
    const std::int64_t from = order->data()[i];
    require(from >= 0 && from < tile.rows, "order must hold rows of the tile");
    require(!in_place || from == i || from >= rows_out, "order would overwrite a row that is still to be read");
  }
}

void gradient(const py::array& values, std::int64_t column_start, const Optional<float>& bias, float logit_scale,
              float softcap, float temperature, const Optional<float>& temperatures, const Offsets& targets,
              const Array<float>& row_max, const Array<float>& log_sum, const Array<float>& logprob,
              const Optional<float>& entropy, const Optional<float>& by_logprob, const Optional<float>& by_entropy,
              const Optional<float>& by_lse, const Optional<std::int64_t>& order, py::array out, int threads) {
  const Tile tile = tile_of(values, column_start);
  const Tile target_tile = tile_of(out, column_start);
  const HeadTransform transform = transform_of(bias, logit_scale, softcap, temperature, temperatures, tile);
  require(target_tile.type == tile.type && target_tile.columns == tile.columns, "out must be like the tile");
  require(out.writeable(), "out must be writeable");
  require(targets.size() == tile.rows && row_max.size() == tile.rows && log_sum.size() == tile.rows &&
              logprob.size() == tile.rows,
          "targets, row_max, log_sum and logprob must be [rows]");
  for (const Optional<float>* array : {&entropy, &by_logprob, &by_entropy, &by_lse}) {
    require_rows(*array, tile.rows, "a gradient or the entropy");
  }
  require(!by_entropy || entropy, "by_entropy needs the entropy");
  require_order(order, tile, target_tile.rows, target_tile.values == tile.values);
  const RowGradients gradients{targets.data(),          row_max.data(),          log_sum.data(),
                               logprob.data(),          pointer_or_null(entropy), pointer_or_null(by_logprob),
                               pointer_or_null(by_entropy), pointer_or_null(by_lse)};
  const std::int64_t* from = pointer_or_null(order);
  void* results = out.mutable_data();
  py::gil_scoped_release release;
  gradient_rows(tile, transform, gradients, from, target_tile.rows, results, target_tile.row_stride, threads);
}

}  // namespace

void bind_head(py::module_& m) {
  m.def("head_fold_rows", &fold, py::arg("tile").noconvert(), py::arg("column_start"), py::arg("targets").noconvert(),
        py::arg("bias").noconvert(), py::arg("logit_scale"), py::arg("softcap"), py::arg("temperature"),
        py::arg("temperatures").noconvert(), py::arg("row_max").noconvert(), py::arg("sum_exp").noconvert(),
        py::arg("target_logit").noconvert(), py::arg("sum_exp_shifted").noconvert(), py::arg("sum_exp_sq").noconvert(),
        py::arg("sum_logit").noconvert(), py::arg("first_largest").noconvert(), py::arg("threads"));
  m.def("head_gradient_rows", &gradient, py::arg("tile").noconvert(), py::arg("column_start"),
        py::arg("bias").noconvert(), py::arg("logit_scale"), py::arg("softcap"), py::arg("temperature"),
        py::arg("temperatures").noconvert(), py::arg("targets").noconvert(), py::arg("row_max").noconvert(),
        py::arg("log_sum").noconvert(), py::arg("logprob").noconvert(), py::arg("entropy").noconvert(),
        py::arg("by_logprob").noconvert(), py::arg("by_entropy").noconvert(), py::arg("by_lse").noconvert(),
        py::arg("order").noconvert(), py::arg("out").noconvert(), py::arg("threads"));
}

}  // namespace rlsft::bindings
