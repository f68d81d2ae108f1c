// Included by head_kernels_<isa>.cpp, which define RLSFT_ISA and RLSFT_REGISTER.
#include <math.h>

#include "../core/vector_math_impl.hpp"
#include "head_kernels.hpp"

namespace rlsft::head_detail::RLSFT_ISA {
namespace {

namespace vm = vector_math::RLSFT_ISA;
using vm::Floats;
using vm::kLanes;

constexpr std::int64_t kBlock = 2048;  // columns at a time: their float32 logits (8 KiB) stay in the first-level cache
constexpr std::int64_t kAhead = 1024;  // columns fetched ahead where a tile is larger than the caches
// exp() of anything below is 0, and 0 * -1e4 is 0 where 0 * -inf would be NaN
constexpr float kLowest = -1e4f;

// z of a register of tile values. The plain case is one multiplication.
struct Logits {
  Floats scale;    // logit_scale / temperature, or logit_scale before a cap
  float softcap;   // 0: none
  Floats inverse;  // 1 / softcap
  Floats over_temperature;
  const float* bias;

  explicit Logits(const RowTransform& t)
      : scale(vm::all(t.softcap != 0 ? t.logit_scale : t.logit_scale / t.temperature)),
        softcap(t.softcap),
        inverse(vm::all(t.softcap != 0 ? 1.0f / t.softcap : 0.0f)),
        over_temperature(vm::all(1.0f / t.temperature)),
        bias(t.bias) {}

  // Before the cap.
  Floats scaled(Floats a, std::int64_t column) const {
    return (bias ? a + vm::load(bias + column) : a) * scale;
  }
  Floats capped_unit(Floats y) const { return vm::tanh(y * inverse); }
  Floats operator()(Floats a, std::int64_t column) const {
    const Floats y = scaled(a, column);
    return softcap != 0 ? capped_unit(y) * softcap * over_temperature : y;
  }
};

// The last columns of a row as a full register: values beyond the end are `fill`.
template <typename T>
Floats load_tail(const T* from, std::int64_t count) {
  T values[kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) values[i] = from[i];
  return vm::load(values);
}

struct TailBias {
  float values[kLanes];
  TailBias(const float* bias, std::int64_t start, std::int64_t count) : values{} {
    for (std::int64_t i = 0; bias && i < count; ++i) values[i] = bias[start + i];
  }
};

float plain_sum(const float* z, std::int64_t count) {
  Floats sum{};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum += vm::load(z + i);
  float total = vm::sum_of(sum);
  for (; i < count; ++i) total += z[i];
  return total;
}

// Writes the final logits of one block, padded with -inf to whole registers, and returns the largest.
template <typename T>
float write_logits(const T* row, std::int64_t begin, std::int64_t count, const Logits& logits, float* z) {
  Floats largest = vm::all(-__builtin_inff());
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats value = logits(vm::load(row + begin + i), begin + i);
    largest = largest < value ? value : largest;
    vm::store(z + i, value);
  }
  if (i < count) {
    const TailBias bias(logits.bias, begin + i, count - i);
    Logits tail = logits;
    tail.bias = logits.bias ? bias.values : nullptr;
    vm::store(z + i, tail(load_tail(row + begin + i, count - i), 0));
    for (std::int64_t j = count; j < i + kLanes; ++j) z[j] = -__builtin_inff();
    const Floats value = vm::load(z + i);
    largest = largest < value ? value : largest;
  }
  return vm::largest_of(largest);
}

template <bool Shifted, bool Squared>
void add_exponentials(const float* z, std::int64_t padded, float row_max, RowFold& fold) {
  Floats sum{}, shifted_sum{}, square_sum{};
  for (std::int64_t i = 0; i < padded; i += kLanes) {
    const Floats shifted = vm::load(z + i) - row_max;
    const Floats e = vm::exp_of_nonpositive(shifted);
    sum += e;
    if (Shifted) shifted_sum += e * vm::at_least(shifted, vm::all(kLowest));
    if (Squared) square_sum += e * e;
  }
  fold.sum_exp += vm::sum_of(sum);
  if (Shifted) fold.sum_exp_shifted += vm::sum_of(shifted_sum);
  if (Squared) fold.sum_exp_sq += vm::sum_of(square_sum);
}

// Sums around a new maximum: sum of e^(z-m') = e^(m-m') * sum of e^(z-m), and likewise the others.
void raise_maximum(float largest, RowFold& fold) {
  if (!(largest > fold.row_max)) return;
  if (fold.sum_exp != 0) {
    const double step = fold.row_max - largest, shrink = ::exp(step);
    fold.sum_exp_shifted = shrink * (fold.sum_exp_shifted + step * fold.sum_exp);
    fold.sum_exp *= shrink;
    fold.sum_exp_sq *= shrink * shrink;
  }
  fold.row_max = largest;
}

template <typename T>
void fold_row(const T* row, std::int64_t columns, std::int64_t column_start, std::int64_t target,
              const RowTransform& transform, RowFold& fold) {
  alignas(64) float z[kBlock + kLanes];
  const Logits logits(transform);
  for (std::int64_t begin = 0; begin < columns; begin += kBlock) {
    const std::int64_t count = columns - begin < kBlock ? columns - begin : kBlock;
    const std::int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    const float largest = write_logits(row, begin, count, logits, z);
    if (fold.want_first && largest > fold.row_max) {
      std::int64_t first = 0;
      while (first + 1 < count && z[first] != largest) ++first;
      fold.first_largest = column_start + begin + first;
    }
    raise_maximum(largest, fold);
    const float row_max = static_cast<float>(fold.row_max);
    const float around = row_max == -__builtin_inff() ? 0.0f : row_max;  // -inf - -inf would be NaN
    if (fold.want_shifted && fold.want_sq) add_exponentials<true, true>(z, padded, around, fold);
    else if (fold.want_shifted) add_exponentials<true, false>(z, padded, around, fold);
    else if (fold.want_sq) add_exponentials<false, true>(z, padded, around, fold);
    else add_exponentials<false, false>(z, padded, around, fold);
    if (fold.want_sum) fold.sum_logit += plain_sum(z, count);
    const std::int64_t local = target - column_start - begin;
    if (local >= 0 && local < count) fold.target_logit = z[local];
  }
}

// The gradient of one row, its numbers in registers: stores through `out` could otherwise change them for all the
// compiler knows.
template <bool Entropy, bool Capped>
struct Gradient {
  Logits logits;
  Floats factor, row_max, log_sum, constant, by_entropy, entropy;

  Gradient(const Logits& l, const RowTransform& t, const RowGradient& g)
      : logits(l),
        factor(vm::all(t.logit_scale / t.temperature)),
        row_max(vm::all(g.row_max)),
        log_sum(vm::all(g.log_sum)),
        constant(vm::all(g.by_lse - g.by_logprob)),
        by_entropy(vm::all(g.by_entropy)),
        entropy(vm::all(g.entropy)) {
    if (!Capped && !Entropy) constant = constant * factor;
  }

  Floats operator()(Floats a, std::int64_t column) const {
    Floats z, slope = factor;
    if (Capped) {
      const Floats unit = logits.capped_unit(logits.scaled(a, column));
      z = unit * logits.softcap * logits.over_temperature;
      slope = factor * (1.0f - unit * unit);
    } else {
      z = logits.scaled(a, column);
    }
    const Floats logprob = (z - row_max) - log_sum;
    const Floats p = vm::exp_of_nonpositive(logprob);
    if (!Entropy) return Capped ? p * constant * slope : p * constant;
    const Floats surprise = vm::at_least(logprob, vm::all(kLowest)) + entropy;
    return p * (constant - by_entropy * surprise) * slope;
  }
};

// The target's entry as one number: g - g * p would round twice where p is close to 1.
float target_gradient(float a, std::int64_t column, const Logits& logits, const RowTransform& t, const RowGradient& g) {
  const TailBias bias(logits.bias, column, 1);
  Logits one = logits;
  one.bias = logits.bias ? bias.values : nullptr;
  const Floats y = one.scaled(vm::all(a), 0);
  const Floats unit = logits.softcap != 0 ? logits.capped_unit(y) : Floats{};
  const float slope = t.logit_scale / t.temperature * (1.0f - unit[0] * unit[0]);
  const float p = vm::exp(vm::all(g.logprob))[0];
  const float rest = g.has_entropy ? g.by_lse - g.by_entropy * (g.logprob + g.entropy) : g.by_lse;
  return (p * rest - g.by_logprob * ::expm1f(g.logprob)) * slope;
}

template <bool Entropy, bool Capped, typename T>
void gradient_columns(const T* row, std::int64_t columns, const RowTransform& t, const Logits& logits,
                      const RowGradient& g, T* out) {
  Gradient<Entropy, Capped> gradient(logits, t, g);
  std::int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) {
    __builtin_prefetch(row + i + kAhead);
    vm::store(out + i, gradient(vm::load(row + i), i));
  }
  if (i == columns) return;
  const TailBias bias(logits.bias, i, columns - i);
  gradient.logits.bias = logits.bias ? bias.values : nullptr;
  T values[kLanes];
  vm::store(values, gradient(load_tail(row + i, columns - i), 0));
  for (std::int64_t j = i; j < columns; ++j) out[j] = values[j - i];
}

template <typename T>
void gradient_row(const T* row, std::int64_t columns, const RowTransform& t, const RowGradient& g, T* out) {
  const Logits logits(t);
  const bool has_target = g.target >= 0 && g.target < columns;
  float at_target = 0;
  if (has_target) at_target = target_gradient(load_tail(row + g.target, 1)[0], g.target, logits, t, g);
  if (t.softcap != 0) {
    if (g.has_entropy) gradient_columns<true, true>(row, columns, t, logits, g, out);
    else gradient_columns<false, true>(row, columns, t, logits, g, out);
  } else {
    if (g.has_entropy) gradient_columns<true, false>(row, columns, t, logits, g, out);
    else gradient_columns<false, false>(row, columns, t, logits, g, out);
  }
  if (!has_target) return;
  T values[kLanes];
  vm::store(values, vm::all(at_target));
  out[g.target] = values[0];
}

}  // namespace

template <typename T>
const HeadKernels<T>& head_kernels() {
  static const HeadKernels<T> kernels{&fold_row<T>, &gradient_row<T>};
  return kernels;
}
template const HeadKernels<float>& head_kernels<float>();
template const HeadKernels<std::uint16_t>& head_kernels<std::uint16_t>();

}  // namespace rlsft::head_detail::RLSFT_ISA
