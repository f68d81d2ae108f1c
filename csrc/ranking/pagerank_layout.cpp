#include "pagerank_layout.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "rlsft/parallel.hpp"

namespace rlsft {
namespace {

constexpr std::int64_t kLongRow = 256;  // in-edges from which a row is stored by itself
constexpr double kNsPerEdge = 2.0;

// The three kinds of input as one: units [0, count()) hold the edges, visit() calls f(source, target, edge) for each
// edge of a range of units, in order, and cut(k, parts) gives unit borders that part the edges evenly.
struct CsrEdges {
  const SparseGraph& g;
  std::int64_t cut(std::int64_t k, std::int64_t parts) const {
    if (k == parts) return g.n;
    return std::lower_bound(g.pointers, g.pointers + g.n, g.edges * k / parts) - g.pointers;
  }
  template <typename F>
  void visit(std::int64_t begin, std::int64_t end, F f) const {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t e = g.pointers[i]; e < g.pointers[i + 1]; ++e) f(i, g.ends[e], e);
    }
  }
};

struct CscEdges : CsrEdges {
  template <typename F>
  void visit(std::int64_t begin, std::int64_t end, F f) const {
    for (std::int64_t j = begin; j < end; ++j) {
      for (std::int64_t e = g.pointers[j]; e < g.pointers[j + 1]; ++e) f(g.ends[e], j, e);
    }
  }
};

struct CooEdges {
  const SparseGraph& g;
  std::int64_t cut(std::int64_t k, std::int64_t parts) const { return g.edges * k / parts; }
  template <typename F>
  void visit(std::int64_t begin, std::int64_t end, F f) const {
    for (std::int64_t e = begin; e < end; ++e) f(g.starts[e], g.ends[e], e);
  }
};

struct NoWeights {
  double operator[](std::int64_t) const { return 1.0; }
};

// Builds the layout for one kind of input (Edges), of weights as given (In) and as stored (Out), with the smallest
// integer that can count the entries (Head): the write positions are the random accesses here.
template <typename Edges, typename In, typename Out, typename Head>
class LayoutBuilder {
 public:
  LayoutBuilder(const SparseGraph& graph, Edges edges, In weights, const double* teleport, const double* dangling,
                int threads)
      : graph_(graph), edges_(edges), weights_(weights), teleport_(teleport), dangling_(dangling) {
    threads_ = useful_threads(kNsPerEdge * static_cast<double>(graph.edges), std::min(threads, 16));
  }

  void build(InEdges& out) {
    out.n = graph_.n;
    measure_strengths(out);
    count_in_degrees();
    peel(out);
    order_rows(out);
    place_rows(out);
    scatter(out);
    out.degree = std::move(degree_);
  }

 private:
  template <typename F>
  void each_part(F f) const {
    parallel_for(threads_, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) f(t, edges_.cut(t, threads_), edges_.cut(t + 1, threads_));
    });
  }

  // s_i, and a power of two that brings it into [1, 2): probabilities keep their bits, and neither 1 / s_i nor a
  // float32 copy of x_i / s_i leaves its range.
  void measure_strengths(InEdges& out) {
    const auto n = static_cast<std::size_t>(graph_.n);
    std::vector<double>& strength = out.inverse_strength;
    strength.assign(n, 0.0);
    const auto add = [&](std::int64_t i, std::int64_t, std::int64_t e) { strength[i] += weights_[e]; };
    if (graph_.order == EdgeOrder::csr) {
      each_part([&](std::int64_t, std::int64_t begin, std::int64_t end) { edges_.visit(begin, end, add); });
    } else {
      edges_.visit(0, edges_.cut(1, 1), add);
    }
    if (kWeighted) scale_.assign(n, 1.0);
    for (std::size_t i = 0; i < n; ++i) {
      if (kWeighted && strength[i] > 0.0) {
        scale_[i] = std::ldexp(1.0, -std::ilogb(strength[i]));
        strength[i] *= scale_[i];
      }
      strength[i] = strength[i] > 0.0 ? 1.0 / strength[i] : 0.0;
    }
  }

  void count_in_degrees() {
    heads_.resize(static_cast<std::size_t>(threads_));
    each_part([&](std::int64_t t, std::int64_t begin, std::int64_t end) {
      heads_[t] = LargeArray<Head>(graph_.n);
      Head* const counts = heads_[t].data();
      std::fill(counts, counts + graph_.n, Head{0});
      edges_.visit(begin, end, [counts](std::int64_t, std::int64_t j, std::int64_t) { ++counts[j]; });
    });
    degree_.assign(static_cast<std::size_t>(graph_.n), 0);
    for (const LargeArray<Head>& counts : heads_) {
      for (std::int64_t j = 0; j < graph_.n; ++j) degree_[j] += counts[j];
    }
  }

  void peel(InEdges& out) {
    peeled_.resize(static_cast<std::size_t>(graph_.n));
    std::int64_t candidates = 0;
    for (std::int64_t j = 0; j < graph_.n; ++j) candidates += peeled_[j] = degree_[j] == 0;
    const std::int64_t total = candidates > graph_.n / 16 ? count_peeled_edges() : 0;
    out.peels = total > graph_.edges / 16;  // below that the passes over the edges cost more than they save
    out.edges = graph_.edges - (out.peels ? total : 0);
    if (!out.peels) {
      std::fill(peeled_.begin(), peeled_.end(), 0);
      return;
    }
    each_part([&](std::int64_t t, std::int64_t begin, std::int64_t end) {
      Head* const counts = heads_[t].data();
      edges_.visit(begin, end, [&](std::int64_t i, std::int64_t j, std::int64_t) { counts[j] -= peeled_[i]; });
    });
    add_up_peeled(out.inverse_strength, teleport_, out.from_peeled_teleport);
    if (dangling_ != nullptr) add_up_peeled(out.inverse_strength, dangling_, out.from_peeled_dangling);
    std::fill(degree_.begin(), degree_.end(), 0);
    for (const LargeArray<Head>& counts : heads_) {
      for (std::int64_t j = 0; j < graph_.n; ++j) degree_[j] += counts[j];
    }
  }

  std::int64_t count_peeled_edges() const {
    std::vector<std::int64_t> found(static_cast<std::size_t>(threads_), 0);
    each_part([&](std::int64_t t, std::int64_t begin, std::int64_t end) {
      std::int64_t count = 0;
      edges_.visit(begin, end, [&](std::int64_t i, std::int64_t, std::int64_t) { count += peeled_[i]; });
      found[t] = count;
    });
    std::int64_t total = 0;
    for (const std::int64_t count : found) total += count;
    return total;
  }

  // on one thread: the order of the sums must not depend on the number of threads
  void add_up_peeled(const std::vector<double>& inverse, const double* share, std::vector<double>& sums) const {
    sums.assign(static_cast<std::size_t>(graph_.n), 0.0);
    const double uniform = 1.0 / static_cast<double>(graph_.n);
    edges_.visit(0, edges_.cut(1, 1), [&](std::int64_t i, std::int64_t j, std::int64_t e) {
      if (!peeled_[i]) return;
      sums[j] += (share != nullptr ? share[i] : uniform) * inverse[i] * scaled_weight(i, e);
    });
  }

  // counting sort by in-degree, largest first; rows of equal degree keep their order
  void order_rows(InEdges& out) {
    std::vector<std::int64_t> begin(static_cast<std::size_t>(kLongRow) + 2, 0);
    const auto key = [&](std::int64_t j) { return kLongRow - std::min<std::int64_t>(degree_[j], kLongRow); };
    for (std::int64_t j = 0; j < graph_.n; ++j) {
      if (!peeled_[j]) ++begin[key(j) + 1];
    }
    out.long_rows = begin[1];
    out.first_short = (out.long_rows + kRowLanes - 1) / kRowLanes * kRowLanes;
    begin[1] = out.first_short;
    for (std::size_t k = 1; k + 1 < begin.size(); ++k) begin[k + 1] += begin[k];
    const std::int64_t shorts = begin[static_cast<std::size_t>(kLongRow) + 1] - out.first_short;
    out.rows = out.first_short + (shorts + kRowLanes - 1) / kRowLanes * kRowLanes;
    begin[0] = 0;
    out.position = LargeArray<std::int32_t>(graph_.n);
    node_at_.assign(static_cast<std::size_t>(out.rows), -1);
    for (std::int64_t j = 0; j < graph_.n; ++j) {
      const std::int64_t p = peeled_[j] ? -1 : begin[key(j)]++;
      out.position[j] = static_cast<std::int32_t>(p);
      if (p >= 0) node_at_[p] = static_cast<std::int32_t>(j);
    }
  }

  std::int64_t degree_at(std::int64_t p) const { return node_at_[p] >= 0 ? degree_[node_at_[p]] : 0; }

  void place_rows(InEdges& out) {
    const std::int64_t slices = (out.rows - out.first_short) / kRowLanes;
    out.slice_begin.assign(static_cast<std::size_t>(slices) + 1, 0);
    for (std::int64_t s = 0; s < slices; ++s) {  // sorted, so a slice's first row is its longest
      out.slice_begin[s + 1] = out.slice_begin[s] + kRowLanes * degree_at(out.first_short + s * kRowLanes);
    }
    out.long_begin.assign(static_cast<std::size_t>(out.long_rows) + 1, out.slice_begin.back());
    for (std::int64_t r = 0; r < out.long_rows; ++r) {
      out.long_begin[r + 1] = out.long_begin[r] + (degree_at(r) + kRowLanes - 1) / kRowLanes * kRowLanes;
    }
  }

  std::int64_t first_entry(const InEdges& out, std::int64_t p) const {
    if (p < out.long_rows) return out.long_begin[p];
    const std::int64_t row = p - out.first_short;
    return out.slice_begin[row / kRowLanes] + row % kRowLanes;
  }

  // Stable: the edges of a row stand in the order of the input, whichever thread brings them.
  void scatter(InEdges& out) {
    const auto long_begin = static_cast<Head>(out.slice_begin.back());
    out.ids = LargeArray<std::int32_t>(out.long_begin.back());
    Out* stored = allocate_weights(out, out.long_begin.back());
    for (std::int64_t j = 0; j < graph_.n; ++j) {
      if (peeled_[j]) continue;
      const std::int64_t p = out.position[j];
      auto next = static_cast<Head>(first_entry(out, p));
      const Head stride = p < out.long_rows ? 1 : kRowLanes;
      for (LargeArray<Head>& heads : heads_) {
        const Head count = heads[j];
        heads[j] = next;
        next += count * stride;
      }
    }
    std::int32_t* const ids = out.ids.data();
    const std::int32_t* const position = out.position.data();
    each_part([&](std::int64_t t, std::int64_t begin, std::int64_t end) {
      Head* const heads = heads_[t].data();
      edges_.visit(begin, end, [&](std::int64_t i, std::int64_t j, std::int64_t e) {
        const std::int32_t source = position[i];
        if (source < 0) return;
        const Head at = heads[j];
        heads[j] = at + (at >= long_begin ? 1 : static_cast<Head>(kRowLanes));
        ids[at] = source;
        if (kWeighted) stored[at] = static_cast<Out>(scaled_weight(i, e));
      });
    });
    pad(out, stored);
  }

  void pad(const InEdges& out, Out* stored) const {
    const auto dummy = static_cast<std::int32_t>(out.rows);
    for (std::int64_t p = 0; p < out.rows; ++p) {
      if (p >= out.long_rows && p < out.first_short) continue;
      const bool is_long = p < out.long_rows;
      const std::int64_t end = is_long ? out.long_begin[p + 1] : out.slice_begin[(p - out.first_short) / kRowLanes + 1];
      const std::int64_t stride = is_long ? 1 : kRowLanes;
      const std::int64_t node = node_at_[p];
      std::int64_t at = node >= 0 ? static_cast<std::int64_t>(heads_.back()[node]) : first_entry(out, p);
      for (; at < end; at += stride) {
        out.ids[at] = dummy;
        if (kWeighted) stored[at] = Out{0};
      }
    }
  }

  Out* allocate_weights(InEdges& out, std::int64_t count) const {
    if constexpr (std::is_same_v<In, NoWeights>) {
      return nullptr;
    } else if constexpr (std::is_same_v<Out, float>) {
      out.weights32 = LargeArray<float>(count);
      return out.weights32.data();
    } else {
      out.weights64 = LargeArray<double>(count);
      return out.weights64.data();
    }
  }

  double scaled_weight(std::int64_t i, std::int64_t e) const { return kWeighted ? weights_[e] * scale_[i] : 1.0; }

  static constexpr bool kWeighted = !std::is_same_v<In, NoWeights>;
  const SparseGraph& graph_;
  const Edges edges_;
  const In weights_;
  const double *teleport_, *dangling_;
  int threads_ = 1;
  std::vector<double> scale_;             // [n], powers of two
  std::vector<LargeArray<Head>> heads_;   // [threads][n]: in-degrees, then where the next edge goes
  std::vector<std::int64_t> degree_;      // [n] in-degrees without peeled sources
  std::vector<unsigned char> peeled_;     // [n]
  std::vector<std::int32_t> node_at_;     // [rows]: the node of a position; -1 for padding
};

template <typename Edges, typename In, typename Out>
void build_from(const SparseGraph& graph, Edges edges, In weights, const double* teleport, const double* dangling,
                int threads, InEdges& out) {
  // padding adds at most kRowLanes entries a row
  const std::int64_t most = graph.edges + kRowLanes * (graph.n + kLongRow + 1);
  if (most < std::numeric_limits<std::uint32_t>::max()) {
    LayoutBuilder<Edges, In, Out, std::uint32_t>(graph, edges, weights, teleport, dangling, threads).build(out);
  } else {
    LayoutBuilder<Edges, In, Out, std::uint64_t>(graph, edges, weights, teleport, dangling, threads).build(out);
  }
}

template <typename In, typename Out>
void build_with(const SparseGraph& graph, In weights, const double* teleport, const double* dangling, int threads,
                InEdges& out) {
  const CsrEdges csr{graph};
  if (graph.order == EdgeOrder::csr) build_from<CsrEdges, In, Out>(graph, csr, weights, teleport, dangling, threads, out);
  if (graph.order == EdgeOrder::csc) {
    build_from<CscEdges, In, Out>(graph, CscEdges{csr}, weights, teleport, dangling, threads, out);
  }
  if (graph.order == EdgeOrder::coo) {
    build_from<CooEdges, In, Out>(graph, CooEdges{graph}, weights, teleport, dangling, threads, out);
  }
}

std::vector<std::int32_t> sources_of_csr(const SparseGraph& graph) {
  std::vector<std::int32_t> sources(static_cast<std::size_t>(graph.edges));
  for (std::int64_t i = 0; i < graph.n; ++i) {
    std::fill(sources.begin() + graph.pointers[i], sources.begin() + graph.pointers[i + 1], static_cast<std::int32_t>(i));
  }
  return sources;
}

// Weights whose sums over a source leave the range of double, brought back by a power of two for each source; empty
// when no source needs it.
std::vector<double> rescue_extreme_weights(const SparseGraph& graph) {
  constexpr double kSmall = 1e-280, kLarge = 1e280;
  const double *begin = graph.weights64, *end = begin + graph.edges;
  const auto extreme = [](double w) { return w != 0.0 && !(w >= kSmall && w <= kLarge); };
  if (std::none_of(begin, end, extreme)) return {};
  const std::vector<std::int32_t> own = graph.order == EdgeOrder::csr ? sources_of_csr(graph) : std::vector<std::int32_t>{};
  const std::int32_t* sources = graph.order == EdgeOrder::csr ? own.data() : graph.order == EdgeOrder::csc ? graph.ends : graph.starts;
  std::vector<double> largest(static_cast<std::size_t>(graph.n), 0.0), scaled(begin, end);
  for (std::int64_t e = 0; e < graph.edges; ++e) largest[sources[e]] = std::max(largest[sources[e]], begin[e]);
  for (std::int64_t e = 0; e < graph.edges; ++e) {
    const double most = largest[sources[e]];
    if (extreme(most)) scaled[e] = std::ldexp(begin[e], -std::ilogb(most));
  }
  return scaled;
}

}  // namespace

InEdges build_in_edges(const SparseGraph& graph, const double* teleport, const double* dangling, int threads) {
  InEdges out;
  if (graph.weights32 != nullptr) {
    build_with<const float*, float>(graph, graph.weights32, teleport, dangling, threads, out);
  } else if (graph.weights64 != nullptr) {
    const std::vector<double> rescued = rescue_extreme_weights(graph);
    const double* weights = rescued.empty() ? graph.weights64 : rescued.data();
    build_with<const double*, double>(graph, weights, teleport, dangling, threads, out);
  } else {
    build_with<NoWeights, float>(graph, NoWeights{}, teleport, dangling, threads, out);
  }
  return out;
}

}  // namespace rlsft
