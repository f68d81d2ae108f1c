#define RLSFT_ISA scalar
#define RLSFT_REGISTER 16
#include "vector_math_probe_impl.hpp"
