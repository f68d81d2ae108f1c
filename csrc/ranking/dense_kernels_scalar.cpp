#define RLSFT_ISA scalar
#define RLSFT_TILE 1
#define RLSFT_REGISTER 16
#include "dense_kernels_impl.hpp"
