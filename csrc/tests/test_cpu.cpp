#include <stdexcept>
#include <string>

#include "check.hpp"
#include "rlsft/cpu.hpp"

namespace {

using rlsft::Isa;

std::string refusal(Isa best, const char* wish) {
  try {
    rlsft::choose_isa(best, wish);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

void a_wish_is_met_or_the_best_is_taken() {
  CHECK(rlsft::choose_isa(Isa::avx2, nullptr) == Isa::avx2);
  CHECK(rlsft::choose_isa(Isa::avx512, "") == Isa::avx512);
  CHECK(rlsft::choose_isa(Isa::avx512, "scalar") == Isa::scalar);
  CHECK(rlsft::choose_isa(Isa::avx512, "avx2") == Isa::avx2);
  CHECK(rlsft::choose_isa(Isa::avx2, "avx2") == Isa::avx2);
}

void what_the_cpu_lacks_and_what_is_no_name_are_refused() {
  CHECK(refusal(Isa::avx2, "avx512") == "RLSFT_ISA=avx512 is not supported by this CPU, which has avx2");
  CHECK(refusal(Isa::scalar, "avx2") == "RLSFT_ISA=avx2 is not supported by this CPU, which has scalar");
  CHECK(refusal(Isa::avx512, "AVX2") == "RLSFT_ISA must be scalar, avx2 or avx512, got AVX2");
  CHECK(refusal(Isa::avx512, "neon") == "RLSFT_ISA must be scalar, avx2 or avx512, got neon");
}

void the_active_one_has_its_name() {
  const char* names[] = {"scalar", "avx2", "avx512"};
  CHECK(std::string(rlsft::active_isa_name()) == names[static_cast<int>(rlsft::active_isa())]);
#ifndef RLSFT_X86
  CHECK(rlsft::active_isa() == Isa::scalar);
#endif
}

}  // namespace

int main() {
  a_wish_is_met_or_the_best_is_taken();
  what_the_cpu_lacks_and_what_is_no_name_are_refused();
  the_active_one_has_its_name();
  return rlsft_test::finish();
}
