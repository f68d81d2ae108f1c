#define RLSFT_ISA avx2
#define RLSFT_TILE 2
#include "dense_kernels.inl"
