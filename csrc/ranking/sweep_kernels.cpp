#include "sweep_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft {

template <typename T>
const SweepKernels<T>& sweep_kernels() {
  return RLSFT_OF_ACTIVE_ISA(sweeps<T>());
}
template const SweepKernels<float>& sweep_kernels<float>();
template const SweepKernels<double>& sweep_kernels<double>();

}  // namespace rlsft
