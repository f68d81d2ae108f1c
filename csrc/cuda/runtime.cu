#include "rlsft/cuda/runtime.hpp"

namespace rlsft::cuda {

std::string toolkit_version() {
  return std::to_string(__CUDACC_VER_MAJOR__) + "." + std::to_string(__CUDACC_VER_MINOR__);
}

std::string architectures() { return RLSFT_CUDA_ARCHITECTURES; }

}  // namespace rlsft::cuda
