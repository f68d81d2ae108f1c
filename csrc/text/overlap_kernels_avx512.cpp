// Eight responses a register: the population count of 64-bit lanes needs no sum across lanes.
#include <immintrin.h>

#include "rlsft/overlap_kernels.hpp"

namespace rlsft {
namespace avx512 {
namespace {

// VPOPCNTDQ is asked for here alone: not every CPU with the rest of AVX-512 has it
__attribute__((target("avx512vpopcntdq"))) void overlap_row(const std::uint64_t* bits, std::int64_t words,
                                                            std::int64_t ld, std::int64_t row, const double* logs,
                                                            std::int64_t m, double* weights) {
  const __m512d log_row = _mm512_set1_pd(logs[row]);
  for (std::int64_t begin = 0; begin < m; begin += kOverlapLanes) {
    __m512i shared = _mm512_setzero_si512();
    for (std::int64_t k = 0; k < words; ++k) {
      const __m512i mine = _mm512_set1_epi64(static_cast<long long>(bits[k * ld + row]));
      const __m512i both = _mm512_and_si512(mine, _mm512_loadu_si512(bits + k * ld + begin));
      shared = _mm512_add_epi64(shared, _mm512_popcnt_epi64(both));
    }
    const std::int64_t left = m - begin;
    const __mmask8 lanes = static_cast<__mmask8>(left >= kOverlapLanes ? 0xff : (1 << left) - 1);
    const __m512d sum = _mm512_add_pd(log_row, _mm512_loadu_pd(logs + begin));
    const __m512d total = _mm512_add_pd(_mm512_maskz_loadu_pd(lanes, weights + begin), _mm512_cvtepi64_pd(shared));
    const __mmask8 divide = _mm512_mask_cmp_pd_mask(lanes, sum, _mm512_setzero_pd(), _CMP_NEQ_UQ);
    _mm512_mask_storeu_pd(weights + begin, lanes, _mm512_maskz_div_pd(divide, total, sum));
  }
}

}  // namespace

OverlapRow overlap_row_kernel() { return overlap_row; }

}  // namespace avx512
}  // namespace rlsft
