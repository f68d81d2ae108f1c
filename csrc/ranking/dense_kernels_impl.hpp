// Included by dense_kernels_<isa>.cpp, which define RLSFT_ISA (a namespace), RLSFT_TILE (rows of a Gram tile) and
// RLSFT_REGISTER (bytes of a vector register).
// Only builtins here: an inline function of the standard library, compiled for AVX-512 in this file, could be the one
// copy the linker keeps for everybody.
#include "rlsft/dense_kernels.hpp"

namespace rlsft {
namespace RLSFT_ISA {
namespace {

// A step of a dot product: 64 bytes of lanes. A register type, because GCC keeps wider vectors in memory.
template <typename T>
struct Vector;
template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(64)));
  typedef float part __attribute__((vector_size(RLSFT_REGISTER)));
};
template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(64)));
  typedef double part __attribute__((vector_size(RLSFT_REGISTER)));
};
template <typename T>
using Vec = typename Vector<T>::type;
template <typename T>
using Part = typename Vector<T>::part;
constexpr int kParts = 64 / RLSFT_REGISTER;

// Sum of the lanes: lower half plus upper half, down to one.
inline float sum_lanes(Vec<float> v) {
  float a[16], b[8], c[4];
  __builtin_memcpy(a, &v, sizeof(a));
  for (int i = 0; i < 8; ++i) b[i] = a[i] + a[i + 8];
  for (int i = 0; i < 4; ++i) c[i] = b[i] + b[i + 4];
  return (c[0] + c[2]) + (c[1] + c[3]);
}
inline double sum_lanes(Vec<double> v) {
  double a[8], b[4];
  __builtin_memcpy(a, &v, sizeof(a));
  for (int i = 0; i < 4; ++i) b[i] = a[i] + a[i + 4];
  return (b[0] + b[2]) + (b[1] + b[3]);
}

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

// One R x R tile of dot products; also written to its mirror place.
template <typename T, int R>
inline void gram_tile(const T* a, const T* b, std::int64_t d, T* upper, T* lower, std::int64_t ld) {
  constexpr std::int64_t kPartLanes = RLSFT_REGISTER / static_cast<std::int64_t>(sizeof(T));
  Part<T> acc[R * R * kParts] = {};
  for (std::int64_t k = 0; k < d; k += kLanes<T>) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
      const std::int64_t at = k + p * kPartLanes;
      Part<T> left[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) left[r] = *reinterpret_cast<const Part<T>*>(a + r * d + at);
#pragma GCC unroll 4
      for (int c = 0; c < R; ++c) {
        const Part<T> right = *reinterpret_cast<const Part<T>*>(b + c * d + at);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[(r * R + c) * kParts + p] += left[r] * right;
      }
    }
  }
  T sums[R * R];
  sum_tile<T, R>(acc, sums);
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < R; ++c) {
      upper[r * ld + c] = sums[r * R + c];
      lower[c * ld + r] = sums[r * R + c];
    }
  }
}

template <typename T>
void gram(const T* rows, std::int64_t m, std::int64_t d, T* out, std::int64_t ld) {
  constexpr int R = RLSFT_TILE;
  constexpr std::int64_t kBlock = 64;  // rows of the right side that stay in L2 while the left side passes by
  for (std::int64_t j0 = 0; j0 < m; j0 += kBlock) {
    const std::int64_t j1 = j0 + kBlock < m ? j0 + kBlock : m;
    for (std::int64_t i = 0; i < j1; i += R) {
      for (std::int64_t j = i > j0 ? i : j0; j < j1; j += R) {
        gram_tile<T, R>(rows + i * d, rows + j * d, d, out + i * ld + j, out + j * ld + i, ld);
      }
    }
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

template <typename T, EdgeMap Map>
inline void map_row(const T* gram, std::int64_t ld, double scale, const double* inverse_norms, T* edges) {
  for (std::int64_t j = 0; j < ld; ++j) {
    double cosine = static_cast<double>(gram[j]) * (scale * inverse_norms[j]);
    cosine = cosine > 1.0 ? 1.0 : cosine;
    cosine = cosine < -1.0 ? -1.0 : cosine;
    if (Map == EdgeMap::shifted_cosine) cosine = 0.5 + 0.5 * cosine;
    if (Map == EdgeMap::relu_cosine) cosine = cosine > 0.0 ? cosine : 0.0;
    edges[j] = static_cast<T>(cosine);
  }
}

template <typename T>
void map_edges(const T* gram, std::int64_t m, std::int64_t ld, const double* inverse_norms, EdgeMap map, T* edges) {
  for (std::int64_t i = 0; i < m; ++i) {
    const T* from = gram + i * ld;
    T* to = edges + i * ld;
    switch (map) {
      case EdgeMap::cosine: map_row<T, EdgeMap::cosine>(from, ld, inverse_norms[i], inverse_norms, to); break;
      case EdgeMap::shifted_cosine:
        map_row<T, EdgeMap::shifted_cosine>(from, ld, inverse_norms[i], inverse_norms, to);
        break;
      case EdgeMap::relu_cosine: map_row<T, EdgeMap::relu_cosine>(from, ld, inverse_norms[i], inverse_norms, to); break;
    }
    to[i] = 0;
    for (std::int64_t j = m; j < ld; ++j) to[j] = 0;
  }
}

template <typename T>
void sweep(const T* weights, std::int64_t m, std::int64_t columns, std::int64_t ld, const double* u, double* y) {
  for (std::int64_t j = 0; j < columns; ++j) y[j] = 0.0;
  std::int64_t i = 0;
  for (; i + 4 <= m; i += 4) {
    const T* w = weights + i * ld;
    const double u0 = u[i], u1 = u[i + 1], u2 = u[i + 2], u3 = u[i + 3];
    for (std::int64_t j = 0; j < columns; ++j) {
      double sum = y[j];
      sum += u0 * static_cast<double>(w[j]);
      sum += u1 * static_cast<double>(w[ld + j]);
      sum += u2 * static_cast<double>(w[2 * ld + j]);
      sum += u3 * static_cast<double>(w[3 * ld + j]);
      y[j] = sum;
    }
  }
  for (; i < m; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) y[j] += u[i] * static_cast<double>(weights[i * ld + j]);
  }
}

template <typename T>
struct Eight;
template <>
struct Eight<float> {
  typedef float type __attribute__((vector_size(32)));
  static constexpr float largest = __FLT_MAX__;
};
template <>
struct Eight<double> {
  typedef double type __attribute__((vector_size(64)));
  static constexpr double largest = __DBL_MAX__;
};

template <typename T>
bool row_sums(const T* weights, std::int64_t m, std::int64_t ld, double* sums) {
  using Lanes = typename Eight<T>::type;
  constexpr T kLargest = Eight<T>::largest;
  auto bad_lanes = Lanes{} != Lanes{};
  bool bad = false;
  for (std::int64_t i = 0; i < m; ++i) {
    const T* w = weights + i * ld;
    Vec<double> lanes = {};
    std::int64_t j = 0;
    for (; j + 8 <= m; j += 8) {
      Lanes values;
      __builtin_memcpy(&values, w + j, sizeof(values));
      bad_lanes |= ~((values >= 0) & (values <= kLargest));
      lanes += __builtin_convertvector(values, Vec<double>);
    }
    double sum = sum_lanes(lanes);
    for (; j < m; ++j) {
      bad |= !(w[j] >= 0 && w[j] <= kLargest);
      sum += static_cast<double>(w[j]);
    }
    sums[i] = sum;
  }
  for (int lane = 0; lane < 8; ++lane) bad |= bad_lanes[lane] != 0;
  return !bad;
}

template <typename T>
const DenseKernels<T> kTable = {&copy_row<T>, &gram<T>, &map_edges<T>, &sweep<T>, &row_sums<T>};

}  // namespace

template <typename T>
const DenseKernels<T>& kernels() {
  return kTable<T>;
}
template const DenseKernels<float>& kernels<float>();
template const DenseKernels<double>& kernels<double>();

}  // namespace RLSFT_ISA
}  // namespace rlsft
