#define RLSFT_ISA scalar
#define RLSFT_LANES 4
#include "nearest_kernels_impl.hpp"
