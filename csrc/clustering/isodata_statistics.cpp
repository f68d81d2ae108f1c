// Cluster statistics of ISODATA, in a fixed order of summation.
#include <algorithm>
#include <cmath>

#include "isodata_common.hpp"

namespace rlsft::isodata_detail {
namespace {

// The first row of each cluster that has weight.
template <typename T>
std::vector<std::int64_t> first_members(const Rows<T>& rows, const std::vector<std::int32_t>& labels, std::int64_t k) {
  std::vector<std::int64_t> first(static_cast<std::size_t>(k), -1);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] >= 0 && first[labels[i]] < 0 && rows.weight_of(i) > 0) first[labels[i]] = static_cast<std::int64_t>(i);
  }
  return first;
}

template <typename T>
ClusterSums sums_around(const Rows<T>& rows, const std::vector<std::int32_t>& labels, std::vector<double> centers) {
  const std::int64_t width = 2 * static_cast<std::int64_t>(centers.size());
  const auto add_block = [&](std::int64_t first, std::int64_t last, double* sums) {
    MemberSums members;
    const std::int64_t chunk = rows_of_chunk<T>(rows.d);
    for (std::int64_t i = first; i < last; i += chunk) {
      members.add(rows, i, std::min(last, i + chunk), labels.data(), centers, true, sums);
    }
  };
  std::vector<double> values = sum_over_blocks(rows.n, width, rows.threads, add_block);
  return {std::move(centers), std::move(values)};
}

std::vector<double> means_from_first_sums(const ClusterSums& sums, const std::vector<double>& sizes) {
  const std::size_t d = sums.around.size() / sizes.size();
  std::vector<double> means = sums.around;
  for (std::size_t j = 0; j < means.size(); ++j) means[j] += sums.values[2 * (j / d) * d + j % d] / sizes[j / d];
  return means;
}

// Around each cluster's first row.
template <typename T>
std::vector<double> means_from_rows(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                    const std::vector<double>& sizes) {
  const std::int64_t d = rows.d, k = static_cast<std::int64_t>(sizes.size());
  const std::vector<std::int64_t> first = first_members(rows, labels, k);
  std::vector<double> anchors(static_cast<std::size_t>(k * d));
  for (std::int64_t c = 0; c < k; ++c) {
    for (std::int64_t q = 0; q < d; ++q) anchors[c * d + q] = rows.at(first[c], q);
  }
  return means_from_first_sums(sums_around(rows, labels, std::move(anchors)), sizes);
}

template <typename T>
std::vector<double> variances_from_rows(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                        const std::vector<double>& sizes) {
  const std::int64_t d = rows.d;
  const ClusterSums sums = sums_around(rows, labels, means_from_rows(rows, labels, sizes));
  std::vector<double> variances(sums.around.size());
  for (std::int64_t j = 0; j < static_cast<std::int64_t>(variances.size()); ++j) {
    variances[j] = sums.values[(2 * (j / d) + 1) * d + j % d] / sizes[j / d];
  }
  return variances;
}

// Mean and variance of one coordinate of one cluster, from sums around `around`.
struct Moments {
  double mean, variance;
  bool is_sound;  // at most two digits of the variance cancelled
  Moments(double around, double first, double second, double size)
      : mean(around + first / size), variance(second / size - (first / size) * (first / size)),
        is_sound(second == 0 || variance >= 0.01 * (second / size)) {}
};

// pick(moments) for every coordinate; clusters with an unsound one are taken from `from_rows` instead.
template <typename Pick, typename FromRows>
std::vector<double> from_sums(const ClusterSums& sums, const std::vector<double>& sizes, const Pick& pick,
                              const FromRows& from_rows) {
  const std::size_t k = sizes.size(), d = sums.around.size() / k;
  std::vector<double> result(k * d);
  std::vector<std::uint8_t> is_unsound(k);
  for (std::size_t c = 0; c < k; ++c) {
    const double* first = sums.values.data() + 2 * c * d;
    for (std::size_t q = 0; q < d; ++q) {
      const Moments moments(sums.around[c * d + q], first[q], first[d + q], sizes[c]);
      if (!moments.is_sound) is_unsound[c] = 1;
      result[c * d + q] = pick(moments);
    }
  }
  if (std::count(is_unsound.begin(), is_unsound.end(), 1) == 0) return result;
  const std::vector<double> exact = from_rows();
  for (std::size_t j = 0; j < k * d; ++j) {
    if (is_unsound[j / d]) result[j] = exact[j];
  }
  return result;
}

bool is_ready(const ClusterSums* sums) { return sums != nullptr && !sums->values.empty(); }

}  // namespace

template <typename T>
void MemberSums::add(const Rows<T>& rows, std::int64_t first, std::int64_t last, const std::int32_t* labels,
                     const std::vector<double>& centers, bool with_squares, double* sums) {
  const std::int64_t d = rows.d, k = static_cast<std::int64_t>(centers.size()) / d;
  starts_.assign(static_cast<std::size_t>(k + 2), 0);
  members_.resize(static_cast<std::size_t>(last - first));
  for (std::int64_t i = first; i < last; ++i) {
    if (labels[i] >= 0) ++starts_[labels[i] + 2];
  }
  for (std::int64_t c = 2; c < k + 2; ++c) starts_[c] += starts_[c - 1];
  for (std::int64_t i = first; i < last; ++i) {
    if (labels[i] >= 0) members_[starts_[labels[i] + 1]++] = static_cast<std::int32_t>(i - first);
  }
  const nearest::RowSpan<T> span = rows.span(first, last - first);
  for (std::int64_t c = 0; c < k; ++c) {
    const std::int32_t begin = starts_[c], count = starts_[c + 1] - begin;
    if (count == 0) continue;
    nearest::kernels<T>().add_members(span, members_.data() + begin, count, centers.data() + c * d, with_squares,
                                      sums + 2 * c * d);
  }
}

std::vector<double> cluster_sizes(const std::vector<std::int32_t>& labels, std::int64_t k, const double* weight) {
  std::vector<double> sizes(static_cast<std::size_t>(k));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] >= 0) sizes[labels[i]] += weight == nullptr ? 1.0 : weight[i];
  }
  return sizes;
}

template <typename T>
std::vector<double> cluster_means(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                  const std::vector<double>& sizes, const ClusterSums* sums) {
  const auto from_rows = [&] { return means_from_rows(rows, labels, sizes); };
  if (!is_ready(sums)) return from_rows();
  if (!sums->has_squares) return means_from_first_sums(*sums, sizes);
  return from_sums(*sums, sizes, [](const Moments& moments) { return moments.mean; }, from_rows);
}

template <typename T>
std::vector<double> cluster_variances(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                      const std::vector<double>& sizes, const ClusterSums* sums) {
  const auto from_rows = [&] { return variances_from_rows(rows, labels, sizes); };
  std::vector<double> variances =
      is_ready(sums) && sums->has_squares
          ? from_sums(*sums, sizes, [](const Moments& moments) { return moments.variance; }, from_rows)
                     : from_rows();
  for (double& variance : variances) {
    if (variance <= rows.floor) variance = 0;
  }
  return variances;
}

template <typename T>
std::vector<double> cluster_spreads(const Rows<T>& rows, const std::vector<std::int32_t>& labels,
                                    const std::vector<double>& centers, bool squared) {
  const std::int64_t k = static_cast<std::int64_t>(centers.size()) / rows.d;
  std::vector<double> distances(static_cast<std::size_t>(rows.n));
  distances_to_own(rows, centers, labels.data(), distances.data());
  return sum_over_blocks(rows.n, k, rows.threads, [&](std::int64_t first, std::int64_t last, double* sums) {
    for (std::int64_t i = first; i < last; ++i) {
      if (labels[i] >= 0) sums[labels[i]] += rows.weight_of(i) * (squared ? distances[i] : std::sqrt(distances[i]));
    }
  });
}

void scale_to_unit(double* center, std::int64_t d) {
  double sum = 0;
  for (std::int64_t q = 0; q < d; ++q) sum += center[q] * center[q];
  const double scale = sum > kSameDirection ? 1 / std::sqrt(sum) : 0;
  for (std::int64_t q = 0; q < d; ++q) center[q] *= scale;
}

PartitionKey partition_key(const std::vector<std::int32_t>& labels, std::int64_t k, const double* weight) {
  std::vector<std::uint64_t> number(static_cast<std::size_t>(k));
  std::uint64_t next = 0, counted = 0;
  PartitionKey key{0x243F6A8885A308D3ull, 0x13198A2E03707344ull};
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (weight != nullptr && weight[i] == 0) continue;
    std::uint64_t canonical = 0;
    if (labels[i] >= 0) {
      std::uint64_t& own = number[labels[i]];
      if (own == 0) own = ++next;
      canonical = own;
    }
    // a sum of hashes of (place, cluster): no row waits for the one before it
    const std::uint64_t hash = SplitMix64::mix((++counted * 0x9E3779B97F4A7C15ull) ^ canonical);
    key.first += hash;
    key.second += (hash * hash) ^ (hash >> 29);
  }
  return key;
}

#define RLSFT_INSTANTIATE(T)                                                                                     \
  template void MemberSums::add(const Rows<T>&, std::int64_t, std::int64_t, const std::int32_t*,                 \
                                const std::vector<double>&, bool, double*);                                     \
  template std::vector<double> cluster_means(const Rows<T>&, const std::vector<std::int32_t>&,                  \
                                             const std::vector<double>&, const ClusterSums*);                   \
  template std::vector<double> cluster_variances(const Rows<T>&, const std::vector<std::int32_t>&,              \
                                                 const std::vector<double>&, const ClusterSums*);               \
  template std::vector<double> cluster_spreads(const Rows<T>&, const std::vector<std::int32_t>&,                \
                                               const std::vector<double>&, bool);
RLSFT_INSTANTIATE(float)
RLSFT_INSTANTIATE(double)
#undef RLSFT_INSTANTIATE

}  // namespace rlsft::isodata_detail
