#include "rlsft/dense_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft {

template <typename T>
const DenseKernels<T>& dense_kernels() {
  return RLSFT_OF_ACTIVE_ISA(kernels<T>());
}
template const DenseKernels<float>& dense_kernels<float>();
template const DenseKernels<double>& dense_kernels<double>();

}  // namespace rlsft
