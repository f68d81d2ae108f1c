#define RLSFT_ISA scalar
#define RLSFT_REGISTER 16
#include "gram_kernels_impl.hpp"
