#include "gram_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft::isodata_detail {

template <typename T>
const GramKernels<T>& gram_kernels() {
#ifdef RLSFT_X86
  switch (active_isa()) {
    case Isa::avx512: return avx512::gram_kernels<T>();
    case Isa::avx2: return avx2::gram_kernels<T>();
    case Isa::scalar: break;
  }
#endif
  return scalar::gram_kernels<T>();
}
template const GramKernels<float>& gram_kernels<float>();
template const GramKernels<double>& gram_kernels<double>();

}  // namespace rlsft::isodata_detail
