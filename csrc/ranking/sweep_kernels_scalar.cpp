#define RLSFT_ISA scalar
#define RLSFT_REGISTER 16
#include "sweep_kernels_impl.hpp"
