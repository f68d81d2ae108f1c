#include "rlsft/linear_solve.hpp"

#include <algorithm>
#include <cmath>

namespace rlsft {
namespace {

std::int64_t pivot_row(const double* matrix, std::int64_t n, std::int64_t column) {
  std::int64_t best = column;
  for (std::int64_t i = column + 1; i < n; ++i) {
    if (std::abs(matrix[i * n + column]) > std::abs(matrix[best * n + column])) best = i;
  }
  return best;
}

}  // namespace

bool solve_in_place(double* matrix, double* rhs, std::int64_t n) {
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int64_t p = pivot_row(matrix, n, k);
    if (matrix[p * n + k] == 0.0) return false;
    if (p != k) {
      std::swap_ranges(matrix + p * n, matrix + (p + 1) * n, matrix + k * n);
      std::swap(rhs[p], rhs[k]);
    }
    for (std::int64_t i = k + 1; i < n; ++i) {
      const double factor = matrix[i * n + k] / matrix[k * n + k];
      for (std::int64_t j = k; j < n; ++j) matrix[i * n + j] -= factor * matrix[k * n + j];
      rhs[i] -= factor * rhs[k];
    }
  }
  for (std::int64_t k = n - 1; k >= 0; --k) {
    for (std::int64_t j = k + 1; j < n; ++j) rhs[k] -= matrix[k * n + j] * rhs[j];
    rhs[k] /= matrix[k * n + k];
  }
  return true;
}

}  // namespace rlsft
