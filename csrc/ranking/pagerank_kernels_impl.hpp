// Included by pagerank_kernels_<isa>.cpp, which define RLSFT_ISA (a namespace).
// Plain loops over 16 lanes and nothing of the standard library: an inline function of it, compiled for AVX-512 in this
// file, could be the one copy the linker keeps for everybody. There is no AVX2 copy: its gathers lose to plain loads.
#include "pagerank_kernels.hpp"

namespace rlsft {
namespace RLSFT_ISA {
namespace {

inline double weight_at(const float* weights, std::int64_t at) { return static_cast<double>(weights[at]); }
inline double weight_at(const double* weights, std::int64_t at) { return weights[at]; }
inline double weight_at(const Unweighted*, std::int64_t) { return 1.0; }

template <typename Value, typename Weight>
inline void add_edges(const std::int32_t* ids, const Weight* weights, std::int64_t begin, std::int64_t end,
                      const Value* values, double* sums) {
  for (std::int64_t at = begin; at < end; at += kSliceLanes) {
    for (int l = 0; l < kSliceLanes; ++l) {
      sums[l] += weight_at(weights, at + l) * static_cast<double>(values[ids[at + l]]);
    }
  }
}

// a fixed tree: the sum must not depend on how a compiler vectorises
inline double fold(double* lanes) {
  for (int half = kSliceLanes / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

template <typename Value, typename Weight>
RowSums slices(const std::int32_t* ids, const Weight* weights, const std::int64_t* slice_begin, std::int64_t count,
               const Value* values, double mass, double damping, Rows<Value> rows) {
  double total[kSliceLanes] = {}, dangling[kSliceLanes] = {}, step[kSliceLanes] = {};
  for (std::int64_t s = 0; s < count; ++s) {
    double sums[kSliceLanes] = {};
    add_edges(ids, weights, slice_begin[s], slice_begin[s + 1], values, sums);
    double* const x = rows.x + s * kSliceLanes;
    const double* const inverse = rows.inverse + s * kSliceLanes;
    const double* const base = rows.base + s * kSliceLanes;
    Value* const sent = rows.sent + s * kSliceLanes;
    for (int l = 0; l < kSliceLanes; ++l) {
      const double next = mass * base[l] + damping * sums[l];
      step[l] += __builtin_fabs(next - x[l]);
      total[l] += next;
      dangling[l] += inverse[l] == 0.0 ? next : 0.0;
      x[l] = next;
      sent[l] = static_cast<Value>(next * inverse[l]);
    }
  }
  return {fold(total), fold(dangling), fold(step)};
}

template <typename Value, typename Weight>
double segment(const std::int32_t* ids, const Weight* weights, std::int64_t count, const Value* values) {
  double sums[kSliceLanes] = {};
  add_edges(ids, weights, 0, count, values, sums);
  return fold(sums);
}

}  // namespace

template <typename Value, typename Weight>
const PagerankKernels<Value, Weight>& pagerank_kernels() {
  static constexpr PagerankKernels<Value, Weight> table{&slices<Value, Weight>, &segment<Value, Weight>};
  return table;
}
template const PagerankKernels<float, Unweighted>& pagerank_kernels<float, Unweighted>();
template const PagerankKernels<float, float>& pagerank_kernels<float, float>();
template const PagerankKernels<float, double>& pagerank_kernels<float, double>();
template const PagerankKernels<double, Unweighted>& pagerank_kernels<double, Unweighted>();
template const PagerankKernels<double, float>& pagerank_kernels<double, float>();
template const PagerankKernels<double, double>& pagerank_kernels<double, double>();

}  // namespace RLSFT_ISA
}  // namespace rlsft
