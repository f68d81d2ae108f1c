// Vector types that the per-ISA files share; included inside namespace rlsft::RLSFT_ISA, after RLSFT_REGISTER is set
// and, where __AVX512F__ is, <immintrin.h> is included.
// Only builtins here: an inline function of the standard library, compiled for AVX-512 in such a file, could be the one
// copy the linker keeps for everybody.

// A step of a dot product: 64 bytes of lanes. A register type, because GCC keeps wider vectors in memory.
template <typename T>
struct Vector;
template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(64)));
  typedef float part __attribute__((vector_size(RLSFT_REGISTER)));
  typedef float loose __attribute__((vector_size(RLSFT_REGISTER), aligned(4)));
};
template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(64)));
  typedef double part __attribute__((vector_size(RLSFT_REGISTER)));
  typedef double loose __attribute__((vector_size(RLSFT_REGISTER), aligned(8)));
};
template <typename T>
using Vec = typename Vector<T>::type;
template <typename T>
using Part = typename Vector<T>::part;
template <typename T>
using LoosePart = typename Vector<T>::loose;  // a part that need not start on its own size
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

// Work in double: as many values of T as fill one register when widened. A wider vector would live in memory.
constexpr std::int64_t kWide = RLSFT_REGISTER / 8;
template <typename T>
struct WideOf;
template <>
struct WideOf<float> {
  typedef float type __attribute__((vector_size(RLSFT_REGISTER / 2)));
  typedef float loose __attribute__((vector_size(RLSFT_REGISTER / 2), aligned(4)));
  static constexpr float largest = __FLT_MAX__;
};
template <>
struct WideOf<double> {
  typedef double type __attribute__((vector_size(RLSFT_REGISTER)));
  typedef double loose __attribute__((vector_size(RLSFT_REGISTER), aligned(8)));
  static constexpr double largest = __DBL_MAX__;
};
using Wide = WideOf<double>::type;

inline Wide widened(WideOf<double>::type values) { return values; }
inline Wide widened(WideOf<float>::type values) {
#ifdef __AVX512F__  // GCC 12 makes five instructions of __builtin_convertvector here
  return (Wide)_mm512_maskz_cvtps_pd(0xff, (__m256)values);
#else
  return __builtin_convertvector(values, Wide);
#endif
}
inline void narrow(Wide values, WideOf<double>::type& to) { to = values; }
inline void narrow(Wide values, WideOf<float>::type& to) {
#ifdef __AVX512F__
  to = (WideOf<float>::type)_mm512_maskz_cvtpd_ps(0xff, (__m512d)values);
#else
  to = __builtin_convertvector(values, WideOf<float>::type);
#endif
}
template <typename T>
inline Wide load_wide(const T* from) {
  return widened(*reinterpret_cast<const typename WideOf<T>::loose*>(from));
}
inline Wide load_doubles(const double* from) { return *reinterpret_cast<const WideOf<double>::loose*>(from); }
inline void store_doubles(Wide v, double* to) { *reinterpret_cast<WideOf<double>::loose*>(to) = v; }
inline Wide absolute(Wide v) { return v < 0 ? -v : v; }
inline double sum_wide(Wide v) {
  double sum = v[0];
  for (int i = 1; i < kWide; ++i) sum += v[i];
  return sum;
}
