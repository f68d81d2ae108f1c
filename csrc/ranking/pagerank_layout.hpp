// The in-edges of a graph in the order in which PageRank's sweeps read them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "rlsft/pagerank.hpp"

namespace rlsft {

// Uninitialised memory on 64-byte lines. Where it is large, huge pages are asked for: random reads and writes of tens
// of megabytes otherwise spend a third of their time on address translation.
template <typename T>
class LargeArray {
 public:
  LargeArray() = default;
  explicit LargeArray(std::int64_t count) {
    constexpr std::size_t kHuge = std::size_t{1} << 21, kLine = 64;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    const std::size_t unit = bytes >= kHuge ? kHuge : kLine;
    const std::size_t rounded = (bytes / unit + 1) * unit;
    void* memory = std::aligned_alloc(unit, rounded);
    if (memory == nullptr) throw std::bad_alloc();
#ifdef __linux__
    if (unit == kHuge) madvise(memory, rounded, MADV_HUGEPAGE);  // a hint: refusal changes nothing
#endif
    data_.reset(static_cast<T*>(memory));
  }
  T* data() const { return data_.get(); }
  T& operator[](std::int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> data_;
};

constexpr std::int64_t kRowLanes = 16;  // rows of a slice, summed side by side

// Rows are sorted by in-degree, largest first, and take new numbers ("positions"). Positions [0, long_rows) are rows
// of many edges, stored one after the other. From `first_short` on, each kRowLanes rows form a slice: edge k of lane l
// is entry k * kRowLanes + l. Rows of a slice have nearly equal degrees, so little is padded, no loop ends after ten
// edges with a mispredicted branch, and kRowLanes sums run side by side.
// Padding points at position `rows`, whose value is always 0.
struct InEdges {
  std::int64_t n = 0, rows = 0, long_rows = 0, first_short = 0;
  std::int64_t edges = 0;                // without the edges of peeled sources
  std::vector<std::int64_t> slice_begin;  // [slices + 1], into ids
  std::vector<std::int64_t> long_begin;   // [long_rows + 1], into ids; multiples of kRowLanes
  LargeArray<std::int32_t> position;      // [n]: new number of a node; -1 for a peeled one
  LargeArray<std::int32_t> ids;           // source positions of the edges
  LargeArray<float> weights32;            // beside ids; scaled so that a source's strength lies in [1, 2)
  LargeArray<double> weights64;

  std::vector<std::int64_t> degree;      // [n] in-degrees, without edges of peeled sources
  std::vector<double> inverse_strength;  // [n] of the scaled weights; 0 for a dangling node
  // Nodes without in-edges keep a fixed multiple of the teleport. Where they hold many edges they are peeled: what
  // they send is added up once, here, and costs the sweeps nothing.
  bool peels = false;
  std::vector<double> from_peeled_teleport;  // [n]: sum over peeled sources of v_i w_ij / s_i; empty unless peels
  std::vector<double> from_peeled_dangling;  // [n]: the same for the dangling distribution, if there is one
};

// teleport: null is uniform. dangling: null when it equals the teleport.
InEdges build_in_edges(const SparseGraph& graph, const double* teleport, const double* dangling, int threads);

}  // namespace rlsft
