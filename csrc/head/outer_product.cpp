#include "outer_product.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "rlsft/cpu.hpp"
#include "rlsft/outer_product.hpp"
#include "rlsft/parallel.hpp"
#include "rlsft/torch_team.hpp"

#ifdef RLSFT_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rlsft {
namespace outer_detail {
namespace {

#ifdef RLSFT_AMX
bool cpu_has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTile = 1u << 24, kBf16 = 1u << 22, kOsxsave = 1u << 27;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kOsxsave)) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kTile) && (d & kBf16);
}

bool system_saves_tiles() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;  // XTILECFG and XTILEDATA
  return (low & kTileState) == kTileState;
}

// Linux saves the 8 KiB of tiles only for processes that asked.
bool system_grants_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

bool use_amx() {
#ifdef RLSFT_AMX
  static const bool use =
      active_isa() == Isa::avx512 && cpu_has_amx() && system_saves_tiles() && system_grants_tiles();
  return use;
#else
  return false;
#endif
}

#ifdef RLSFT_AMX
struct Free {
  void operator()(std::uint16_t* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::uint16_t, Free>;

Buffer buffer_of(std::int64_t count) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, static_cast<std::size_t>(count) * sizeof(std::uint16_t)) != 0) throw std::bad_alloc();
  return Buffer(static_cast<std::uint16_t*>(memory));
}

// Rough costs on one thread: only decide whether threads are worth waking.
constexpr double kNsPerTileSummand = 1e-3;  // one multiplication and addition
constexpr double kNsPerPacked = 0.1;

void run_amx(const OuterProduct& product, int threads) {
  const double hidden_size = static_cast<double>(product.rows) * static_cast<double>(product.width);
  const Buffer hidden = buffer_of(product.packed_hidden_size());
  parallel_for_beside_torch(
      product.hidden_panels(), useful_threads(kNsPerPacked * hidden_size, threads),
      [&](std::int64_t begin, std::int64_t end) { amx::pack_hidden(product, begin, end, hidden.get()); });
  const double summands = hidden_size * static_cast<double>(product.columns);
  parallel_for_beside_torch(product.blocks(), useful_threads(kNsPerTileSummand * summands, threads),
                            [&](std::int64_t begin, std::int64_t end) {
                              const Buffer scratch = buffer_of(product.packed_grad_size());
                              amx::add_blocks(product, hidden.get(), begin, end, scratch.get());
                            });
}
#endif

}  // namespace
}  // namespace outer_detail

const char* outer_product_isa() { return outer_detail::use_amx() ? "amx" : "none"; }

void accumulate_outer(const std::uint16_t* grad, std::int64_t rows, std::int64_t grad_stride, std::int64_t columns,
                      const std::uint16_t* hidden, std::int64_t hidden_stride, std::int64_t width, float* out,
                      bool overwrite, int threads) {
  if (!outer_detail::use_amx()) throw std::runtime_error("accumulate_outer needs a CPU with AMX: see outer_product_isa");
  if (columns <= 0 || width <= 0) return;
  if (rows <= 0) {
    if (overwrite) std::fill(out, out + columns * width, 0.0f);
    return;
  }
#ifdef RLSFT_AMX
  outer_detail::run_amx({grad, rows, grad_stride, columns, hidden, hidden_stride, width, out, overwrite}, threads);
#else
  (void)grad, (void)grad_stride, (void)hidden, (void)hidden_stride, (void)threads;
#endif
}

void add_product(float* sum, const std::uint16_t* product, std::int64_t count, int threads) {
  constexpr double kNsPerNumber = 0.5;
  // memory sets the pace: the compiler's vectors of any instruction set are enough
  const auto body = [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t bits = static_cast<std::uint32_t>(product[i]) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      sum[i] += value;
    }
  };
  parallel_for_beside_torch(count, useful_threads(kNsPerNumber * static_cast<double>(count), threads), body);
}

}  // namespace rlsft
