#include "rlsft/cpu.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace rlsft {
namespace {

constexpr const char* kNames[] = {"scalar", "avx2", "avx512"};

Isa best_isa() {
#ifdef RLSFT_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (avx2 && avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::scalar;
}

}  // namespace

Isa choose_isa(Isa best, const char* wish) {
  if (wish == nullptr || *wish == '\0') return best;
  for (int i = 0; i < 3; ++i) {
    if (std::string(wish) != kNames[i]) continue;
    if (i <= static_cast<int>(best)) return static_cast<Isa>(i);
    throw std::invalid_argument(std::string("RLSFT_ISA=") + wish + " is not supported by this CPU, which has " +
                                kNames[static_cast<int>(best)]);
  }
  throw std::invalid_argument(std::string("RLSFT_ISA must be scalar, avx2 or avx512, got ") + wish);
}

Isa active_isa() {
  static const Isa isa = choose_isa(best_isa(), std::getenv("RLSFT_ISA"));
  return isa;
}

const char* active_isa_name() { return kNames[static_cast<int>(active_isa())]; }

}  // namespace rlsft
