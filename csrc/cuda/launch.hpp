// How the files of this folder report errors of the CUDA runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "rlsft/cuda/runtime.hpp"

namespace rlsft::cuda {

inline void require_success(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(std::string(what) + " failed: " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

// After a launch: errors of the launch itself. Those of the kernel show at the next synchronisation.
inline void require_launched(const char* kernel) { require_success(cudaGetLastError(), kernel); }

}  // namespace rlsft::cuda
