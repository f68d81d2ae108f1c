#define RLSFT_ISA avx2
#define RLSFT_REGISTER 32
#include "loss_kernels_impl.hpp"
