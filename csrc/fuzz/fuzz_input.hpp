// Turns the bytes of a fuzzer into arguments that keep a contract, and states what must hold of the results.
//
// An entry point's file defines LLVMFuzzerTestOneInput: it reads an Input from the front (zeros once it is used up, so
// that short inputs are valid too), calls the core and checks properties with REQUIRE. libFuzzer drives it in
// scripts/fuzz.sh, replay.cpp in the ordinary C++ tests.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <vector>

// Prints what failed and aborts: both drivers take that as a finding and name the input.
#define REQUIRE(condition)                                                                       \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      std::fprintf(stderr, "%s:%d: property does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                              \
    }                                                                                            \
  } while (false)

namespace rlsft_fuzz {

// Which real numbers an argument may hold.
struct Reals {
  bool negative = true;   // values below zero
  bool wide = false;      // any exponent up to max_exponent, denormals too; otherwise multiples of 1/16 below 6
  bool bad = false;       // NaN and infinities, and values below zero where `negative` forbids them
  int max_exponent = 2000;  // |value| < 2^max_exponent; capped by the type
};

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}

  std::uint8_t byte() { return data_ == end_ ? 0 : *data_++; }
  bool flag() { return (byte() & 1) != 0; }

  // One byte; the range must have at most 256 values.
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + byte() % (high - low + 1); }

  template <typename E>
  E pick(std::initializer_list<E> values) {
    return values.begin()[byte() % values.size()];
  }

  // Offsets of up to max_groups groups of up to max_size items each: [0, .., total].
  std::vector<std::int64_t> offsets(std::int64_t max_groups, std::int64_t max_size) {
    std::vector<std::int64_t> result{0};
    for (std::int64_t g = between(0, max_groups); g > 0; --g) result.push_back(result.back() + between(0, max_size));
    return result;
  }

  template <typename T>
  T real(const Reals& kind) {
    const std::uint8_t code = byte();
    if (kind.bad && code >= 248) return bad_value<T>(code, kind);
    double value = (static_cast<double>(code % 192) - 96.0) / 16.0;
    if (kind.wide && code >= 192) value = wide_value<T>(code, kind);
    return static_cast<T>(kind.negative ? value : std::abs(value));
  }

  // count rows of d values. A row is read value by value, or made from few bytes: noise, a copy of an earlier row, such
  // a copy scaled or nearly equal, or zeros. So equal, parallel and near rows come up, and long rows stay cheap.
  template <typename T>
  std::vector<T> rows(std::int64_t count, std::int64_t d, const Reals& kind) {
    std::vector<T> values(static_cast<std::size_t>(count * d));
    for (std::int64_t i = 0; i < count; ++i) fill_row(values.data(), i, d, kind);
    return values;
  }

  // Not negative, and each group sums to 1 (up to rounding): what a teleport and a start vector must be.
  std::vector<double> distribution(const std::vector<std::int64_t>& offsets) {
    std::vector<double> values(static_cast<std::size_t>(offsets.back()));
    for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
      double sum = 0.0;
      for (std::int64_t i = offsets[g]; i < offsets[g + 1]; ++i) sum += values[i] = static_cast<double>(byte() % 8);
      for (std::int64_t i = offsets[g]; i < offsets[g + 1]; ++i) {
        values[i] = sum > 0.0 ? values[i] / sum : 1.0 / static_cast<double>(offsets[g + 1] - offsets[g]);
      }
    }
    return values;
  }

 private:
  template <typename T>
  static T bad_value(std::uint8_t code, const Reals& kind) {
    if (!kind.negative && code < 251) return T(-1.5);
    if (code % 3 == 0) return std::numeric_limits<T>::quiet_NaN();
    return code % 3 == 1 ? std::numeric_limits<T>::infinity() : -std::numeric_limits<T>::infinity();
  }

  template <typename T>
  double wide_value(std::uint8_t code, const Reals& kind) {
    using Limits = std::numeric_limits<T>;
    const int top = kind.max_exponent < Limits::max_exponent ? kind.max_exponent : Limits::max_exponent;
    const int bottom = Limits::min_exponent - Limits::digits;
    const int exponent = bottom + byte() * (top - bottom) / 255;
    const double value = std::ldexp(1.0 - byte() / 512.0, exponent);
    const double capped = value < static_cast<double>(Limits::max()) ? value : static_cast<double>(Limits::max());
    return (code & 1) != 0 ? -capped : capped;
  }

  template <typename T>
  void fill_row(T* values, std::int64_t i, std::int64_t d, const Reals& kind) {
    T* row = values + i * d;
    const std::uint8_t mode = byte() % 8;
    if (mode < 2) {
      for (std::int64_t k = 0; k < d; ++k) row[k] = real<T>(kind);
    } else if (mode < 5 || i == 0) {
      std::uint64_t state = byte();
      for (std::int64_t k = 0; k < d; ++k) row[k] = noise<T>(state, kind);
    } else if (mode == 7) {
      for (std::int64_t k = 0; k < d; ++k) row[k] = T(0);
    } else {
      const T* earlier = values + between(0, i < 256 ? i - 1 : 255) * d;
      const T factor = mode == 5 ? T(1) : T(1) / static_cast<T>(1 << (byte() % 8));
      for (std::int64_t k = 0; k < d; ++k) row[k] = earlier[k] * factor;
      if (mode == 6 && flag()) row[0] += static_cast<T>(1e-6);
    }
  }

  template <typename T>
  static T noise(std::uint64_t& state, const Reals& kind) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    const double value = static_cast<double>(state >> 40) * 0x1p-23 - 1.0;
    return static_cast<T>(kind.negative ? value : std::abs(value));
  }

  const std::uint8_t* data_;
  const std::uint8_t* end_;
};

template <typename T>
bool same_bits(const T* a, const T* b, std::int64_t count) {
  return count == 0 || std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(T)) == 0;
}
template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), static_cast<std::int64_t>(a.size()));
}

template <typename T>
bool all_finite(const T* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) return false;
  }
  return true;
}

// order[new position] = old position, a rotation of each group: moves rows across tile borders.
inline std::vector<std::int64_t> rotated(const std::vector<std::int64_t>& offsets, std::int64_t by) {
  std::vector<std::int64_t> order;
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    const std::int64_t m = offsets[g + 1] - offsets[g];
    for (std::int64_t i = 0; i < m; ++i) order.push_back(offsets[g] + (i + by) % m);
  }
  return order;
}

template <typename T>
std::vector<T> take_rows(const std::vector<T>& values, const std::vector<std::int64_t>& order, std::int64_t d) {
  std::vector<T> moved;
  for (const std::int64_t i : order) moved.insert(moved.end(), values.begin() + i * d, values.begin() + (i + 1) * d);
  return moved;
}

}  // namespace rlsft_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
