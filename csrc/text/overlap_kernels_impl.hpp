// Included by overlap_kernels_scalar.cpp and overlap_kernels_avx2.cpp, which define RLSFT_ISA (a namespace). With AVX2
// the compiler has the popcount instruction. Only builtins here: an inline function of the standard library, compiled
// for a newer CPU in this file, could be the one copy the linker keeps for everybody.
#include "rlsft/overlap_kernels.hpp"

namespace rlsft {
namespace RLSFT_ISA {
namespace {

void overlap_row(const std::uint64_t* bits, std::int64_t words, std::int64_t ld, std::int64_t row, const double* logs,
                 std::int64_t m, double* weights) {
  for (std::int64_t begin = 0; begin < m; begin += kOverlapLanes) {
    std::int64_t shared[kOverlapLanes] = {};
    for (std::int64_t k = 0; k < words; ++k) {
      const std::uint64_t mine = bits[k * ld + row];
      const std::uint64_t* line = bits + k * ld + begin;
      for (int lane = 0; lane < kOverlapLanes; ++lane) shared[lane] += __builtin_popcountll(mine & line[lane]);
    }
    const std::int64_t lanes = m - begin < kOverlapLanes ? m - begin : kOverlapLanes;
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      const double sum = logs[row] + logs[begin + lane];
      const double total = weights[begin + lane] + static_cast<double>(shared[lane]);
      weights[begin + lane] = sum == 0.0 ? 0.0 : total / sum;
    }
  }
}

}  // namespace

OverlapRow overlap_row_kernel() { return overlap_row; }

}  // namespace RLSFT_ISA
}  // namespace rlsft
