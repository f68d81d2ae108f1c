#define RLSFT_ISA avx512
#include "pagerank_kernels_impl.hpp"
