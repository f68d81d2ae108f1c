// Included by loss_kernels_<isa>.cpp, which define RLSFT_ISA (a namespace) and RLSFT_REGISTER (bytes of a register).
// Only builtins here: an inline function of the standard library, compiled for AVX-512 in this file, could be the one
// copy the linker keeps for everybody.
#include "loss_kernels.hpp"

#include "../core/vector_math_impl.hpp"

#include "loss_chunks_impl.hpp"

#include "gae_kernels_impl.hpp"
#include "pair_kernels_impl.hpp"
#include "policy_value_kernels_impl.hpp"

namespace rlsft::losses_detail::RLSFT_ISA {

const LossKernels& loss_kernels() {
  static constexpr LossKernels kTable = {&policy_value, &gae, &connect, &whiten, &reward_pairs, &pairs};
  return kTable;
}

}  // namespace rlsft::losses_detail::RLSFT_ISA
