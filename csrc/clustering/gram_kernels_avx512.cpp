#define RLSFT_ISA avx512
#define RLSFT_REGISTER 64
#include "gram_kernels_impl.hpp"
