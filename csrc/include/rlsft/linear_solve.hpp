// A dense linear system, for the small cases where iterating is hopeless.
#pragma once

#include <cstdint>

namespace rlsft {

// Solves matrix * x = rhs by Gaussian elimination with partial pivoting; x replaces rhs, matrix [n, n] is destroyed.
// False when a pivot is exactly zero. O(n^3).
bool solve_in_place(double* matrix, double* rhs, std::int64_t n);

}  // namespace rlsft
