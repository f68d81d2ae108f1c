// Included by sweep_kernels_<isa>.cpp, which define RLSFT_ISA (a namespace) and RLSFT_REGISTER (bytes of a register).
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "sweep_kernels.hpp"

namespace rlsft {
namespace RLSFT_ISA {
namespace {

#include "dense_kernels_lanes.hpp"

// y[j .. j + 2 registers) over all rows; four chains of rows hide the latency of an addition.
template <typename T>
inline void sweep_two(const T* weights, std::int64_t m, std::int64_t ld, const double* u, double* y) {
  Wide low[4] = {}, high[4] = {};
  std::int64_t i = 0;
  for (; i + 4 <= m; i += 4) {
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const T* w = weights + (i + r) * ld;
      low[r] += u[i + r] * load_wide(w);
      high[r] += u[i + r] * load_wide(w + kWide);
    }
  }
  for (; i < m; ++i) {
    low[0] += u[i] * load_wide(weights + i * ld);
    high[0] += u[i] * load_wide(weights + i * ld + kWide);
  }
  store_doubles((low[0] + low[2]) + (low[1] + low[3]), y);
  store_doubles((high[0] + high[2]) + (high[1] + high[3]), y + kWide);
}

template <typename T>
inline void sweep_one(const T* weights, std::int64_t m, std::int64_t ld, const double* u, double* y) {
  Wide chains[4] = {};
  std::int64_t i = 0;
  for (; i + 4 <= m; i += 4) {
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) chains[r] += u[i + r] * load_wide(weights + (i + r) * ld);
  }
  for (; i < m; ++i) chains[0] += u[i] * load_wide(weights + i * ld);
  store_doubles((chains[0] + chains[2]) + (chains[1] + chains[3]), y);
}

template <typename T>
std::int64_t iterate(const PaddedGraph<T>& graph, const SweepLimits& limits, double* x, double* u, double* y,
                     double* residual) {
  const double a = limits.damping;
  const Wide zero = {};
  Wide lost = {};
  for (std::int64_t j = 0; j < graph.ld; j += kWide) {
    const Wide inverse = load_doubles(graph.inverse_sums + j), now = load_doubles(x + j);
    store_doubles(now * inverse, u + j);
    lost += inverse == 0.0 ? now : zero;
  }
  double step = __builtin_inf();
  std::int64_t n_iter = 0;
  while (n_iter < limits.max_iter && !(step < limits.tol)) {
    std::int64_t column = 0;
    for (; column + 2 * kWide <= graph.ld; column += 2 * kWide) {
      sweep_two(graph.weights + column, graph.m, graph.ld, u, y + column);
    }
    if (column < graph.ld) sweep_one(graph.weights + column, graph.m, graph.ld, u, y + column);
    const double dangling = sum_wide(lost);
    Wide moved = {};
    lost = zero;
    for (std::int64_t j = 0; j < graph.ld; j += kWide) {
      const Wide v = load_doubles(graph.teleport + j), inverse = load_doubles(graph.inverse_sums + j);
      const Wide next = (1.0 - a) * v + a * (load_doubles(y + j) + dangling * v);
      moved += absolute(next - load_doubles(x + j));
      lost += inverse == 0.0 ? next : zero;
      store_doubles(next, x + j);
      store_doubles(next * inverse, u + j);
    }
    step = sum_wide(moved);
    ++n_iter;
  }
  *residual = step;
  return n_iter;
}

template <typename T>
inline void add_row(const T* row, double factor, std::int64_t m, double* y) {
  std::int64_t j = 0;
  for (; j + kWide <= m; j += kWide) store_doubles(load_doubles(y + j) + factor * load_wide(row + j), y + j);
  for (; j < m; ++j) y[j] += factor * static_cast<double>(row[j]);
}

template <typename T>
std::int64_t iterate_in_place(const PaddedGraph<T>& graph, const SweepLimits& limits, double* x, double* y,
                              double* residual) {
  const double a = limits.damping, *inverse = graph.inverse_sums, *v = graph.teleport;
  for (std::int64_t j = 0; j < graph.m; ++j) y[j] = 0.0;
  for (std::int64_t i = 0; i < graph.m; ++i) add_row(graph.weights + i * graph.ld, x[i] * inverse[i], graph.m, y);
  double step = __builtin_inf();
  std::int64_t n_iter = 0;
  while (n_iter < limits.max_iter && !(step < limits.tol)) {
    double total = 0.0, dangling = 0.0, moved = 0.0;
    for (std::int64_t j = 0; j < graph.m; ++j) {
      total += x[j];
      dangling += inverse[j] == 0.0 ? x[j] : 0.0;
    }
    const double base = (1.0 - a) * total + a * dangling;
    for (std::int64_t j = 0; j < graph.m; ++j) {
      const double change = base * v[j] + a * y[j] - x[j];
      x[j] += change;
      moved += change < 0.0 ? -change : change;
      if (inverse[j] != 0.0) add_row(graph.weights + j * graph.ld, change * inverse[j], graph.m, y);
    }
    step = moved / total;
    ++n_iter;
  }
  double total = 0.0;
  for (std::int64_t j = 0; j < graph.m; ++j) total += x[j];
  for (std::int64_t j = 0; j < graph.m; ++j) x[j] /= total;
  *residual = step;
  return n_iter;
}

template <typename T>
void sweep(const T* weights, std::int64_t m, std::int64_t ld, std::int64_t begin, std::int64_t end, const double* u,
           double* y) {
  for (std::int64_t j = begin; j < end; ++j) y[j] = 0.0;
  std::int64_t i = 0;
  for (; i + 4 <= m; i += 4) {
    const T *w0 = weights + i * ld, *w1 = w0 + ld, *w2 = w1 + ld, *w3 = w2 + ld;
    const double u0 = u[i], u1 = u[i + 1], u2 = u[i + 2], u3 = u[i + 3];
    std::int64_t j = begin;
    for (; j + kWide <= end; j += kWide) {
      const Wide sum = (u0 * load_wide(w0 + j) + u1 * load_wide(w1 + j)) +
                              (u2 * load_wide(w2 + j) + u3 * load_wide(w3 + j));
      store_doubles(load_doubles(y + j) + sum, y + j);
    }
    for (; j < end; ++j) {
      y[j] += (u0 * static_cast<double>(w0[j]) + u1 * static_cast<double>(w1[j])) +
              (u2 * static_cast<double>(w2[j]) + u3 * static_cast<double>(w3[j]));
    }
  }
  for (; i < m; ++i) {
    for (std::int64_t j = begin; j < end; ++j) y[j] += u[i] * static_cast<double>(weights[i * ld + j]);
  }
}

// The square on the diagonal, and all rows of the last, incomplete four.
template <typename T>
inline void upper_corner(const T* weights, std::int64_t ld, std::int64_t begin, std::int64_t end, const double* u,
                         double* y) {
  for (std::int64_t i = begin; i < end; ++i) {
    y[i] += u[i] * static_cast<double>(weights[i * ld + i]);
    for (std::int64_t j = i + 1; j < end; ++j) {
      y[j] += u[i] * static_cast<double>(weights[i * ld + j]);
      y[i] += u[j] * static_cast<double>(weights[i * ld + j]);
    }
  }
}

template <typename T>
void sweep_upper(const T* weights, std::int64_t m, std::int64_t ld, std::int64_t begin, std::int64_t end,
                 const double* u, double* y) {
  for (std::int64_t i = begin; i < end; i += 4) {
    const std::int64_t corner = i + 4 < m ? i + 4 : m;
    upper_corner(weights, ld, i, corner, u, y);
    if (corner == m) continue;
    const T* w = weights + i * ld;
    Wide own[4] = {};
    std::int64_t j = corner;
    for (; j + kWide <= m; j += kWide) {
      const Wide other = load_doubles(u + j);
      Wide sum = load_doubles(y + j);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const Wide weight = load_wide(w + r * ld + j);
        own[r] += weight * other;
        sum += u[i + r] * weight;
      }
      store_doubles(sum, y + j);
    }
    for (int r = 0; r < 4; ++r) {
      double total = sum_wide(own[r]);
      for (std::int64_t tail = j; tail < m; ++tail) {
        const double weight = static_cast<double>(w[r * ld + tail]);
        total += weight * u[tail];
        y[tail] += u[i + r] * weight;
      }
      y[i + r] += total;
    }
  }
}

template <typename T>
bool row_sums(const T* weights, std::int64_t begin, std::int64_t end, std::int64_t columns, std::int64_t ld,
              double* sums) {
  using Lanes = typename WideOf<T>::type;
  constexpr T kLargest = WideOf<T>::largest;
  auto bad_lanes = Lanes{} != Lanes{};
  bool bad = false;
  for (std::int64_t i = begin; i < end; ++i) {
    const T* w = weights + i * ld;
    Wide lanes = {};
    std::int64_t j = 0;
    for (; j + kWide <= columns; j += kWide) {
      const Lanes values = *reinterpret_cast<const typename WideOf<T>::loose*>(w + j);
      bad_lanes |= ~((values >= 0) & (values <= kLargest));
      lanes += widened(values);
    }
    double sum = sum_wide(lanes);
    for (; j < columns; ++j) {
      bad |= !(w[j] >= 0 && w[j] <= kLargest);
      sum += static_cast<double>(w[j]);
    }
    sums[i] = sum;
  }
  for (int lane = 0; lane < kWide; ++lane) bad |= bad_lanes[lane] != 0;
  return !bad;
}

// Four dot products at once: with z, or of each row with itself.
template <typename T, bool Squares>
inline void four_dots(const T* const* rows, std::int64_t d, const double* z, double* dots) {
  Wide lanes[4] = {};
  std::int64_t k = 0;
  for (; k + kWide <= d; k += kWide) {
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      __builtin_prefetch(rows[r] + 4 * d + k, 0, 3);  // the rows that come next
      const Wide values = load_wide(rows[r] + k);
      lanes[r] += values * (Squares ? values : load_doubles(z + k));
    }
  }
  for (int r = 0; r < 4; ++r) {
    double sum = sum_wide(lanes[r]);
    for (std::int64_t tail = k; tail < d; ++tail) {
      const double value = static_cast<double>(rows[r][tail]);
      sum += value * (Squares ? value : z[tail]);
    }
    dots[r] = sum;
  }
}
template <typename T>
void project(const T* const* rows, std::int64_t d, const double* z, double* dots) {
  four_dots<T, false>(rows, d, z, dots);
}
template <typename T>
void squares(const T* const* rows, std::int64_t d, double* out) {
  four_dots<T, true>(rows, d, nullptr, out);
}

template <typename T>
void accumulate(const T* const* rows, std::int64_t d, const double* weights, double* z) {
  const T *x0 = rows[0], *x1 = rows[1], *x2 = rows[2], *x3 = rows[3];
  const double w0 = weights[0], w1 = weights[1], w2 = weights[2], w3 = weights[3];
  std::int64_t k = 0;
  for (; k + kWide <= d; k += kWide) {
    const Wide sum = (w0 * load_wide(x0 + k) + w1 * load_wide(x1 + k)) +
                            (w2 * load_wide(x2 + k) + w3 * load_wide(x3 + k));
    store_doubles(load_doubles(z + k) + sum, z + k);
  }
  for (; k < d; ++k) {
    z[k] += (w0 * static_cast<double>(x0[k]) + w1 * static_cast<double>(x1[k])) +
            (w2 * static_cast<double>(x2[k]) + w3 * static_cast<double>(x3[k]));
  }
}

template <typename T>
const SweepKernels<T> kTable = {&iterate<T>, &iterate_in_place<T>, &sweep<T>,   &sweep_upper<T>,
                                &row_sums<T>, &project<T>,         &squares<T>, &accumulate<T>};

}  // namespace

template <typename T>
const SweepKernels<T>& sweeps() {
  return kTable<T>;
}
template const SweepKernels<float>& sweeps<float>();
template const SweepKernels<double>& sweeps<double>();

}  // namespace RLSFT_ISA
}  // namespace rlsft
