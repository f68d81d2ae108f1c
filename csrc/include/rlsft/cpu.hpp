// Which instruction set the kernels use: the best this CPU has, or what RLSFT_ISA=scalar|avx2|avx512 asks for.
#pragma once

namespace rlsft {

enum class Isa { scalar = 0, avx2 = 1, avx512 = 2 };

// Read once for each process. Throws std::invalid_argument when RLSFT_ISA is none of the three, or names one that
// this CPU lacks: a wish that cannot be met must not change silently what a bench measures.
Isa active_isa();
const char* active_isa_name();

}  // namespace rlsft
