#include "pagerank_kernels.hpp"

#include "rlsft/cpu.hpp"

namespace rlsft {

template <typename Value, typename Weight>
const PagerankKernels<Value, Weight>& pagerank_kernels() {
#ifdef RLSFT_X86
  if (active_isa() == Isa::avx512) return avx512::pagerank_kernels<Value, Weight>();
#endif
  return scalar::pagerank_kernels<Value, Weight>();
}
template const PagerankKernels<float, Unweighted>& pagerank_kernels<float, Unweighted>();
template const PagerankKernels<float, float>& pagerank_kernels<float, float>();
template const PagerankKernels<float, double>& pagerank_kernels<float, double>();
template const PagerankKernels<double, Unweighted>& pagerank_kernels<double, Unweighted>();
template const PagerankKernels<double, float>& pagerank_kernels<double, float>();
template const PagerankKernels<double, double>& pagerank_kernels<double, double>();

}  // namespace rlsft
