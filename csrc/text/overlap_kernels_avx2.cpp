#define RLSFT_ISA avx2
#include "overlap_kernels_impl.hpp"
