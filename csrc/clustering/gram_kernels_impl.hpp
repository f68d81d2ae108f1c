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

template <typename T>
void member_sums(const T* gram, std::int64_t ld, std::int64_t n, const std::int32_t* set, std::int64_t num_sets,
                 std::int64_t stride, double* sums) {
  for (std::int64_t i = 0; i < num_sets * stride; ++i) sums[i] = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    if (set[j] < 0) continue;
    const T* row = gram + j * ld;
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

template <typename T>
void mean(const T* const* members, std::int64_t count, std::int64_t d, double* out) {
  const T* first = members[0];
  const double size = static_cast<double>(count);
  std::int64_t q = 0;
  for (; q + kWidth <= d; q += kWidth) {
    const Doubles anchor = load(first + q);
    Doubles sum = {};
    for (std::int64_t j = 1; j < count; ++j) sum += load(members[j] + q) - anchor;
    store(out + q, anchor + sum / size);
  }
  for (; q < d; ++q) {
    const double anchor = static_cast<double>(first[q]);
    double sum = 0;
    for (std::int64_t j = 1; j < count; ++j) sum += static_cast<double>(members[j][q]) - anchor;
    out[q] = anchor + sum / size;
  }
}

template <typename T>
void variance(const T* const* members, std::int64_t count, std::int64_t d, const double* mean, double* out) {
  const double size = static_cast<double>(count);
  std::int64_t q = 0;
  for (; q + kWidth <= d; q += kWidth) {
    const Doubles center = load(mean + q);
    Doubles sum = {};
    for (std::int64_t j = 0; j < count; ++j) {
      const Doubles difference = load(members[j] + q) - center;
      sum += difference * difference;
    }
    store(out + q, sum / size);
  }
  for (; q < d; ++q) {
    double sum = 0;
    for (std::int64_t j = 0; j < count; ++j) {
      const double difference = static_cast<double>(members[j][q]) - mean[q];
      sum += difference * difference;
    }
    out[q] = sum / size;
  }
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
const GramKernels<T> kTable = {&member_sums<T>, &distances, &nearest, &mean<T>, &variance<T>, &within<T>};

}  // namespace

template <typename T>
const GramKernels<T>& gram_kernels() {
  return kTable<T>;
}
template const GramKernels<float>& gram_kernels<float>();
template const GramKernels<double>& gram_kernels<double>();

}  // namespace RLSFT_ISA
}  // namespace rlsft::isodata_detail
