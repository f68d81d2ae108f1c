// Assignment and cluster statistics of ISODATA, in a fixed order of summation.
#include <algorithm>
#include <cmath>

#include "isodata_common.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft::isodata_detail {
namespace {

struct Blocks {
  std::int64_t n, size, count;
  explicit Blocks(std::int64_t rows) : n(rows) {
    size = std::max<std::int64_t>(512, (rows + 63) / 64);
    count = std::max<std::int64_t>(1, (rows + size - 1) / size);
  }
  std::int64_t begin(std::int64_t block) const { return block * size; }
  std::int64_t end(std::int64_t block) const { return std::min(n, (block + 1) * size); }
};

// sums[width] = the sum over blocks, in block order, of what add_row(row, sums of the block) added.
template <typename AddRow>
std::vector<double> sum_over_rows(std::int64_t n, std::int64_t width, int threads, const AddRow& add_row) {
  const Blocks blocks(n);
  std::vector<double> partial(static_cast<std::size_t>(blocks.count * width));
  parallel_for(blocks.count, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = first; block < last; ++block) {
      double* sums = partial.data() + block * width;
      for (std::int64_t i = blocks.begin(block); i < blocks.end(block); ++i) add_row(i, sums);
    }
  });
  for (std::int64_t block = 1; block < blocks.count; ++block) {
    for (std::int64_t w = 0; w < width; ++w) partial[w] += partial[block * width + w];
  }
  partial.resize(static_cast<std::size_t>(width));
  return partial;
}

std::vector<std::int64_t> first_members(const std::vector<std::int32_t>& labels, std::int64_t k) {
  std::vector<std::int64_t> first(static_cast<std::size_t>(k), -1);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] >= 0 && first[labels[i]] < 0) first[labels[i]] = static_cast<std::int64_t>(i);
  }
  return first;
}

}  // namespace

template <typename T>
void assign_nearest(const Rows<T>& rows, const std::vector<double>& centers, std::int32_t* labels) {
  const std::int64_t d = rows.d, k = static_cast<std::int64_t>(centers.size()) / d;
  parallel_for(rows.n, rows.threads, [&](std::int64_t first, std::int64_t last) {
    std::vector<double> distances(static_cast<std::size_t>(k));
    for (std::int64_t i = first; i < last; ++i) {
      for (std::int64_t c = 0; c < k; ++c) {
        distances[c] = squared_distance(rows.row(i), rows.scale[i], centers.data() + c * d, d);
      }
      const double smallest = *std::min_element(distances.begin(), distances.end());
      std::int32_t label = 0;
      while (label + 1 < k && !ties_with_smallest(distances[label], smallest, rows.floor)) ++label;
      labels[i] = label;
    }
  });
}

std::vector<std::int64_t> cluster_sizes(const std::vector<std::int32_t>& labels, std::int64_t k) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(k));
  for (const std::int32_t label : labels) {
    if (label >= 0) ++sizes[label];
  }
  return sizes;
}

template <typename T>
std::vector<double> cluster_means(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                  const std::vector<std::int64_t>& sizes) {
  const std::int64_t d = rows.d, k = static_cast<std::int64_t>(sizes.size());
  const std::vector<std::int64_t> first = first_members(labels, k);
  std::vector<double> means = sum_over_rows(rows.n, k * d, rows.threads, [&](std::int64_t i, double* sums) {
    if (labels[i] < 0) return;
    double* sum = sums + labels[i] * d;
    const std::int64_t anchor = first[labels[i]];
    for (std::int64_t q = 0; q < d; ++q) sum[q] += rows.at(i, q) - rows.at(anchor, q);
  });
  for (std::int64_t c = 0; c < k; ++c) {
    for (std::int64_t q = 0; q < d; ++q) {
      double& mean = means[c * d + q];
      mean = rows.at(first[c], q) + mean / static_cast<double>(sizes[c]);
    }
  }
  return means;
}

template <typename T>
std::vector<double> cluster_variances(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                      const std::vector<std::int64_t>& sizes) {
  const std::int64_t d = rows.d, k = static_cast<std::int64_t>(sizes.size());
  const std::vector<double> means = cluster_means(rows, labels, sizes);
  std::vector<double> variances = sum_over_rows(rows.n, k * d, rows.threads, [&](std::int64_t i, double* sums) {
    if (labels[i] < 0) return;
    double* sum = sums + labels[i] * d;
    const double* mean = means.data() + labels[i] * d;
    for (std::int64_t q = 0; q < d; ++q) {
      const double difference = rows.at(i, q) - mean[q];
      sum[q] += difference * difference;
    }
  });
  for (std::int64_t j = 0; j < k * d; ++j) {
    variances[j] /= static_cast<double>(sizes[j / d]);
    if (variances[j] <= rows.floor) variances[j] = 0;
  }
  return variances;
}

template <typename T>
std::vector<double> cluster_spreads(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                    const std::vector<double>& centers, bool squared) {
  const std::int64_t d = rows.d, k = static_cast<std::int64_t>(centers.size()) / d;
  return sum_over_rows(rows.n, k, rows.threads, [&](std::int64_t i, double* sums) {
    if (labels[i] < 0) return;
    const double distance = squared_distance(rows.row(i), rows.scale[i], centers.data() + labels[i] * d, d);
    sums[labels[i]] += squared ? distance : std::sqrt(distance);
  });
}

void scale_to_unit(double* center, std::int64_t d) {
  double sum = 0;
  for (std::int64_t q = 0; q < d; ++q) sum += center[q] * center[q];
  const double scale = sum > kSameDirection ? 1 / std::sqrt(sum) : 0;
  for (std::int64_t q = 0; q < d; ++q) center[q] *= scale;
}

PartitionKey partition_key(const std::vector<std::int32_t>& labels, std::int64_t k) {
  std::vector<std::int64_t> number(static_cast<std::size_t>(k), 0);
  const int bits = k < 255 ? 8 : 32;  // as many numbers as fit go into a word before it is mixed in
  std::int64_t next = 0;
  PartitionKey key{0x243F6A8885A308D3ull, 0x13198A2E03707344ull};
  for (std::size_t i = 0; i < labels.size();) {
    std::uint64_t word = 0;
    for (int at = 0; at < 64 && i < labels.size(); at += bits, ++i) {
      if (labels[i] < 0) continue;
      std::int64_t& canonical = number[labels[i]];
      if (canonical == 0) canonical = ++next;
      word |= static_cast<std::uint64_t>(canonical) << at;
    }
    key.first = SplitMix64::mix(key.first ^ word) + 0x9E3779B97F4A7C15ull;
    key.second = SplitMix64::mix(key.second + word) ^ 0xA4093822299F31D0ull;
  }
  return key;
}

#define RLSFT_INSTANTIATE(T)                                                                                       \
  template void assign_nearest(const Rows<T>&, const std::vector<double>&, std::int32_t*);                        \
  template std::vector<double> cluster_means(const Rows<T>&, const std::vector<std::int32_t>&,                    \
                                             const std::vector<std::int64_t>&);                                   \
  template std::vector<double> cluster_variances(const Rows<T>&, const std::vector<std::int32_t>&,                \
                                                 const std::vector<std::int64_t>&);                               \
  template std::vector<double> cluster_spreads(const Rows<T>&, const std::vector<std::int32_t>&,                  \
                                               const std::vector<double>&, bool);
RLSFT_INSTANTIATE(float)
RLSFT_INSTANTIATE(double)
#undef RLSFT_INSTANTIATE

}  // namespace rlsft::isodata_detail
