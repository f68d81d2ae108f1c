#define RLSFT_ISA avx512
#define RLSFT_LANES 16
#include "nearest_kernels_impl.hpp"
