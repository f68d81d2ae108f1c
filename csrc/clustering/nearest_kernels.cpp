#include "nearest_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft::nearest {

template <typename T>
const Kernels<T>& kernels() {
#ifdef RLSFT_X86
  switch (active_isa()) {
    case Isa::avx512: return avx512::kernels<T>();
    case Isa::avx2: return avx2::kernels<T>();
    case Isa::scalar: break;
  }
#endif
  return scalar::kernels<T>();
}
template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace rlsft::nearest
