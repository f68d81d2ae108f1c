#include <algorithm>

#include "fuzz_input.hpp"
#include "rlsft/linear_solve.hpp"

// A * x = b: refused when a row or a column is zero; otherwise a backward stable solution. The growth of partial
// pivoting is at most 2^(n-1), and entries on a grid keep pivots far from the ends of double.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rlsft_fuzz;
  Input in(data, size);
  const std::int64_t n = in.between(0, 8);
  const std::vector<double> matrix = in.rows<double>(n, n, {}), rhs = in.rows<double>(1, n, {});
  std::vector<double> destroyed = matrix, x = rhs;
  const bool solved = rlsft::solve_in_place(destroyed.data(), x.data(), n);
  double largest = 0, largest_x = 0, largest_b = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    bool row_is_zero = true, column_is_zero = true;
    for (std::int64_t j = 0; j < n; ++j) {
      row_is_zero = row_is_zero && matrix[i * n + j] == 0;
      column_is_zero = column_is_zero && matrix[j * n + i] == 0;
      largest = std::max(largest, std::abs(matrix[i * n + j]));
    }
    if (row_is_zero || column_is_zero) REQUIRE(!solved);
    largest_x = std::max(largest_x, std::abs(x[i]));
    largest_b = std::max(largest_b, std::abs(rhs[i]));
  }
  if (!solved) return 0;
  REQUIRE(all_finite(x.data(), n));
  const double eps = std::numeric_limits<double>::epsilon(), size_n = static_cast<double>(n);
  const double allowed = 8 * std::ldexp(size_n * size_n, static_cast<int>(n)) * eps * (largest * largest_x + largest_b);
  for (std::int64_t i = 0; i < n; ++i) {
    double residual = -rhs[i];
    for (std::int64_t j = 0; j < n; ++j) residual += matrix[i * n + j] * x[j];
    REQUIRE(std::abs(residual) <= allowed);
  }
  return 0;
}
