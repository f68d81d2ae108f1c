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
bool GroupGram<T>::pack(const T* rows, std::int64_t d, T* packed, std::int64_t d_padded) {
  const DenseKernels<T>& kernels = dense_kernels<T>();
  int* exponents = exponents_.reserve(m_);
  for (std::int64_t i = 0; i < m_; ++i) {
    T* row = packed + i * d_padded;
    const T largest = kernels.copy_row(rows + i * d, d, row);
    if (!std::isfinite(largest)) return false;
    exponents[i] = rescale_row(row, d, largest);
    std::fill(row + d, row + d_padded, T(0));
  }
  std::fill(packed + m_ * d_padded, packed + round_up(m_, kRowTile) * d_padded, T(0));
  return true;
}

template <typename T>
bool GroupGram<T>::compute(const T* rows, std::int64_t m, std::int64_t d) {
  const std::int64_t m_padded = round_up(m, kRowTile), d_padded = round_up(d, kLanes<T>);
  m_ = m;
  d_ = d;
  ld_ = round_up(m, kLanes<T>);
  T* packed = packed_.reserve(m_padded * d_padded);
  if (!pack(rows, d, packed, d_padded)) return false;
  T* gram = gram_.reserve(m_padded * ld_);
  std::fill(gram, gram + m_padded * ld_, T(0));
  dense_kernels<T>().gram(packed, m_padded, d_padded, gram, ld_);
  double* inverse_norms = inverse_norms_.reserve(ld_);
  for (std::int64_t i = 0; i < ld_; ++i) {
    const double square = i < m ? static_cast<double>(gram[i * ld_ + i]) : 0.0;
    inverse_norms[i] = square > 0.0 ? 1.0 / std::sqrt(square) : 0.0;
  }
  return true;
}

template <typename T>
T* GroupGram<T>::edges(EdgeMap map) {
  T* edges = edges_.reserve(m_ * ld_);
  dense_kernels<T>().map_edges(gram_.data(), m_, ld_, inverse_norms_.data(), map, edges);
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
      ok[g] = group.compute(rows + offsets[g] * d, m, d);
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
