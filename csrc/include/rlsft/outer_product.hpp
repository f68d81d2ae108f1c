// The weight-gradient product of a language-model head: out[V, H] += grad[C, V]^T @ hidden[C, H], bfloat16 factors and
// a float32 sum. torch has no such product on CPUs: it rounds each product to bfloat16 and adds in a second pass.
#pragma once

#include <cstdint>

namespace rlsft {

// What accumulate_outer() runs on here: "amx", or "none" where it throws. Decided once a process by the CPU, by
// whether Linux grants the tile registers, and by RLSFT_ISA, which must be avx512 or unset.
const char* outer_product_isa();

// out (+)= grad^T @ hidden. `grad` and `hidden` hold bfloat16; `overwrite` assigns instead of adding, and zero-fills
// where rows == 0.
//
// Bits do not depend on `threads`. bfloat16 numbers below 2^-126 in magnitude count as zero, and so does every float32
// sum below it, sums already in `out` that are added to included: AMX has no subnormal numbers. NaN and infinities
// propagate. O(rows * columns * width) time, 2 * rows * (width + 128 * threads) bytes of scratch.
//
//   grad        [rows, columns], rows grad_stride >= columns apart
//   hidden      [rows, width], rows hidden_stride >= width apart
//   out         [columns, width], contiguous, overlapping neither factor
//
// Throws std::runtime_error where outer_product_isa() is "none", std::bad_alloc without memory for the scratch.
void accumulate_outer(const std::uint16_t* grad, std::int64_t rows, std::int64_t grad_stride, std::int64_t columns,
                      const std::uint16_t* hidden, std::int64_t hidden_stride, std::int64_t width, float* out,
                      bool overwrite, int threads);

// sum[i] += product[i] for bfloat16 products, in one pass over memory; for CPUs without AMX, after torch's product.
void add_product(float* sum, const std::uint16_t* product, std::int64_t count, int threads);

}  // namespace rlsft
