#include "rlsft/overlap_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft {

OverlapRow overlap_row_kernel() {
#ifdef RLSFT_X86
  switch (active_isa()) {
    case Isa::avx512:
      return __builtin_cpu_supports("avx512vpopcntdq") ? avx512::overlap_row_kernel() : avx2::overlap_row_kernel();
    case Isa::avx2: return avx2::overlap_row_kernel();
    case Isa::scalar: break;
  }
#endif
  return scalar::overlap_row_kernel();
}

}  // namespace rlsft
