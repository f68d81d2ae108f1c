// Included by vector_math_probe_<isa>.cpp, which define RLSFT_ISA and RLSFT_REGISTER.
#include "vector_math_impl.hpp"
#include "vector_math_probe.hpp"

namespace rlsft::vector_math::RLSFT_ISA {
namespace {

Floats call(Function function, Floats x) {
  switch (function) {
    case Function::exp: return exp(x);
    case Function::exp_of_nonpositive: return exp_of_nonpositive(x);
    case Function::expm1: return expm1(x);
    case Function::log: return log(x);
    case Function::log1p: return log1p(x);
    case Function::softplus: return softplus(x);
    case Function::tanh: return tanh(x);
    case Function::paired_exp: return exp_and_expm1(x).exp;
    case Function::paired_expm1: return exp_and_expm1(x).expm1;
  }
  return x;
}

}  // namespace

void apply(Function function, const float* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const std::int64_t here = count - i < kLanes ? count - i : kLanes;
    float lanes[kLanes] = {};
    std::memcpy(lanes, from + i, static_cast<std::size_t>(here) * sizeof(float));
    store(lanes, call(function, load(lanes)));
    std::memcpy(to + i, lanes, static_cast<std::size_t>(here) * sizeof(float));
  }
}

void widen_float16(const std::uint16_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i + kLanes <= count; i += kLanes) store(to + i, load(Float16s{from + i}));
}

}  // namespace rlsft::vector_math::RLSFT_ISA
