// Elementary functions on a register of floats, for the per-ISA kernels. Included inside their translation units only:
// RLSFT_ISA names the instruction set and RLSFT_REGISTER its bytes. Everything lives in that namespace, so the linker
// can never hand the AVX-512 copy to another instruction set.
//
// Written with vector extensions (GCC 10+, clang 14+). Errors are those of csrc/tests/test_vector_math.cpp: at most 2
// units in the last place over the whole range, NaN stays NaN.
#pragma once

#include <cstdint>
#include <cstring>

#if RLSFT_REGISTER >= 32
#include <immintrin.h>
#endif

namespace rlsft::vector_math::RLSFT_ISA {

constexpr int kLanes = RLSFT_REGISTER / 4;

using Floats = float __attribute__((vector_size(RLSFT_REGISTER)));
using Ints = std::int32_t __attribute__((vector_size(RLSFT_REGISTER)));
using Words = std::uint32_t __attribute__((vector_size(RLSFT_REGISTER)));
using Halves = std::uint16_t __attribute__((vector_size(RLSFT_REGISTER / 2)));

inline Floats all(float x) { return Floats{} + x; }

inline Floats load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }

// bfloat16 is the upper half of a float. GCC 12 widens with one intrinsic in one instruction, by itself in five.
inline Floats load(const std::uint16_t* from) {
#if RLSFT_REGISTER == 64
  return (Floats)((Words)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256((const __m256i*)from)) << 16);
#elif RLSFT_REGISTER == 32
  return (Floats)((Words)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)) << 16);
#else
  Halves half;
  std::memcpy(&half, from, sizeof half);
  return (Floats)(__builtin_convertvector(half, Words) << 16);
#endif
}

// Rounds to nearest, ties to even, as torch does. A NaN that arithmetic made is quiet: cut off, it stays one.
inline void store(std::uint16_t* to, Floats x) {
  const Words bits = (Words)x;
  const Words step = (bits >> 16 & 1u) + 0x7fffu;
  const Words rounded = (x != x ? bits : bits + step) >> 16;
  const Halves half = __builtin_convertvector(rounded, Halves);
  std::memcpy(to, &half, sizeof half);
}

// A NaN in x stays, a NaN in bound does not: both comparisons are false for NaN.
inline Floats at_least(Floats x, Floats bound) { return x < bound ? bound : x; }
inline Floats at_most(Floats x, Floats bound) { return x > bound ? bound : x; }

inline float sum_of(Floats x) {
  float lanes[kLanes];
  std::memcpy(lanes, &x, sizeof lanes);
  float sum = 0;
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  sum = lanes[0];
  return sum;
}

// The largest lane; NaN is passed over, so that a row with one finds its other values and turns NaN in its sum.
inline float largest_of(Floats x) {
  float lanes[kLanes];
  std::memcpy(lanes, &x, sizeof lanes);
  float largest = lanes[0];
  for (int i = 1; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

// float16 by integers: not every AVX2 build may use F16C. Exact, subnormals included; NaN stays NaN.
struct Float16s {
  const std::uint16_t* data;
};
inline Floats load(Float16s from) {
  Halves half;
  std::memcpy(&half, from.data, sizeof half);
  const Words bits = __builtin_convertvector(half, Words);
  const Words magnitude = (bits & 0x7fffu) << 13;
  const Floats value = (Floats)magnitude * 5.192296858534828e33f;  // 2^112 moves the exponent
  const Words special = magnitude | 0x7f800000u;
  const Words chosen = magnitude >= 0x0f800000u ? special : (Words)value;
  return (Floats)(chosen | (bits & 0x8000u) << 16);
}

// x = n * log(2) + r with |r| <= log(2) / 2: gives n (in the low bits of an integer), r, exp(r) - 1 and exp(r).
struct Reduced {
  Ints n;
  Floats r, expm1_r, exp_r;
};
inline Reduced reduce(Floats x) {
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x * 1.44269504088896341f + magic;
  const Floats n = shifted - magic;
  Floats r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Floats expm1_r = p * (r * r) + r;
  return {(Ints)((Words)shifted - (Words)magic), r, expm1_r, expm1_r + 1.0f};
}

inline Floats power_of_two(Ints n) {  // -126 <= n <= 127
  return (Floats)(((Words)n + 127u) << 23);
}

// exp(x) for x <= 0, or NaN; below -86.6 (2.4e-38) it is 0. What softmax needs, in one multiplication less.
inline Floats exp_of_nonpositive(Floats x) {
  const Floats lowest = all(-86.6f);
  const Reduced part = reduce(at_least(x, lowest));
  const Floats value = part.exp_r * power_of_two(part.n);
  return x < lowest ? Floats{} : value;
}

inline Floats exp(Floats x) {
  const Floats lowest = all(-104.0f), highest = all(88.72284f);
  const Reduced part = reduce(at_most(at_least(x, lowest), highest));
  const Ints half = part.n >> 1;  // in two steps: 2^128 and 2^-149 are no single factor
  const Floats value = part.exp_r * power_of_two(half) * power_of_two(part.n - half);
  const Floats bounded = x < lowest ? Floats{} : value;
  return x > highest ? all(__builtin_inff()) : bounded;
}

// exp(x) - 1 without cancellation near 0.
inline Floats expm1(Floats x) {
  const Floats lowest = all(-20.0f), highest = all(88.72284f);
  const Floats clamped = at_most(at_least(x, lowest), highest);
  const Reduced part = reduce(clamped);
  const Floats small = part.expm1_r;
  // 2^n * small + (2^n - 1); one factor less where 2^128 would overflow
  const Ints too_large = part.n > 127;
  const Floats scale = power_of_two(part.n + too_large);  // a true comparison is -1
  Floats value = small * scale + (scale - (too_large ? all(0.5f) : all(1.0f)));
  value = too_large ? value * 2.0f : value;
  value = x == 0 ? x : value;
  return x > highest ? all(__builtin_inff()) : value;
}

// exp(x) and exp(x) - 1 of one reduction, for |x| <= 80 or NaN.
struct Exponentials {
  Floats exp, expm1;
};
inline Exponentials exp_and_expm1(Floats x) {
  const Reduced part = reduce(x);
  const Floats scale = power_of_two(part.n);
  return {part.exp_r * scale, part.expm1_r * scale + (scale - 1.0f)};
}

// log(x): -inf for 0, NaN below, +inf for +inf; subnormal x included.
inline Floats log(Floats x) {
  const Ints subnormal = x < 1.17549435e-38f;
  const Floats scaled = subnormal ? x * 8388608.0f : x;
  // the mantissa in [sqrt(1/2), sqrt(2)): log(x) = e * log(2) + log(m)
  const Ints shifted = (Ints)((Words)scaled - 0x3f3504f3u);  // a negative x wraps, and is NaN below
  Ints exponent = shifted >> 23;
  const Floats m = (Floats)((shifted & 0x007fffff) + 0x3f3504f3);
  exponent = exponent + (subnormal ? Ints{} - 23 : Ints{});
  const Floats e = __builtin_convertvector(exponent, Floats);
  const Floats f = m - 1.0f;
  const Floats z = f * f;
  Floats p = all(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  Floats y = p * f * z;
  y = y - e * 2.12194440e-4f;
  y = y - 0.5f * z;
  Floats value = f + y;
  value = value + e * 0.693359375f;
  value = x == __builtin_inff() ? x : value;
  value = x == 0 ? all(-__builtin_inff()) : value;
  return (x < 0) | (x != x) ? all(__builtin_nanf("")) : value;
}

// log(1 + x): u = 1 + x rounds, and x - (u - 1) is exactly what it lost.
inline Floats log1p(Floats x) {
  const Floats u = 1.0f + x;
  const Floats lost = x - (u - 1.0f);
  const Floats value = log(u) + lost / u;
  const Floats bounded = (u == __builtin_inff()) | (u == 0) ? log(u) : value;
  return x == 0 ? x : bounded;
}

// log(1 + exp(x)), finite for every finite x.
inline Floats softplus(Floats x) {
  const Floats magnitude = x < 0 ? x : -x;
  return (x > 0 ? x : Floats{} + (x != x ? x : Floats{})) + log1p(exp(magnitude));
}

inline Floats tanh(Floats x) {
  const Floats magnitude = x < 0 ? -x : x;
  const Floats z = x * x;
  Floats p = all(-5.70498872745e-3f);
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const Floats near = p * z * x + x;
  const Floats far = 1.0f - 2.0f / (exp(2.0f * at_most(magnitude, all(20.0f))) + 1.0f);
  const Floats signed_far = x < 0 ? -far : far;
  return magnitude < 0.625f ? near : signed_far;
}

}  // namespace rlsft::vector_math::RLSFT_ISA
