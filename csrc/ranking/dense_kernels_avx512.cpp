#define RLSFT_ISA avx512
#define RLSFT_TILE 4
#define RLSFT_REGISTER 64
#include "dense_kernels_impl.hpp"
