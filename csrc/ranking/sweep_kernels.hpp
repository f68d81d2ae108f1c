// The inner loops of power iteration, compiled once for each instruction set and chosen at run time.
//
// Bits: every column of a sweep sums its rows in the same fixed order, every row of `project` its lanes in the same
// order, wherever it stands. Sums run in double.
#pragma once

#include <cstdint>

namespace rlsft {

// One graph of the fused iteration, padded: ld a multiple of 8; vectors [ld], 64-byte aligned, 0 in m..ld-1.
template <typename T>
struct PaddedGraph {
  const T* weights;  // [m, ld], 64-byte aligned, columns m..ld-1 zero
  std::int64_t m, ld;
  const double* inverse_sums;  // 1 / row sum, 0 for a row without edges
  const double* teleport;
};

struct SweepLimits {
  double damping, tol;
  std::int64_t max_iter;
};

template <typename T>
struct SweepKernels {
  // Jacobi sweeps x <- (1-a) v + a (W^T (x * inverse_sums) + D v) until the L1 step is below tol; returns their
  // number. u and y [ld] are scratch.
  std::int64_t (*iterate)(const PaddedGraph<T>& graph, const SweepLimits& limits, double* x, double* u, double* y,
                          double* residual);

  // Gauss-Seidel sweeps in node order that carry the mass: base_j = v_j ((1-a) S + a D) with the total S and dangling
  // mass D of the sweep before. x sums to 1 at the end. y holds W^T u while x changes. weights [m, ld] at any address.
  std::int64_t (*iterate_in_place)(const PaddedGraph<T>& graph, const SweepLimits& limits, double* x, double* y,
                                   double* residual);

  // y[j] = sum_i u[i] * weights[i, j] for j in begin..end; weights [m, ld] at any address.
  void (*sweep)(const T* weights, std::int64_t m, std::int64_t ld, std::int64_t begin, std::int64_t end,
                const double* u, double* y);

  // y[j] += what rows begin..end of the upper triangle of a symmetric W give to W u: each weight with j > i counts for
  // y[i] and for y[j], those on the diagonal once. begin is a multiple of 4; weights [m, ld] at any address.
  void (*sweep_upper)(const T* weights, std::int64_t m, std::int64_t ld, std::int64_t begin, std::int64_t end,
                      const double* u, double* y);

  // sums[i] = sum_j weights[i, j] for j < columns and i in begin..end. False when some weight is negative, NaN or inf.
  bool (*row_sums)(const T* weights, std::int64_t begin, std::int64_t end, std::int64_t columns, std::int64_t ld,
                   double* sums);

  // dots[r] = rows[r] . z for four rows of d values.
  void (*project)(const T* const* rows, std::int64_t d, const double* z, double* dots);

  // squares[r] = rows[r] . rows[r] in the same order.
  void (*squares)(const T* const* rows, std::int64_t d, double* squares);

  // z += sum_r weights[r] * rows[r] over four rows.
  void (*accumulate)(const T* const* rows, std::int64_t d, const double* weights, double* z);
};

// The kernels of active_isa(). T is float or double.
template <typename T>
const SweepKernels<T>& sweep_kernels();

namespace scalar {
template <typename T>
const SweepKernels<T>& sweeps();
}
namespace avx2 {
template <typename T>
const SweepKernels<T>& sweeps();
}
namespace avx512 {
template <typename T>
const SweepKernels<T>& sweeps();
}

}  // namespace rlsft
