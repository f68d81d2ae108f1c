#define RLSFT_ISA avx512
#define RLSFT_TILE 4
#include "dense_kernels.inl"
