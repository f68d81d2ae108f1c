// Vector types that the per-ISA files share; included inside namespace rlsft::RLSFT_ISA, after RLSFT_REGISTER is set.
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

// Eight values of T at once, for work in double.
template <typename T>
struct EightOf;
template <>
struct EightOf<float> {
  typedef float type __attribute__((vector_size(32)));
  typedef float loose __attribute__((vector_size(32), aligned(4)));
  static constexpr float largest = __FLT_MAX__;
};
template <>
struct EightOf<double> {
  typedef double type __attribute__((vector_size(64)));
  typedef double loose __attribute__((vector_size(64), aligned(8)));
  static constexpr double largest = __DBL_MAX__;
};
template <typename T>
inline Vec<double> load_eight(const T* from) {
  const typename EightOf<T>::type values = *reinterpret_cast<const typename EightOf<T>::loose*>(from);
  return __builtin_convertvector(values, Vec<double>);
}
inline Vec<double> load_doubles(const double* from) {
  return *reinterpret_cast<const EightOf<double>::loose*>(from);
}
inline void store_doubles(Vec<double> v, double* to) { *reinterpret_cast<EightOf<double>::loose*>(to) = v; }
inline Vec<double> absolute(Vec<double> v) { return v < 0 ? -v : v; }
