// Which instruction set the kernels use: the best this CPU has, or what RLSFT_ISA=scalar|avx2|avx512 asks for.
#pragma once

namespace rlsft {

enum class Isa { scalar = 0, avx2 = 1, avx512 = 2 };

// The wish, or the best where there is none (null or empty). Throws std::invalid_argument when the wish is none of the
// three names, or one beyond the best: a wish that cannot be met must not change silently what a bench measures.
Isa choose_isa(Isa best, const char* wish);

// choose_isa() of this CPU and RLSFT_ISA, read once for each process.
Isa active_isa();
const char* active_isa_name();

}  // namespace rlsft

// What `call` gives in the namespace of the active instruction set: scalar::call, avx2::call or avx512::call.
#ifdef RLSFT_X86
#define RLSFT_OF_ACTIVE_ISA(call)                               \
  (::rlsft::active_isa() == ::rlsft::Isa::avx512 ? avx512::call \
   : ::rlsft::active_isa() == ::rlsft::Isa::avx2 ? avx2::call   \
                                                 : scalar::call)
#else
#define RLSFT_OF_ACTIVE_ISA(call) (scalar::call)
#endif
