// What a language-model head needs beside its matrix products: softmax statistics of a tile of logits, and the tile
// overwritten with the gradient by it. A tile holds `rows` token rows and `columns` consecutive vocabulary columns, the
// first of which is column_start; tiles of a row may come one after the other, in ascending order of columns.
//
// The final logit of tile value a in column v is z = softcap * tanh(logit_scale * (a + bias[v]) / softcap) / temperature,
// without the cap where softcap is 0.
#pragma once

#include <cstdint>

namespace rlsft {

enum class TileType { float32, bfloat16 };

struct Tile {
  const void* values;
  TileType type;
  std::int64_t rows, columns;
  std::int64_t row_stride;    // in values, >= columns
  std::int64_t column_start;  // of the vocabulary
};

struct HeadTransform {
  const float* bias;  // [columns] of this tile, or null
  float logit_scale;
  float softcap;             // 0: none
  float temperature;         // of all rows, unless
  const float* temperatures; // [rows], or null
};

// Running statistics, [rows] each, float64: sums run over all columns folded so far, m is the largest final logit.
// All but the first two and target_logit may be null. A new row starts as -inf, zeros and first_largest -1.
struct FoldState {
  double* row_max;          // m
  double* sum_exp;          // sum of exp(z - m)
  double* target_logit;     // z of the target, once its column has come
  double* sum_exp_shifted;  // sum of exp(z - m) * (z - m)
  double* sum_exp_sq;       // sum of exp(z - m)^2
  double* sum_logit;        // sum of z
  std::int64_t* first_largest;  // the first column whose z is m
};

// Folds a tile into the statistics of its rows. -inf is a legal logit; NaN makes the sums NaN. A target outside the
// tile's columns leaves target_logit alone. O(rows * columns); a row is never shared between threads, so that results do
// not depend on their number.
void fold_rows(const Tile& tile, const std::int64_t* targets, const HeadTransform& transform, const FoldState& state,
               int threads);

// Per row of the tile, [rows] each. The loss has gradients by_logprob, by_entropy and by_lse (null: zero) by the
// outputs; entropy is read only where by_entropy is given.
struct RowGradients {
  const std::int64_t* targets;
  const float* row_max;
  const float* log_sum;  // log of sum_exp
  const float* logprob;
  const float* entropy;
  const float* by_logprob;
  const float* by_entropy;
  const float* by_lse;
};

// Writes d loss / d a of the final logits' tile: with p = exp(z - row_max - log_sum), the gradient by z is
//   by_logprob * [v == target] + p * (by_lse - by_logprob - by_entropy * (log p + entropy)),
// and the rest is the chain rule of HeadTransform. Row i of `out` ([rows_out, columns], row stride out_stride, the tile's
// type) is that of tile row order[i], or i where order is null. `out` may be the tile itself when for every i either
// order[i] == i or order[i] >= rows_out: then no row is overwritten before it was read.
void gradient_rows(const Tile& tile, const HeadTransform& transform, const RowGradients& gradients,
                   const std::int64_t* order, std::int64_t rows_out, void* out, std::int64_t out_stride, int threads);

}  // namespace rlsft
