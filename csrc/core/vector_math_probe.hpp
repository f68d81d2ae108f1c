// Lets the tests call the elementary functions of every instruction set of this CPU, value by value.
#pragma once

#include <cstdint>

#include "rlsft/cpu.hpp"

namespace rlsft::vector_math {

enum class Function { exp, exp_of_nonpositive, expm1, log, log1p, softplus, tanh, paired_exp, paired_expm1 };

// to[i] = function(from[i]). `isa` must not be beyond active_isa() of this CPU.
void apply(Isa isa, Function function, const float* from, std::int64_t count, float* to);
// to[i] = the float16 with the bits from[i]
void widen_float16(Isa isa, const std::uint16_t* from, std::int64_t count, float* to);

namespace scalar {
void apply(Function function, const float* from, std::int64_t count, float* to);
void widen_float16(const std::uint16_t* from, std::int64_t count, float* to);
}  // namespace scalar
namespace avx2 {
void apply(Function function, const float* from, std::int64_t count, float* to);
void widen_float16(const std::uint16_t* from, std::int64_t count, float* to);
}  // namespace avx2
namespace avx512 {
void apply(Function function, const float* from, std::int64_t count, float* to);
void widen_float16(const std::uint16_t* from, std::int64_t count, float* to);
}  // namespace avx512

}  // namespace rlsft::vector_math
