// Included by dense_kernels_<isa>.cpp, which define RLSFT_ISA (a namespace), RLSFT_TILE (rows of a Gram tile) and
// RLSFT_REGISTER (bytes of a vector register).
// Only builtins here: an inline function of the standard library, compiled for AVX-512 in this file, could be the one
// copy the linker keeps for everybody.
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "rlsft/dense_kernels.hpp"

namespace rlsft {
namespace RLSFT_ISA {
namespace {

#include "dense_kernels_lanes.hpp"

// Sixteen lane sums at once, in the order of sum_lanes: each step adds halves of two vectors into one.
#define RLSFT_FOLD(a, b, ...) (__builtin_shufflevector(a, b, __VA_ARGS__))
inline Vec<float> sum_lanes_16(const Vec<float>* v) {
  Vec<float> h8[8], h4[4], h2[2];
  for (int i = 0; i < 8; ++i) {  // [v_i folded to 8 | v_{i+8} folded to 8]
    h8[i] = RLSFT_FOLD(v[i], v[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
            RLSFT_FOLD(v[i], v[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
  for (int i = 0; i < 4; ++i) {  // quarters belong to v_i, v_{i+4}, v_{i+8}, v_{i+12}
    h4[i] = RLSFT_FOLD(h8[i], h8[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
            RLSFT_FOLD(h8[i], h8[i + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  }
  for (int i = 0; i < 2; ++i) {
    h2[i] = RLSFT_FOLD(h4[i], h4[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
            RLSFT_FOLD(h4[i], h4[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  return RLSFT_FOLD(h2[0], h2[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         RLSFT_FOLD(h2[0], h2[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
#undef RLSFT_FOLD

template <typename T, int R>
inline void sum_tile(const Part<T> (&acc)[R * R * kParts], T* out) {
  for (int k = 0; k < R * R; ++k) {
    Vec<T> lanes;
    __builtin_memcpy(&lanes, acc + k * kParts, sizeof(lanes));
    out[k] = sum_lanes(lanes);
  }
}
#if RLSFT_REGISTER == 64
template <>
inline void sum_tile<float, 4>(const Part<float> (&acc)[16], float* out) {
  const Vec<float> sums = sum_lanes_16(acc);
  __builtin_memcpy(out, &sums, sizeof(sums));
}
#endif

// What to fetch while a tile is computed: the memory of the next group, spread evenly over the steps of all tiles, so
// that the wait for it overlaps with arithmetic.
struct Ahead {
  const char* at;
  std::int64_t step;  // bytes a step of 64 bytes of a dot product; 0 fetches nothing new
};

// One R x R tile of dot products of d values.
template <typename T, int R>
inline void gram_tile(const T* a, const T* b, std::int64_t d, std::int64_t stride, T* out, std::int64_t ld,
                      Ahead& ahead) {
  constexpr std::int64_t kPartLanes = RLSFT_REGISTER / static_cast<std::int64_t>(sizeof(T));
  Part<T> acc[R * R * kParts] = {};
  const char* fetch = ahead.at;
  const std::int64_t half = ahead.step / 2;
  for (std::int64_t k = 0; k < d; k += kLanes<T>) {
    __builtin_prefetch(fetch, 0, 2);
    __builtin_prefetch(fetch + half, 0, 2);
    fetch += ahead.step;
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
      const std::int64_t at = k + p * kPartLanes;
      Part<T> left[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) left[r] = *reinterpret_cast<const LoosePart<T>*>(a + r * stride + at);
#pragma GCC unroll 4
      for (int c = 0; c < R; ++c) {
        const Part<T> right = *reinterpret_cast<const LoosePart<T>*>(b + c * stride + at);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[(r * R + c) * kParts + p] += left[r] * right;
      }
    }
  }
  ahead.at = fetch;
  T sums[R * R];
  sum_tile<T, R>(acc, sums);
  for (int r = 0; r < R; ++r) __builtin_memcpy(out + r * ld, sums + r * R, R * sizeof(T));
}

template <typename T>
void gram(const T* rows, std::int64_t m, std::int64_t d, std::int64_t stride, std::int64_t begin, std::int64_t end,
          const T* next, bool mirror, T* out, std::int64_t ld) {
  constexpr int R = RLSFT_TILE;
  constexpr std::int64_t kBlock = 64;  // rows of the right side that stay in L2 while the left side passes by
  const std::int64_t tiles = (m / R) * (m / R + 1) / 2;
  Ahead ahead{reinterpret_cast<const char*>(next != nullptr ? next : rows), next != nullptr ? m * 64 / tiles : 0};
  for (std::int64_t j0 = begin / kBlock * kBlock; j0 < m; j0 += kBlock) {
    const std::int64_t j1 = j0 + kBlock < m ? j0 + kBlock : m;
    for (std::int64_t i = begin; i < (end < j1 ? end : j1); i += R) {
      for (std::int64_t j = i > j0 ? i : j0; j < j1; j += R) {
        gram_tile<T, R>(rows + i * stride, rows + j * stride, d, stride, out + i * ld + j, ld, ahead);
      }
    }
  }
  for (std::int64_t i = begin; mirror && i < end; ++i) {
    for (std::int64_t j = i + 1; j < m; ++j) out[j * ld + i] = out[i * ld + j];
  }
}

template <typename T>
T copy_row(const T* source, std::int64_t d, T* destination) {
  constexpr std::int64_t kPartLanes = RLSFT_REGISTER / static_cast<std::int64_t>(sizeof(T));
  Part<T> largest_lanes = {}, poison_lanes = {};  // value * 0 is NaN for NaN and inf, and stays NaN in a sum
  std::int64_t k = 0;
  for (; k + kPartLanes <= d; k += kPartLanes) {
    Part<T> v;
    __builtin_memcpy(&v, source + k, sizeof(v));
    *reinterpret_cast<Part<T>*>(destination + k) = v;
    const Part<T> magnitude = v < 0 ? -v : v;
    largest_lanes = magnitude > largest_lanes ? magnitude : largest_lanes;
    poison_lanes += v * 0;
  }
  T largest = 0, poison = 0;
  for (std::int64_t lane = 0; lane < kPartLanes; ++lane) {
    largest = largest_lanes[lane] > largest ? largest_lanes[lane] : largest;
    poison += poison_lanes[lane];
  }
  for (; k < d; ++k) {
    destination[k] = source[k];
    const T magnitude = source[k] < 0 ? -source[k] : source[k];
    largest = magnitude > largest ? magnitude : largest;
    poison += source[k] * 0;
  }
  return largest + poison;
}

template <EdgeMap Map>
inline Wide mapped(Wide cosine) {
  const Wide one = Wide{} + 1.0;
  cosine = cosine > 1.0 ? one : cosine;
  cosine = cosine < -1.0 ? -one : cosine;
  if (Map == EdgeMap::shifted_cosine) cosine = 0.5 + 0.5 * cosine;
  if (Map == EdgeMap::relu_cosine) cosine = cosine > 0.0 ? cosine : Wide{};
  return cosine;
}

// A register of columns at a time down all rows: their sums need no horizontal addition.
template <typename T, EdgeMap Map>
void map_columns(const T* gram, std::int64_t begin, std::int64_t end, std::int64_t column, std::int64_t m,
                 std::int64_t ld, const double* inverse_norms, T* edges, double* sums) {
  using Narrow = typename WideOf<T>::type;
  typedef long long Index __attribute__((vector_size(RLSFT_REGISTER)));
  Index lanes = {};
  for (int lane = 0; lane < kWide; ++lane) lanes[lane] = lane;
  for (std::int64_t j = column; j < ld; j += kWide) {
    const Wide scale = load_doubles(inverse_norms + j);
    const Index inside = lanes < m - j;
    Wide total = {};
    for (std::int64_t i = begin; i < end; ++i) {
      Wide weight = mapped<Map>(load_wide(gram + i * ld + j) * (scale * inverse_norms[i]));
      weight = (inside & (lanes != i - j)) ? weight : Wide{};
      Narrow edge;
      narrow(weight, edge);
      *reinterpret_cast<Narrow*>(edges + i * ld + j) = edge;
      total += widened(edge);
    }
    store_doubles(total, sums + j);
  }
}

template <typename T>
void map_edges(const T* gram, std::int64_t begin, std::int64_t end, std::int64_t column, std::int64_t m,
               std::int64_t ld, const double* inverse_norms, EdgeMap map, T* edges, double* sums) {
  switch (map) {
#define RLSFT_CASE(name) \
  case EdgeMap::name: \
    return map_columns<T, EdgeMap::name>(gram, begin, end, column, m, ld, inverse_norms, edges, sums);
    RLSFT_CASE(cosine)
    RLSFT_CASE(shifted_cosine)
    RLSFT_CASE(relu_cosine)
#undef RLSFT_CASE
  }
}

template <typename T>
void inverse_norms(const T* gram, std::int64_t m, std::int64_t ld, double* out) {
  double squares[8];
  for (std::int64_t i = 0; i < m; i += 8) {
    for (std::int64_t k = 0; k < 8; ++k) squares[k] = i + k < m ? static_cast<double>(gram[(i + k) * (ld + 1)]) : 0.0;
#ifdef __AVX512F__
    store_doubles(1.0 / _mm512_maskz_sqrt_pd(0xff, load_doubles(squares)), out + i);
#else
    for (int k = 0; k < 8; ++k) out[i + k] = 1.0 / __builtin_sqrt(squares[k]);
#endif
    for (int k = 0; k < 8; ++k) out[i + k] = squares[k] > 0.0 ? out[i + k] : 0.0;
  }
}

template <typename T>
const DenseKernels<T> kTable = {&copy_row<T>, &gram<T>, &inverse_norms<T>, &map_edges<T>};

}  // namespace

template <typename T>
const DenseKernels<T>& kernels() {
  return kTable<T>;
}
template const DenseKernels<float>& kernels<float>();
template const DenseKernels<double>& kernels<double>();

}  // namespace RLSFT_ISA
}  // namespace rlsft
