// Included by nearest_kernels_<isa>.cpp, which define RLSFT_ISA (a namespace) and RLSFT_LANES (floats of a register).
// Only builtins here: an inline function of the standard library, compiled for AVX-512 in this file, could be the one
// copy the linker keeps for everybody.
#include "nearest_kernels.hpp"

#if RLSFT_LANES == 16
#include <immintrin.h>  // for one conversion that GCC 12 splits into five instructions
#endif

namespace rlsft {
namespace nearest {
namespace RLSFT_ISA {
namespace {

constexpr int W = RLSFT_LANES;      // rows of a tile, centres of a panel
constexpr int H = RLSFT_LANES / 2;  // doubles of a register
constexpr std::int64_t kTileBytes = W * 4;  // of one coordinate of a tile of float32 rows
typedef float F __attribute__((vector_size(W * 4)));
typedef std::int32_t I __attribute__((vector_size(W * 4)));
typedef double D __attribute__((vector_size(W * 4)));
typedef float HalfF __attribute__((vector_size(W * 2)));

template <typename V, typename P>
inline V load(const P* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}
template <typename V, typename P>
inline void store(P* to, V v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

// Lane l of the two halves that exchange the off-diagonal blocks of size S in a transposition.
constexpr int low(int s, int l) { return (l & s) ? W + l - s : l; }
constexpr int high(int s, int l) { return (l & s) ? W + l : l + s; }
#if RLSFT_LANES == 16
#define RLSFT_LIST(f, s) \
  f(s, 0), f(s, 1), f(s, 2), f(s, 3), f(s, 4), f(s, 5), f(s, 6), f(s, 7), f(s, 8), f(s, 9), f(s, 10), f(s, 11), \
      f(s, 12), f(s, 13), f(s, 14), f(s, 15)
#elif RLSFT_LANES == 8
#define RLSFT_LIST(f, s) f(s, 0), f(s, 1), f(s, 2), f(s, 3), f(s, 4), f(s, 5), f(s, 6), f(s, 7)
#else
#define RLSFT_LIST(f, s) f(s, 0), f(s, 1), f(s, 2), f(s, 3)
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define RLSFT_SHUFFLE(a, b, f, s) __builtin_shufflevector(a, b, RLSFT_LIST(f, s))
#else
#define RLSFT_SHUFFLE(a, b, f, s) __builtin_shuffle(a, b, I{RLSFT_LIST(f, s)})
#endif

template <int S>
inline void exchange(F (&v)[W]) {
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    if (i & S) continue;
    const F a = v[i], b = v[i + S];
    v[i] = RLSFT_SHUFFLE(a, b, low, S);
    v[i + S] = RLSFT_SHUFFLE(a, b, high, S);
  }
}

inline void transpose(F (&v)[W]) {
#if RLSFT_LANES >= 16
  exchange<8>(v);
#endif
#if RLSFT_LANES >= 8
  exchange<4>(v);
#endif
  exchange<2>(v);
  exchange<1>(v);
}

inline void pack_row(const float* x, const double* scale, const float* anchor, double unit, std::int64_t count,
                     float* out) {
  if (scale == nullptr && unit == 1) {
    for (std::int64_t q = 0; q < count; ++q) out[q] = x[q] - anchor[q];
    return;
  }
  const double factor = scale == nullptr ? 1.0 : *scale;
  for (std::int64_t q = 0; q < count; ++q) {
    out[q] = static_cast<float>((static_cast<double>(x[q]) * factor - static_cast<double>(anchor[q])) * unit);
  }
}
inline void pack_row(const double* x, const double* scale, const double* anchor, double unit, std::int64_t count,
                     float* out) {
  const double factor = scale == nullptr ? 1.0 : *scale;
  for (std::int64_t q = 0; q < count; ++q) out[q] = static_cast<float>((x[q] * factor - anchor[q]) * unit);
}

template <typename T>
void pack(const RowSpan<T>& rows, const T* anchor, double unit, float* packed) {
  for (std::int64_t q0 = 0; q0 < rows.d; q0 += kDepth) {
    const std::int64_t depth = rows.d - q0 < kDepth ? rows.d - q0 : kDepth;
    for (std::int64_t i = 0; i < rows.count; ++i) {
      const double* scale = rows.scale == nullptr ? nullptr : rows.scale + i;
      pack_row(rows.x + i * rows.d + q0, scale, anchor + q0, unit, depth, packed + q0 * W + i * kDepth);
    }
  }
}

std::uint32_t nearest(const float* packed, const float* squared_norms, const Panels& panels, const void* ahead,
                      std::int32_t* labels) {
  F best = F{} - 3.4e38f, second = best;
  I index = {};
  const float* centers = panels.values;
  const char* line = static_cast<const char*>(ahead);
  for (std::int64_t p = 0; p < panels.count; ++p) {
    F acc[W];
    const F start = -load<F>(panels.halves + p * W);
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) acc[i] = start;
    for (std::int64_t q0 = 0; q0 < panels.d; q0 += kDepth) {
      const float* rows = packed + q0 * W;
      const std::int64_t depth = panels.d - q0 < kDepth ? panels.d - q0 : kDepth;
      for (std::int64_t q = 0; q < depth; ++q, centers += W) {
        const F center = load<F>(centers);
        __builtin_prefetch(line + (q0 + q) * kTileBytes);
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) acc[i] += rows[i * kDepth + q] * center;
      }
    }
    transpose(acc);  // now lane = row, acc[j] = scores of centre j
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) {
      const F score = acc[j];
      const I is_better = score > best;
      const F loser = is_better ? best : score;
      second = loser > second ? loser : second;
      best = is_better ? score : best;
      index = is_better ? I{} + static_cast<std::int32_t>(p * W + j) : index;
    }
  }
  const I certain = best - second > panels.margin[0] + panels.margin[1] * load<F>(squared_norms);
  store(labels, index);
  std::uint32_t uncertain = 0;
  for (int i = 0; i < W; ++i) uncertain |= static_cast<std::uint32_t>(certain[i] == 0) << i;
  return uncertain;
}

#if RLSFT_LANES == 16
inline D widen(const float* x) { return reinterpret_cast<D>(_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(x))); }
#else
inline D widen(const float* x) { return __builtin_convertvector(load<HalfF>(x), D); }
#endif
inline D widen(const double* x) { return load<D>(x); }

// R registers of coordinates at a time, so that the sums of a run of members stay in registers. Plain: no scale, no
// weight.
template <typename T, int R, bool Plain, bool Squares>
inline void add_columns(const RowSpan<T>& rows, const std::int32_t* members, std::int64_t count, std::int64_t at,
                        const double* center, double* sums) {
  D first[R], second[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    first[r] = load<D>(sums + at + r * H);
    if (Squares) second[r] = load<D>(sums + rows.d + at + r * H);
  }
  for (std::int64_t m = 0; m < count; ++m) {
    const std::int64_t i = members[m];
    const T* x = rows.x + i * rows.d + at;
    const double scale = Plain || rows.scale == nullptr ? 1.0 : rows.scale[i];
    const double weight = Plain || rows.weight == nullptr ? 1.0 : rows.weight[i];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const D value = Plain ? widen(x + r * H) : widen(x + r * H) * scale;
      const D difference = value - load<D>(center + at + r * H);
      const D weighted = Plain ? difference : difference * weight;
      first[r] += weighted;
      if (Squares) second[r] += weighted * difference;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    store(sums + at + r * H, first[r]);
    if (Squares) store(sums + rows.d + at + r * H, second[r]);
  }
}

template <typename T, bool Plain, bool Squares>
inline void add_all_columns(const RowSpan<T>& rows, const std::int32_t* members, std::int64_t count,
                            const double* center, double* sums) {
  constexpr int R = W == 16 ? 8 : 4;
  const std::int64_t d = rows.d;
  std::int64_t q = 0;
  for (; q + R * H <= d; q += R * H) add_columns<T, R, Plain, Squares>(rows, members, count, q, center, sums);
  for (; q + H <= d; q += H) add_columns<T, 1, Plain, Squares>(rows, members, count, q, center, sums);
  for (std::int64_t m = 0; m < count && q < d; ++m) {
    const std::int64_t i = members[m];
    const double scale = Plain || rows.scale == nullptr ? 1.0 : rows.scale[i];
    const double weight = Plain || rows.weight == nullptr ? 1.0 : rows.weight[i];
    for (std::int64_t at = q; at < d; ++at) {
      const double difference = static_cast<double>(rows.x[i * d + at]) * scale - center[at];
      sums[at] += weight * difference;
      if (Squares) sums[d + at] += weight * difference * difference;
    }
  }
}

template <typename T>
void add_members(const RowSpan<T>& rows, const std::int32_t* members, std::int64_t count, const double* center,
                 bool with_squares, double* sums) {
  if (rows.scale != nullptr || rows.weight != nullptr) {
    add_all_columns<T, false, true>(rows, members, count, center, sums);
  } else if (with_squares) {
    add_all_columns<T, true, true>(rows, members, count, center, sums);
  } else {
    add_all_columns<T, true, false>(rows, members, count, center, sums);
  }
}

template <typename T>
inline double distance(const T* x, double scale, const double* center, std::int64_t d) {
  D lanes[2] = {};
  std::int64_t q = 0;
  for (; q + 2 * H <= d; q += 2 * H) {
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) {
      const std::int64_t at = q + part * H;
      const D difference = widen(x + at) * scale - load<D>(center + at);
      lanes[part] += difference * difference;
    }
  }
  double sum = 0;
  const D both = lanes[0] + lanes[1];
  for (; q < d; ++q) {
    const double difference = static_cast<double>(x[q]) * scale - center[q];
    sum += difference * difference;
  }
  for (int l = 0; l < H; ++l) sum += both[l];
  return sum;
}

template <typename T>
void distances(const RowSpan<T>& rows, const std::int32_t* labels, const double* centers, double* out) {
  for (std::int64_t i = 0; i < rows.count; ++i) {
    const std::int64_t label = labels == nullptr ? 0 : labels[i];
    const double scale = rows.scale == nullptr ? 1.0 : rows.scale[i];
    out[i] = label < 0 ? 0 : distance(rows.x + i * rows.d, scale, centers + label * rows.d, rows.d);
  }
}

template <typename T>
void distances_of_row(const RowSpan<T>& row, const double* centers, std::int64_t k, double* out) {
  const double scale = row.scale == nullptr ? 1.0 : *row.scale;
  for (std::int64_t c = 0; c < k; ++c) out[c] = distance(row.x, scale, centers + c * row.d, row.d);
}

template <typename T>
const Kernels<T> kTable = {W, &pack<T>, &nearest, &add_members<T>, &distances<T>, &distances_of_row<T>};

}  // namespace

template <typename T>
const Kernels<T>& kernels() {
  return kTable<T>;
}
template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace RLSFT_ISA
}  // namespace nearest
}  // namespace rlsft
