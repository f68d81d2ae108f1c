// Sums over fixed blocks by several threads, merged in order: what they come to does not depend on the threads.
#pragma once

#include <algorithm>
#include <vector>

#include "loss_kernels.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft::losses_detail {

inline std::int64_t count_blocks(std::int64_t count) { return (count + kBlock - 1) / kBlock; }

// body(begin, end, sums) for every block of [0, count); returns the `width` sums of each block, one after the other.
template <typename Body>
std::vector<double> sums_of_blocks(std::int64_t count, int width, double ns_per_item, int threads, const Body& body) {
  const std::int64_t blocks = count_blocks(count);
  std::vector<double> sums(static_cast<std::size_t>(blocks * width));
  const auto work = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      body(b * kBlock, std::min(count, (b + 1) * kBlock), sums.data() + b * width);
    }
  };
  const int useful = useful_threads(static_cast<double>(count) * ns_per_item, threads);
  if (useful <= 1) {
    work(0, blocks);
  } else {
    parallel_for(blocks, useful, work);
  }
  return sums;
}

// sum[k] = the k-th sum over all blocks
inline void add_blocks(const std::vector<double>& blocks, int width, double* sum) {
  std::fill(sum, sum + width, 0.0);
  for (std::size_t i = 0; i < blocks.size(); ++i) sum[i % static_cast<std::size_t>(width)] += blocks[i];
}

}  // namespace rlsft::losses_detail
