#include "nearest_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft::nearest {

template <typename T>
const Kernels<T>& kernels() {
  return RLSFT_OF_ACTIVE_ISA(kernels<T>());
}
template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace rlsft::nearest
