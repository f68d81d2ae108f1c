// The vectorised elementary functions of every instruction set of this CPU, against long double.
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <vector>

#include "../core/vector_math_probe.hpp"
#include "check.hpp"

namespace {

using rlsft::Isa;
using rlsft::vector_math::Function;
using Limits = std::numeric_limits<float>;

const float kInfinity = Limits::infinity();
const float kNan = Limits::quiet_NaN();

float at(Isa isa, Function function, float x) {
  float y;
  rlsft::vector_math::apply(isa, function, &x, 1, &y);
  return y;
}

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Distance in units of the last place of the correctly rounded value; subnormal results count in the smallest step.
double units_off(float found, long double truth) {
  const float rounded = static_cast<float>(truth);
  if (std::isinf(rounded) || std::isinf(found)) return found == rounded ? 0 : std::abs(found) >= Limits::max() ? 1 : 1e9;
  int exponent;
  std::frexp(rounded, &exponent);
  const long double step = std::ldexp(1.0L, exponent - 24 < -149 ? -149 : exponent - 24);
  return static_cast<double>(std::abs(static_cast<long double>(found) - truth) / step);
}

using Truth = long double (*)(long double);

// Every `stride`-th float of [low, high], by bits: as many between 1e-30 and 1e-29 as between 1 and 10.
void sweep(Isa isa, Function function, Truth truth, float low, float high, double allowed, const char* name) {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < 0x7f800000u; bits += 9973) {
    for (const float sign : {1.0f, -1.0f}) {
      const float value = sign * from_bits(static_cast<std::uint32_t>(bits));
      if (value >= low && value <= high) x.push_back(value);
    }
  }
  for (int i = 0; i <= 100000; ++i) {  // and evenly, where the functions bend
    const float value = static_cast<float>(-110 + 220e-5 * i);
    if (value >= low && value <= high) x.push_back(value);
  }
  std::vector<float> y(x.size());
  rlsft::vector_math::apply(isa, function, x.data(), static_cast<std::int64_t>(x.size()), y.data());
  double worst = 0;
  float where = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double off = units_off(y[i], truth(static_cast<long double>(x[i])));
    if (!(off <= worst)) worst = off, where = x[i];
  }
  if (!(worst <= allowed)) std::fprintf(stderr, "%s, isa %d: %.3f units at %.9g\n", name, static_cast<int>(isa), worst, where);
  CHECK(worst <= allowed);
  CHECK(x.size() > 1000);
}

long double exact_exp(long double x) { return std::exp(x); }
long double exact_expm1(long double x) { return std::expm1(x); }
long double exact_log(long double x) { return std::log(x); }
long double exact_log1p(long double x) { return std::log1p(x); }
long double exact_tanh(long double x) { return std::tanh(x); }
long double exact_softplus(long double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

void dense_sweeps(Isa isa) {
  const float max = Limits::max();
  sweep(isa, Function::exp, exact_exp, -110, max, 2, "exp");
  sweep(isa, Function::exp_of_nonpositive, exact_exp, -86.5f, 0, 2, "exp_of_nonpositive");
  sweep(isa, Function::expm1, exact_expm1, -max, max, 2, "expm1");
  sweep(isa, Function::log, exact_log, 0, max, 2, "log");
  sweep(isa, Function::log1p, exact_log1p, -0.9999999f, max, 2, "log1p");
  sweep(isa, Function::softplus, exact_softplus, -103, max, 2, "softplus");
  sweep(isa, Function::tanh, exact_tanh, -max, max, 2, "tanh");
  sweep(isa, Function::paired_exp, exact_exp, -80, 80, 2, "paired exp");
  sweep(isa, Function::paired_expm1, exact_expm1, -80, 80, 2, "paired expm1");
}

void edges(Isa isa) {
  CHECK(at(isa, Function::exp, 0) == 1 && at(isa, Function::expm1, 0) == 0 && at(isa, Function::log, 1) == 0);
  CHECK(at(isa, Function::exp, kInfinity) == kInfinity && at(isa, Function::exp, -kInfinity) == 0);
  CHECK(at(isa, Function::exp, 88.8f) == kInfinity && at(isa, Function::exp, -104.5f) == 0);
  CHECK(at(isa, Function::exp_of_nonpositive, -kInfinity) == 0 && at(isa, Function::exp_of_nonpositive, 0) == 1);
  CHECK(at(isa, Function::expm1, kInfinity) == kInfinity && at(isa, Function::expm1, -kInfinity) == -1);
  CHECK(at(isa, Function::log, kInfinity) == kInfinity && at(isa, Function::log, 0) == -kInfinity);
  CHECK(std::isnan(at(isa, Function::log, -1)) && std::isnan(at(isa, Function::log, -kInfinity)));
  CHECK(at(isa, Function::log1p, -1) == -kInfinity && std::isnan(at(isa, Function::log1p, -1.5f)));
  CHECK(at(isa, Function::log1p, kInfinity) == kInfinity && at(isa, Function::log1p, 0) == 0);
  CHECK(at(isa, Function::softplus, kInfinity) == kInfinity && at(isa, Function::softplus, -kInfinity) == 0);
  CHECK(at(isa, Function::softplus, 1e30f) == 1e30f && at(isa, Function::softplus, -1e30f) == 0);
  CHECK(at(isa, Function::tanh, kInfinity) == 1 && at(isa, Function::tanh, -kInfinity) == -1);
  for (const float tiny : {Limits::denorm_min(), -Limits::denorm_min(), Limits::min()}) {
    for (const Function same : {Function::expm1, Function::log1p, Function::tanh}) CHECK(at(isa, same, tiny) == tiny);
  }
  for (int f = 0; f <= static_cast<int>(Function::paired_expm1); ++f) {
    CHECK(std::isnan(at(isa, static_cast<Function>(f), kNan)));
  }
}

void every_float16(Isa isa) {
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  std::vector<float> found(bits.size());
  rlsft::vector_math::widen_float16(isa, bits.data(), 65536, found.data());
  bool ok = true;
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31), mantissa = static_cast<int>(i & 1023);
    float truth = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    if (exponent == 31) truth = mantissa == 0 ? kInfinity : kNan;
    if (i >> 15) truth = -truth;
    ok = ok && (std::isnan(truth) ? std::isnan(found[i]) : found[i] == truth && std::signbit(found[i]) == (i >> 15 != 0));
  }
  CHECK(ok);
}

}  // namespace

int main() {
  for (int isa = 0; isa <= static_cast<int>(rlsft::active_isa()); ++isa) {
    dense_sweeps(static_cast<Isa>(isa));
    edges(static_cast<Isa>(isa));
    every_float16(static_cast<Isa>(isa));
  }
  return rlsft_test::finish();
}
