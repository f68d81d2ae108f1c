#define RLSFT_ISA avx512
#define RLSFT_REGISTER 64
#include "vector_math_probe_impl.hpp"
