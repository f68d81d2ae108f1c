// The inner loop of word overlap, compiled once for each instruction set and chosen at run time. All give equal bits:
// counts are exact, and one division rounds the same everywhere.
#pragma once

#include <cstdint>

namespace rlsft {

constexpr std::int64_t kOverlapLanes = 8;  // responses side by side in a bit table

// weights[j] = (weights[j] + |bits of `row` and of j|) / (logs[row] + logs[j]) for j < m, and 0 where the sum of the
// logs is 0. On entry weights holds what was counted elsewhere. bits [words, ld]: 64 words of the vocabulary a
// line, one column a response; ld is a multiple of kOverlapLanes. logs [ld], infinite for an empty response.
using OverlapRow = void (*)(const std::uint64_t* bits, std::int64_t words, std::int64_t ld, std::int64_t row,
                            const double* logs, std::int64_t m, double* weights);

// The kernel of active_isa().
OverlapRow overlap_row_kernel();

namespace scalar {
OverlapRow overlap_row_kernel();
}
namespace avx2 {
OverlapRow overlap_row_kernel();
}
namespace avx512 {
// with VPOPCNTDQ, where the CPU has it; without, the AVX2 kernel is as good
OverlapRow overlap_row_kernel();
}

}  // namespace rlsft
