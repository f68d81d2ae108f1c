#define RLSFT_ISA avx2
#define RLSFT_REGISTER 32
#include "vector_math_probe_impl.hpp"
