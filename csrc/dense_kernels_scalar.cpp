#define RLSFT_ISA scalar
#define RLSFT_TILE 1
#include "dense_kernels.inl"
