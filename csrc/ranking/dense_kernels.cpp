#include "rlsft/dense_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft {

template <typename T>
const DenseKernels<T>& dense_kernels() {
#ifdef RLSFT_X86
  switch (active_isa()) {
    case Isa::avx512: return avx512::kernels<T>();
    case Isa::avx2: return avx2::kernels<T>();
    case Isa::scalar: break;
  }
#endif
  return scalar::kernels<T>();
}
template const DenseKernels<float>& dense_kernels<float>();
template const DenseKernels<double>& dense_kernels<double>();

}  // namespace rlsft
