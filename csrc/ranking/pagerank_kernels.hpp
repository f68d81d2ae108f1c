// The inner loops of PageRank's sweeps, compiled for each instruction set that gains from it.
#pragma once

#include <cstdint>

namespace rlsft {

constexpr int kSliceLanes = 16;  // equals kRowLanes of the layout

struct Unweighted {};  // in place of a weight type: every edge counts 1

// What a range of rows adds up to.
struct RowSums {
  double total = 0.0, dangling = 0.0, step = 0.0;
};

// Arrays of a range of rows, from its first row on.
template <typename Value>
struct Rows {
  double* x;              // scores, replaced
  const double* inverse;  // 1 / strength; 0 for dangling nodes and padding
  const double* base;     // what teleport and peeled nodes send, for a mass of 1; 0 for padding
  Value* sent;            // x / strength, out
};

template <typename Value, typename Weight>
struct PagerankKernels {
  // x = mass * base + damping * (sum of values at ids) for each row of `count` slices; see InEdges for the storage.
  RowSums (*slices)(const std::int32_t* ids, const Weight* weights, const std::int64_t* slice_begin,
                    std::int64_t count, const Value* values, double mass, double damping, Rows<Value> rows);

  // sum of weights * values at ids, for `count` edges of one long row; a multiple of kSliceLanes
  double (*segment)(const std::int32_t* ids, const Weight* weights, std::int64_t count, const Value* values);
};

// The kernels of active_isa(). Value is float or double; Weight is Unweighted, float or double.
template <typename Value, typename Weight>
const PagerankKernels<Value, Weight>& pagerank_kernels();

namespace scalar {
template <typename Value, typename Weight>
const PagerankKernels<Value, Weight>& pagerank_kernels();
}
namespace avx512 {
template <typename Value, typename Weight>
const PagerankKernels<Value, Weight>& pagerank_kernels();
}

}  // namespace rlsft
