#include "gram_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft::isodata_detail {

template <typename T>
const GramKernels<T>& gram_kernels() {
  return RLSFT_OF_ACTIVE_ISA(gram_kernels<T>());
}
template const GramKernels<float>& gram_kernels<float>();
template const GramKernels<double>& gram_kernels<double>();

}  // namespace rlsft::isodata_detail
