// Where an iteration starts, and what its end does to nodes that cannot be told apart.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace rlsft {

inline std::vector<double> teleport_or_uniform(std::int64_t n, const double* teleport) {
  if (teleport != nullptr) return {teleport, teleport + n};
  return std::vector<double>(static_cast<std::size_t>(n), 1.0 / static_cast<double>(n));
}

// x [n] = the caller's start; else, for a symmetric graph, its degrees, which are what a walk without damping ends in.
inline void first_guess(std::int64_t n, const double* sums, const double* v, const double* start, double damping,
                        bool by_degree, double* x) {
  double total = 0.0;
  for (std::int64_t i = 0; i < n; ++i) total += sums[i];
  by_degree = by_degree && start == nullptr && total > 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] = start != nullptr ? start[i] : by_degree ? damping * (sums[i] / total) + (1.0 - damping) * v[i] : v[i];
  }
}

// Power iteration that starts without a share of some node may find another eigenvector, and the bound of
// largest_growth() needs positive x.
inline void make_positive(std::int64_t n, double* x) {
  if (std::none_of(x, x + n, [](double value) { return value == 0.0; })) return;
  for (std::int64_t i = 0; i < n; ++i) x[i] = 0.5 * x[i] + 0.5 / static_cast<double>(n);
}

// Row sums outside this range would leave no room for 1 / sum: such rows are scaled by a power of two.
inline bool is_extreme_sum(double sum) { return sum != 0.0 && !(sum >= 1e-280 && sum <= 1e280); }

// Twins from an uneven start differ by what the iteration left over.
inline double twin_distance(bool even_start, double tol) { return even_start ? 1e-12 : 1e-12 + 10.0 * tol; }

// Nodes with equal keys, teleport and nearly equal x that `same` confirms share their mean. O(n log n) plus one `same`
// for each candidate.
template <typename Same>
void share_means_of_twins(const std::vector<std::int64_t>& nodes, const std::vector<std::uint64_t>& keys, double* x,
                          const double* teleport, double near, Same same) {
  std::vector<std::int64_t> order(nodes);
  std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return keys[a] != keys[b] ? keys[a] < keys[b] : a < b;
  });
  std::vector<std::int64_t> members;
  std::vector<bool> done(keys.size(), false);
  for (std::size_t at = 0; at < order.size(); ++at) {
    const std::int64_t first = order[at];
    if (done[first]) continue;
    members.assign(1, first);
    double sum = x[first];
    for (std::size_t next = at + 1; next < order.size() && keys[order[next]] == keys[first]; ++next) {
      const std::int64_t node = order[next];
      if (done[node] || teleport[node] != teleport[first] || std::abs(x[node] - x[first]) > near) continue;
      if (!same(first, node)) continue;
      members.push_back(node);
      done[node] = true;
      sum += x[node];
    }
    for (const std::int64_t node : members) x[node] = sum / static_cast<double>(members.size());
  }
}

inline std::uint64_t mix_bits(std::uint64_t h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdULL;
  h ^= h >> 33;
  return h * 0xc4ceb9fe1a85ec53ULL;
}

}  // namespace rlsft
