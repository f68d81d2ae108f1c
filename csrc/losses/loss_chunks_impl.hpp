// How the loss kernels read and write: chunks of kChunk values as floats. float32 columns are read where they lie;
// narrower ones, and the last chunk, pass through a scratch array that stays in the first cache.
#pragma once

namespace rlsft::losses_detail::RLSFT_ISA {
namespace {

namespace vm = vector_math::RLSFT_ISA;
using vm::all;
using vm::Floats;
using vm::Ints;
using vm::kLanes;
using vm::load;
using vm::store;

constexpr std::int64_t kChunk = 256;
typedef std::uint8_t Bytes __attribute__((vector_size(RLSFT_REGISTER / 4)));

struct Chunk {
  std::int64_t begin, size;  // size <= kChunk
};

template <typename From>
void widen(const std::uint16_t* from, std::int64_t size, float* to) {
  std::uint16_t last[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(to + i, load(From{from + i}));
  if (i == size) return;
  std::memcpy(last, from + i, static_cast<std::size_t>(size - i) * sizeof(last[0]));
  store(to + i, load(From{last}));
}

struct Bfloat16s {
  const std::uint16_t* data;
};
inline Floats load(Bfloat16s from) { return load(from.data); }

// The chunk as floats, `size` rounded up to whole registers readable; nullptr for a column left out.
struct Reader {
  alignas(64) float scratch[kChunk];

  const float* operator()(const Column& column, Chunk chunk) {
    if (column.data == nullptr) return nullptr;
    if (column.type == FloatType::float32) {
      const float* from = static_cast<const float*>(column.data) + chunk.begin;
      if (chunk.size % kLanes == 0) return from;
      for (std::int64_t i = chunk.size / kLanes * kLanes; i < kChunk && i < chunk.size + kLanes; ++i) scratch[i] = 0;
      std::memcpy(scratch, from, static_cast<std::size_t>(chunk.size) * sizeof(float));
      return scratch;
    }
    const std::uint16_t* from = static_cast<const std::uint16_t*>(column.data) + chunk.begin;
    if (column.type == FloatType::bfloat16) {
      widen<Bfloat16s>(from, chunk.size, scratch);
    } else {
      widen<vm::Float16s>(from, chunk.size, scratch);
    }
    return scratch;
  }
};

struct MaskReader {
  std::uint8_t scratch[kChunk];

  // Bytes of the chunk, zeros behind its end; ones where there is no mask.
  const std::uint8_t* operator()(const std::uint8_t* mask, Chunk chunk) {
    if (mask != nullptr && chunk.size == kChunk) return mask + chunk.begin;
    for (std::int64_t i = 0; i < kChunk; ++i) scratch[i] = i < chunk.size ? 1 : 0;
    if (mask != nullptr) std::memcpy(scratch, mask + chunk.begin, static_cast<std::size_t>(chunk.size));
    return scratch;
  }
};

// -1 where the mask is set, 0 elsewhere
inline Ints lanes_of(const std::uint8_t* mask) {
#if RLSFT_REGISTER == 64
  const Ints wide = (Ints)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((const __m128i*)mask));
#elif RLSFT_REGISTER == 32
  const Ints wide = (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)mask));
#else
  Bytes bytes;
  std::memcpy(&bytes, mask, sizeof bytes);
  const Ints wide = __builtin_convertvector(bytes, Ints);
#endif
  return wide != 0;
}

inline Floats only(Ints mask, Floats x) { return mask ? x : Floats{}; }
inline Floats ones(Ints mask) { return only(mask, all(1.0f)); }
// The larger one; NaN once met stays.
inline Floats larger(Floats a, Floats b) { return (b > a) | (b != b) ? b : a; }
inline Floats clamp(Floats x, float low, float high) { return vm::at_most(vm::at_least(x, all(low)), all(high)); }

// An output written whole where the chunk has whole registers, through a scratch array elsewhere.
struct Writer {
  alignas(64) float scratch[kChunk];
  float* to = nullptr;
  std::int64_t size = 0;

  float* open(float* from, Chunk chunk) {
    if (from == nullptr) return nullptr;
    to = from + chunk.begin;
    size = chunk.size;
    return size % kLanes == 0 ? to : scratch;
  }
  void close() {
    if (to != nullptr && size % kLanes != 0) std::memcpy(to, scratch, static_cast<std::size_t>(size) * sizeof(float));
  }
};

// Sums of one block: float lanes inside a chunk, double lanes over chunks.
template <int kCount>
struct Sums {
  Floats chunk[kCount];
  double lanes[kCount][kLanes];

  Sums() {
    for (int k = 0; k < kCount; ++k) {
      chunk[k] = Floats{};
      for (int i = 0; i < kLanes; ++i) lanes[k][i] = 0;
    }
  }
  void end_chunk() {
    for (int k = 0; k < kCount; ++k) {
      float values[kLanes];
      std::memcpy(values, &chunk[k], sizeof values);
      for (int i = 0; i < kLanes; ++i) lanes[k][i] += static_cast<double>(values[i]);
      chunk[k] = Floats{};
    }
  }
  double total(int k) const {
    double sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += lanes[k][i];
    return sum;
  }
};

// Moments of the unmasked among x[0 .. size) (whole registers), two passes over what lies in the first cache.
inline Moments moments_of(const float* x, const std::uint8_t* mask, std::int64_t size) {
  Floats count = {}, sum = {}, squares = {};
  for (std::int64_t i = 0; i < size; i += kLanes) {
    const Ints here = lanes_of(mask + i);
    count += ones(here);
    sum += only(here, load(x + i));
  }
  const double tokens = static_cast<double>(vm::sum_of(count));
  if (tokens == 0) return {0, 0, 0};
  const double mean = static_cast<double>(vm::sum_of(sum)) / tokens;
  for (std::int64_t i = 0; i < size; i += kLanes) {
    const Floats off = only(lanes_of(mask + i), load(x + i) - static_cast<float>(mean));
    squares += off * off;
  }
  return {tokens, mean, static_cast<double>(vm::sum_of(squares))};
}

// Estimate of KL(policy || reference) by difference = logp - ref, and its slope by logp, 0 where a clamp holds.
struct Kl {
  Floats estimate, slope;
};
inline Kl kl_of(Floats difference, KlEstimator kind) {
  const Floats clamped = clamp(difference, -kMaxLogRatio, kMaxLogRatio);
  const Ints flat = (difference > kMaxLogRatio) | (difference < -kMaxLogRatio);
  Kl kl;
  if (kind == KlEstimator::k1) {
    kl = {clamped, all(1.0f)};
  } else if (kind == KlEstimator::k2) {
    kl = {clamped * clamped * 0.5f, difference};
  } else {
    const Floats expm1 = vm::exp_and_expm1(-clamped).expm1;
    const Floats raw = expm1 + clamped;
    kl = {vm::at_most(raw, all(kMaxK3)), raw >= kMaxK3 ? Floats{} : -expm1};
  }
  kl.slope = flat ? Floats{} : kl.slope;
  return kl;
}

}  // namespace
}  // namespace rlsft::losses_detail::RLSFT_ISA
