#define RLSFT_ISA scalar
#define RLSFT_REGISTER 16
#include "head_kernels_impl.hpp"
