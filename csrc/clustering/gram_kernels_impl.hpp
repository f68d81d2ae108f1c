// Included by gram_kernels_<isa>.cpp, which define RLSFT_ISA (a namespace) and RLSFT_REGISTER (bytes of a register).
// Only builtins here: an inline function of the standard library, compiled for AVX-512 in this file, could be the one
// copy the linker keeps for everybody.
#include "gram_kernels.hpp"

namespace rlsft::isodata_detail {
namespace RLSFT_ISA {
namespace {

constexpr std::int64_t kWidth = RLSFT_REGISTER / 8;  // doubles in a register
typedef double Doubles __attribute__((vector_size(RLSFT_REGISTER)));
typedef long long Mask __attribute__((vector_size(RLSFT_REGISTER)));
template <typename T>
struct Narrow {
  typedef T type __attribute__((vector_size(RLSFT_REGISTER / 8 * sizeof(T))));
};

template <typename T>
inline Doubles load(const T* from) {
  typename Narrow<T>::type values;
  __builtin_memcpy(&values, from, sizeof(values));
  return __builtin_convertvector(values, Doubles);
}
inline void store(double* to, Doubles values) { __builtin_memcpy(to, &values, sizeof(values)); }

void member_sums(const double* gram, std::int64_t ld, std::int64_t n, const std::int32_t* set, std::int64_t num_sets,
                 std::int64_t stride, double* sums) {
  for (std::int64_t i = 0; i < num_sets * stride; ++i) sums[i] = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    if (set[j] < 0) continue;
    const double* row = gram + j * ld;
    double* sum = sums + set[j] * stride;
    for (std::int64_t i = 0; i < stride; i += kWidth) store(sum + i, load(sum + i) + load(row + i));
  }
}

void distances(const double* diagonal, const double* sums, double scale, double constant, std::int64_t stride,
               double* out) {
  for (std::int64_t i = 0; i < stride; i += kWidth) {
    store(out + i, load(diagonal + i) - scale * load(sums + i) + constant);
  }
}

bool nearest(const double* distances, std::int64_t k, std::int64_t n, std::int64_t stride, double margin, double tie,
             std::int32_t* labels) {
  bool is_clear = true;
  for (std::int64_t i = 0; i < stride; i += kWidth) {
    Doubles smallest = load(distances + i), second = Doubles{} + __builtin_inf();
    Mask label = {};
    for (std::int64_t c = 1; c < k; ++c) {
      const Doubles distance = load(distances + c * stride + i);
      const Mask is_less = distance < smallest;
      const Doubles larger = is_less ? smallest : distance;
      second = larger < second ? larger : second;
      smallest = is_less ? distance : smallest;
      label = is_less ? Mask{} + static_cast<long long>(c) : label;
    }
    // negative by rounding only: a relative tie of it would shrink the margin
    const Doubles positive = smallest > 0 ? smallest : Doubles{};
    const Mask close = second - smallest <= margin + tie * positive;
    for (std::int64_t lane = 0; lane < kWidth && i + lane < n; ++lane) {
      labels[i + lane] = static_cast<std::int32_t>(label[lane]);
      is_clear &= close[lane] == 0;
    }
  }
  return is_clear;
}

// Blocks of this many registers: a sum over few members would wait for each addition otherwise.
constexpr std::int64_t kBlocks = RLSFT_REGISTER == 64 ? 8 : 4;
constexpr std::int64_t kBlock = kBlocks * kWidth;

template <typename T>
void mean(const T* const* members, std::int64_t count, std::int64_t d, double* out) {
  const T* first = members[0];
  const double share = 1 / static_cast<double>(count);  // a division a coordinate would take most of the time
  std::int64_t q = 0;
  for (; q + kBlock <= d; q += kBlock) {
    Doubles anchor[kBlocks], sum[kBlocks] = {};
    for (int b = 0; b < kBlocks; ++b) anchor[b] = load(first + q + b * kWidth);
    for (std::int64_t j = 1; j < count; ++j) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) sum[b] += load(members[j] + q + b * kWidth) - anchor[b];
    }
    for (int b = 0; b < kBlocks; ++b) store(out + q + b * kWidth, anchor[b] + sum[b] * share);
  }
  for (; q < d; ++q) {
    const double anchor = static_cast<double>(first[q]);
    double sum = 0;
    for (std::int64_t j = 1; j < count; ++j) sum += static_cast<double>(members[j][q]) - anchor;
    out[q] = anchor + sum * share;
  }
}

template <typename T>
double variance(const T* const* members, std::int64_t count, std::int64_t d, const double* mean, double* out) {
  const double share = 1 / static_cast<double>(count);
  Doubles largest_lanes = {};
  std::int64_t q = 0;
  for (; q + kBlock <= d; q += kBlock) {
    Doubles center[kBlocks], sum[kBlocks] = {};
    for (int b = 0; b < kBlocks; ++b) center[b] = load(mean + q + b * kWidth);
    for (std::int64_t j = 0; j < count; ++j) {
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        const Doubles difference = load(members[j] + q + b * kWidth) - center[b];
        sum[b] += difference * difference;
      }
    }
    for (int b = 0; b < kBlocks; ++b) {
      const Doubles value = sum[b] * share;
      largest_lanes = value > largest_lanes ? value : largest_lanes;
      store(out + q + b * kWidth, value);
    }
  }
  double largest = 0;
  for (std::int64_t lane = 0; lane < kWidth; ++lane) largest = largest_lanes[lane] > largest ? largest_lanes[lane] : largest;
  for (; q < d; ++q) {
    double sum = 0;
    for (std::int64_t j = 0; j < count; ++j) {
      const double difference = static_cast<double>(members[j][q]) - mean[q];
      sum += difference * difference;
    }
    out[q] = sum * share;
    largest = out[q] > largest ? out[q] : largest;
  }
  return largest;
}

// sum_q (x_q - c_q)^2
template <typename T>
double squared_distance(const T* x, const double* c, std::int64_t d) {
  Doubles sum[kBlocks] = {};
  std::int64_t q = 0;
  for (; q + kBlock <= d; q += kBlock) {
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      const Doubles difference = load(x + q + b * kWidth) - load(c + q + b * kWidth);
      sum[b] += difference * difference;
    }
  }
  Doubles lanes = {};
  for (int b = 0; b < kBlocks; ++b) lanes += sum[b];
  double total = 0;
  for (std::int64_t lane = 0; lane < kWidth; ++lane) total += lanes[lane];
  for (; q < d; ++q) {
    const double difference = static_cast<double>(x[q]) - c[q];
    total += difference * difference;
  }
  return total;
}

void narrow(const double* from, std::int64_t d, float* to) {
  std::int64_t q = 0;
  for (; q + kWidth <= d; q += kWidth) {
    const Narrow<float>::type values = __builtin_convertvector(load(from + q), Narrow<float>::type);
    __builtin_memcpy(to + q, &values, sizeof(values));
  }
  for (; q < d; ++q) to[q] = static_cast<float>(from[q]);
}

template <typename T>
bool within(const T* x, std::int64_t count, T limit) {
  int bad = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const T magnitude = x[i] < 0 ? -x[i] : x[i];
    bad |= !(magnitude <= limit);
  }
  return bad == 0;
}

template <typename T>
const GramKernels<T> kTable = {&member_sums, &distances, &nearest, &mean<T>, &variance<T>,
                                &squared_distance<T>, &narrow, &within<T>};

}  // namespace

template <typename T>
const GramKernels<T>& gram_kernels() {
  return kTable<T>;
}
template const GramKernels<float>& gram_kernels<float>();
template const GramKernels<double>& gram_kernels<double>();

}  // namespace RLSFT_ISA
}  // namespace rlsft::isodata_detail
