#define RLSFT_ISA scalar
#include "pagerank_kernels_impl.hpp"
