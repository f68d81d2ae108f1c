#define RLSFT_ISA avx2
#define RLSFT_TILE 2
#define RLSFT_REGISTER 32
#include "dense_kernels_impl.hpp"
