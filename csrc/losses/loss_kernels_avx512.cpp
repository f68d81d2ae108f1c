#define RLSFT_ISA avx512
#define RLSFT_REGISTER 64
#include "loss_kernels_impl.hpp"
