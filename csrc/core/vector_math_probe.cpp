#include "vector_math_probe.hpp"

namespace rlsft::vector_math {

void apply(Isa isa, Function function, const float* from, std::int64_t count, float* to) {
#ifdef RLSFT_X86
  if (isa == Isa::avx512) return avx512::apply(function, from, count, to);
  if (isa == Isa::avx2) return avx2::apply(function, from, count, to);
#endif
  static_cast<void>(isa);
  scalar::apply(function, from, count, to);
}

void widen_float16(Isa isa, const std::uint16_t* from, std::int64_t count, float* to) {
#ifdef RLSFT_X86
  if (isa == Isa::avx512) return avx512::widen_float16(from, count, to);
  if (isa == Isa::avx2) return avx2::widen_float16(from, count, to);
#endif
  static_cast<void>(isa);
  scalar::widen_float16(from, count, to);
}

}  // namespace rlsft::vector_math
