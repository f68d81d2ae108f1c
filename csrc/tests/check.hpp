// The whole test framework: CHECK counts, names the line and goes on; main returns finish().
#pragma once

#include <cmath>
#include <cstdio>

namespace rlsft_test {
inline int checks = 0;
inline int failures = 0;

inline void check(bool ok, const char* expression, const char* file, int line) {
  ++checks;
  if (ok) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, expression);
}

inline int finish() {
  std::printf("%d checks, %d failed\n", checks, failures);
  return checks == 0 || failures != 0;
}
}  // namespace rlsft_test

#define CHECK(expression) rlsft_test::check((expression), #expression, __FILE__, __LINE__)
#define CHECK_NEAR(a, b, tolerance) CHECK(std::abs((a) - (b)) <= (tolerance))
