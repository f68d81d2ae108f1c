#define RLSFT_ISA scalar
#define RLSFT_REGISTER 16
#include "loss_kernels_impl.hpp"
