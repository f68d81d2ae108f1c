#include "sweep_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft {

template <typename T>
const SweepKernels<T>& sweep_kernels() {
#ifdef RLSFT_X86
  switch (active_isa()) {
    case Isa::avx512: return avx512::sweeps<T>();
    case Isa::avx2: return avx2::sweeps<T>();
    case Isa::scalar: break;
  }
#endif
  return scalar::sweeps<T>();
}
template const SweepKernels<float>& sweep_kernels<float>();
template const SweepKernels<double>& sweep_kernels<double>();

}  // namespace rlsft
