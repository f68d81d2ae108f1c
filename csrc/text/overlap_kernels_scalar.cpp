#define RLSFT_ISA scalar
#include "overlap_kernels_impl.hpp"
