// Row-wise kernels of the clusterings on one large set: a float32 filter for the nearest centre, and float64 sums and
// distances. One table for each instruction set, chosen at run time. Private to this folder.
#pragma once

#include <cstdint>

namespace rlsft::nearest {

constexpr std::int64_t kDepth = 64;      // coordinates of a packed block
constexpr std::int64_t kMaxLanes = 16;  // upper bound of Kernels::lanes

// Centres as the filter reads them: less an anchor, times a power of two, in panels of `lanes` centres.
struct Panels {
  const float* values;  // [count][d][lanes]
  const float* halves;  // [count][lanes] half the squared norm; a lane without a centre has 3e38
  std::int64_t count, d;
  // A row of norm r is certain when its two best scores differ by more than margin[0] + margin[1] r^2.
  float margin[2];
};

// Rows as the exact kernels read them: row i is scale[i] * x[i * d ..], null scale or weight means ones.
template <typename T>
struct RowSpan {
  const T* x;
  const double* scale;
  const double* weight;
  std::int64_t count, d;
};

template <typename T>
struct Kernels {
  std::int64_t lanes;  // rows of a tile = centres of a panel

  // packed[block of kDepth][lanes][kDepth] = (row - anchor) * unit, rounded once more; at most `lanes` rows.
  void (*pack)(const RowSpan<T>& rows, const T* anchor, double unit, float* packed);

  // For the `lanes` packed rows the index of the highest x.c - |c|^2 / 2; bit i of the result: row i is not certain.
  // `ahead` is fetched meanwhile: d * lanes * 4 bytes that will be packed soon.
  std::uint32_t (*nearest)(const float* packed, const float* squared_norms, const Panels& panels, const void* ahead,
                           std::int32_t* labels);

  // For the rows of one cluster, in the order given: sums[0][q] += w (x_q - c_q) and, on request,
  // sums[1][q] += w (x_q - c_q)^2.
  void (*add_members)(const RowSpan<T>& rows, const std::int32_t* members, std::int64_t count, const double* center,
                      bool with_squares, double* sums);

  // out[i] = squared distance of row i to centers[labels[i]], 0 for a label < 0; null labels: to the one centre.
  void (*distances)(const RowSpan<T>& rows, const std::int32_t* labels, const double* centers, double* out);

  // out[c] = squared distance of the span's first row to each of the k centres.
  void (*distances_of_row)(const RowSpan<T>& row, const double* centers, std::int64_t k, double* out);
};

namespace scalar {
template <typename T>
const Kernels<T>& kernels();
}
namespace avx2 {
template <typename T>
const Kernels<T>& kernels();
}
namespace avx512 {
template <typename T>
const Kernels<T>& kernels();
}

template <typename T>
const Kernels<T>& kernels();  // of active_isa()

}  // namespace rlsft::nearest
