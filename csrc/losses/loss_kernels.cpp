#include "loss_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft::losses_detail {

const LossKernels& loss_kernels() {
#ifdef RLSFT_X86
  switch (active_isa()) {
    case Isa::avx512: return avx512::loss_kernels();
    case Isa::avx2: return avx2::loss_kernels();
    case Isa::scalar: break;
  }
#endif
  return scalar::loss_kernels();
}

}  // namespace rlsft::losses_detail
