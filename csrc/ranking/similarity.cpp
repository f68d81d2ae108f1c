#include "rlsft/similarity.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "rlsft/dense_kernels.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft {
namespace {

// Rows whose largest value lies outside 2^-k .. 2^k are rescaled: squares and their sums then stay ordinary numbers.
template <typename T>
constexpr int kSafeExponent = sizeof(T) == 4 ? 30 : 400;

constexpr std::int64_t kManyRows = 256;  // from here on a group is worth several threads

template <typename T>
int rescale_row(T* row, std::int64_t d, T largest) {
  if (largest == 0) return 0;
  const int exponent = std::ilogb(largest);
  if (std::abs(exponent) <= kSafeExponent<T>) return 0;
  for (std::int64_t k = 0; k < d; ++k) row[k] = static_cast<T>(std::ldexp(static_cast<double>(row[k]), -exponent));
  return exponent;
}

}  // namespace

template <typename T>
bool GroupGram<T>::pack(const T* rows, std::int64_t d, T* packed, std::int64_t d_padded, std::int64_t stride) {
  const DenseKernels<T>& kernels = dense_kernels<T>();
  int* exponents = exponents_.reserve(m_);
  for (std::int64_t i = 0; i < m_; ++i) {
    T* row = packed + i * stride;
    const T largest = kernels.copy_row(rows + i * d, d, row);
    if (!std::isfinite(largest)) return false;
    exponents[i] = rescale_row(row, d, largest);
    std::fill(row + d, row + d_padded, T(0));
  }
  std::fill(packed + m_ * stride, packed + round_up(m_, kRowTile) * stride, T(0));
  return true;
}

// Without a copy, where the rows are already laid out as the kernel wants them. Rows that do not start on a cache line
// cost a second access for every load: worth it for few rows only. The squared norms show what pack() looks for: they
// are NaN or inf where a value is, and outside of the safe range where rows need scaling. Then pack() decides.
template <typename T>
bool GroupGram<T>::compute_in_place(const T* rows, std::int64_t m, std::int64_t d, const T* next) {
  constexpr std::int64_t kFewRows = 16;
  const bool aligned = reinterpret_cast<std::uintptr_t>(rows) % 64 == 0;
  if (m % kRowTile != 0 || d % kLanes<T> != 0 || m > kManyRows || !(aligned || m <= kFewRows)) return false;
  multiply(rows, m, d, d, next, 1, true);
  const T low = static_cast<T>(std::ldexp(static_cast<double>(d), -2 * kSafeExponent<T>));
  const T high = static_cast<T>(std::ldexp(1.0, 2 * kSafeExponent<T>));
  bool safe = true;
  for (std::int64_t i = 0; i < m; ++i) {
    const T square = gram_.data()[i * (ld_ + 1)];
    safe &= square >= low && square <= high;
  }
  if (safe) std::fill_n(exponents_.reserve(m), m, 0);
  return safe;
}

template <typename T>
void GroupGram<T>::multiply(const T* rows, std::int64_t m_padded, std::int64_t d_padded, std::int64_t stride,
                            const T* next, int threads, bool mirror) {
  T* gram = gram_.reserve(m_padded * ld_);
  if (m_padded < ld_) std::fill_n(gram, m_padded * ld_, T(0));
  const DenseKernels<T>& kernels = dense_kernels<T>();
  if (m_padded <= kManyRows) {
    return kernels.gram(rows, m_padded, d_padded, stride, 0, m_padded, next, mirror, gram, ld_);
  }
  // the first strips are the longest, so they are dealt in turn
  constexpr std::int64_t kStrip = 32;
  const std::int64_t strips = (m_padded + kStrip - 1) / kStrip;
  threads = std::max(1, std::min<int>(threads, static_cast<int>(strips)));
  parallel_for(threads, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t strip = t; strip < strips; strip += threads) {
        const std::int64_t first = strip * kStrip;
        const std::int64_t last = std::min(first + kStrip, m_padded);
        kernels.gram(rows, m_padded, d_padded, stride, first, last, nullptr, false, gram, ld_);
      }
    }
  });
  if (mirror) mirror_upper(threads);
}

// Square by square: a column written from top to bottom would touch a page for every value.
template <typename T>
void GroupGram<T>::mirror_upper(int threads) {
  constexpr std::int64_t kSide = 32;
  T* gram = gram_.data();
  parallel_for((m_ + kSide - 1) / kSide, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j0 = begin * kSide; j0 < std::min(end * kSide, m_); j0 += kSide) {
      for (std::int64_t i0 = 0; i0 <= j0; i0 += kSide) {
        for (std::int64_t j = j0; j < std::min(j0 + kSide, m_); ++j) {
          for (std::int64_t i = i0; i < std::min(i0 + kSide, j); ++i) gram[j * ld_ + i] = gram[i * ld_ + j];
        }
      }
    }
  });
}

template <typename T>
bool GroupGram<T>::compute(const T* rows, std::int64_t m, std::int64_t d, bool fetch_next, int threads) {
  return compute_part(rows, m, d, fetch_next, threads, true);
}

template <typename T>
bool GroupGram<T>::compute_part(const T* rows, std::int64_t m, std::int64_t d, bool fetch_next, int threads,
                                bool mirror) {
  const std::int64_t m_padded = round_up(m, kRowTile), d_padded = round_up(d, kLanes<T>);
  m_ = m;
  d_ = d;
  ld_ = round_up(m, kLanes<T>);
  if (m == 0) return true;
  const T* next = fetch_next ? rows + m * d : nullptr;
  if (!compute_in_place(rows, m, d, next)) {
    // an odd number of cache lines: rows a multiple of 4096 bytes apart would all want the same few places of L1
    const std::int64_t stride = d_padded + (d_padded / kLanes<T> % 2 == 0 ? kLanes<T> : 0);
    T* packed = packed_.reserve(m_padded * stride);
    if (!pack(rows, d, packed, d_padded, stride)) return false;
    multiply(packed, m_padded, d_padded, stride, next, threads, mirror);
  }
  dense_kernels<T>().inverse_norms(gram_.data(), m, ld_, inverse_norms_.reserve(round_up(ld_, 8)));
  std::fill(inverse_norms_.data() + round_up(m, 8), inverse_norms_.data() + ld_, 0.0);
  return true;
}

template <typename T>
T* GroupGram<T>::edges(EdgeMap map) {
  T* edges = edges_.reserve(m_ * ld_);
  double* sums = sums_.reserve(ld_);
  dense_kernels<T>().map_edges(gram_.data(), 0, m_, 0, m_, ld_, inverse_norms_.data(), map, edges, sums);
  return edges;
}

template <typename T>
T* GroupGram<T>::upper_edges(const T* rows, std::int64_t m, std::int64_t d, EdgeMap map, int threads) {
  if (!compute_part(rows, m, d, false, threads, false)) return nullptr;
  constexpr std::int64_t kBlock = 8;  // rows: few enough to stay in L1 while strips of columns pass over them
  T* edges = gram_.data();
  double* inverse = inverse_norms_.data();
  parallel_for((m_ + kBlock - 1) / kBlock, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> unused(static_cast<std::size_t>(ld_));
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t first = block * kBlock;
      dense_kernels<T>().map_edges(edges, first, std::min(first + kBlock, m_), first, m_, ld_, inverse, map, edges,
                                   unused.data());
    }
  });
  return edges;
}

template <typename T>
bool GroupGram<T>::has_scaled_rows() const {
  return std::any_of(exponents_.data(), exponents_.data() + m_, [](int exponent) { return exponent != 0; });
}

template <typename T>
double GroupGram<T>::cosine(std::int64_t i, std::int64_t j) const {
  const double scale = inverse_norms_.data()[i] * inverse_norms_.data()[j];
  return std::clamp(static_cast<double>(gram_.data()[i * ld_ + j]) * scale, -1.0, 1.0);
}

void square_block_offsets(const std::int64_t* offsets, std::int64_t groups, std::int64_t* block_offsets) {
  block_offsets[0] = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t m = offsets[g + 1] - offsets[g];
    block_offsets[g + 1] = block_offsets[g] + m * m;
  }
}

double estimated_gram_ns(const std::int64_t* offsets, std::int64_t groups, std::int64_t d) {
  double ns = 0.0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const double m = static_cast<double>(offsets[g + 1] - offsets[g]);
    ns += 100.0 + m * m * (static_cast<double>(d) / 64.0 + 2.0) + 0.2 * m * static_cast<double>(d);
  }
  return ns;
}

template <typename T>
void similarity_groups(const T* rows, std::int64_t d, const std::int64_t* offsets, std::int64_t groups, EdgeMap map,
                       int threads, T* edges, bool* ok) {
  std::vector<std::int64_t> blocks(static_cast<std::size_t>(groups) + 1);
  square_block_offsets(offsets, groups, blocks.data());
  const int used = useful_threads(estimated_gram_ns(offsets, groups, d), threads);
  parallel_for(groups, used, [&](std::int64_t begin, std::int64_t end) {
    GroupGram<T> group;
    for (std::int64_t g = begin; g < end; ++g) {
      const std::int64_t m = offsets[g + 1] - offsets[g];
      ok[g] = group.compute(rows + offsets[g] * d, m, d, g + 1 < end && offsets[g + 2] - offsets[g + 1] == m);
      if (!ok[g]) continue;
      const T* from = group.edges(map);
      T* to = edges + blocks[static_cast<std::size_t>(g)];
      for (std::int64_t i = 0; i < m; ++i) std::copy(from + i * group.ld(), from + i * group.ld() + m, to + i * m);
    }
  });
}

template class GroupGram<float>;
template class GroupGram<double>;
template void similarity_groups<float>(const float*, std::int64_t, const std::int64_t*, std::int64_t, EdgeMap, int,
                                       float*, bool*);
template void similarity_groups<double>(const double*, std::int64_t, const std::int64_t*, std::int64_t, EdgeMap, int,
                                        double*, bool*);

}  // namespace rlsft
