#define RLSFT_ISA avx2
#define RLSFT_LANES 8
#include "nearest_kernels_impl.hpp"
