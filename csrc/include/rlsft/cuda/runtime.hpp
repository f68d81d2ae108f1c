// What the build and the driver say about CUDA. Present only in builds with nvcc.
#pragma once

#include <stdexcept>
#include <string>

namespace rlsft::cuda {

// A call of the CUDA runtime failed; what() holds the kernel's name and the driver's words.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

std::string toolkit_version();  // of nvcc, "13.0"
std::string architectures();    // that machine code was made for, "sm_80, 90"

}  // namespace rlsft::cuda
