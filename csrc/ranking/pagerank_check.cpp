// Checks of a sparse graph, before any work. Free of -ffast-math, so that a NaN stays one.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "rlsft/parallel.hpp"
#include "rlsft/pagerank.hpp"

namespace rlsft {
namespace {

constexpr std::int64_t kBlock = 1 << 14;
constexpr double kNsPerEntry = 0.3;

// First index in [0, count) whose block fails `block_ok` and that fails `entry_ok`; -1 when none does. The block test
// has no branch inside, so that the compiler vectorises it; it may fail blocks that are good.
template <typename BlockOk, typename EntryOk>
std::int64_t first_bad(std::int64_t count, int threads, BlockOk block_ok, EntryOk entry_ok) {
  const std::int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<std::int64_t> bad(static_cast<std::size_t>(blocks), -1);
  const int used = useful_threads(kNsPerEntry * static_cast<double>(count), threads);
  parallel_for(blocks, used, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = block * kBlock, end = std::min(count, begin + kBlock);
      if (block_ok(begin, end)) continue;
      std::int64_t at = begin;
      while (at < end && entry_ok(at)) ++at;
      if (at == end) continue;
      bad[static_cast<std::size_t>(block)] = at;
      return;
    }
  });
  for (const std::int64_t at : bad) {
    if (at >= 0) return at;
  }
  return -1;
}

// An id is good when, read as unsigned, it is below n: negative ids wrap to the top.
std::int64_t first_bad_id(const std::int32_t* ids, std::int64_t count, std::int64_t n, int threads) {
  const auto limit = static_cast<std::uint32_t>(n);
  return first_bad(
      count, threads,
      [=](std::int64_t begin, std::int64_t end) {
        std::uint32_t largest = 0;
        for (std::int64_t e = begin; e < end; ++e) largest = std::max(largest, static_cast<std::uint32_t>(ids[e]));
        return largest < limit;
      },
      [=](std::int64_t e) { return static_cast<std::uint32_t>(ids[e]) < limit; });
}

// The bits of a float or double: integer tests run side by side on every instruction set, and no flag bends them.
template <typename T>
struct Bits;
template <>
struct Bits<float> {
  using type = std::uint32_t;
  static constexpr int mantissa = 23;
};
template <>
struct Bits<double> {
  using type = std::uint64_t;
  static constexpr int mantissa = 52;
};

template <typename T>
GraphCheck check_weights(const T* weights, std::int64_t count, int threads) {
  using Word = typename Bits<T>::type;
  constexpr Word kOneExponent = Word{1} << Bits<T>::mantissa, kTop = Word{1} << (8 * sizeof(Word) - 1);
  const auto word = [weights](std::int64_t e) {
    Word bits;
    __builtin_memcpy(&bits, weights + e, sizeof(bits));
    return bits;
  };
  const Word first = count > 0 ? word(0) : Word{0};
  std::atomic<bool> all_equal{count > 0 && weights[0] > T{0}};
  const std::int64_t at = first_bad(
      count, threads,
      [=, &all_equal](std::int64_t begin, std::int64_t end) {
        Word different = 0, top = 0;
        for (std::int64_t e = begin; e < end; ++e) {
          const Word bits = word(e);
          different |= bits ^ first;
          top |= bits | (bits + kOneExponent);  // carries into the top bit where the exponent is that of inf and NaN
        }
        if (different != 0) all_equal.store(false, std::memory_order_relaxed);
        return (top & kTop) == 0;  // a negative zero fails here, and passes the second look
      },
      [=](std::int64_t e) { return weights[e] >= T{0} && weights[e] <= std::numeric_limits<T>::max(); });
  return {at >= 0 ? GraphFault::weights : GraphFault::none, at, at < 0 && all_equal.load()};
}

std::int64_t first_bad_pointer(const SparseGraph& graph) {
  if (graph.pointers[0] != 0) return 0;
  for (std::int64_t i = 0; i < graph.n; ++i) {
    if (graph.pointers[i + 1] < graph.pointers[i] || graph.pointers[i + 1] > graph.edges) return i + 1;
  }
  return graph.pointers[graph.n] == graph.edges ? -1 : graph.n;
}

}  // namespace

GraphCheck check_graph(const SparseGraph& graph, int threads) {
  if (graph.order != EdgeOrder::coo) {
    const std::int64_t at = first_bad_pointer(graph);
    if (at >= 0) return {GraphFault::pointers, at, false};
  } else {
    const std::int64_t at = first_bad_id(graph.starts, graph.edges, graph.n, threads);
    if (at >= 0) return {GraphFault::starts, at, false};
  }
  const std::int64_t at = first_bad_id(graph.ends, graph.edges, graph.n, threads);
  if (at >= 0) return {GraphFault::ends, at, false};
  if (graph.weights32 != nullptr) return check_weights(graph.weights32, graph.edges, threads);
  if (graph.weights64 != nullptr) return check_weights(graph.weights64, graph.edges, threads);
  return {GraphFault::none, -1, false};
}

std::int64_t narrow_ids(const std::int64_t* ids, std::int64_t count, std::int64_t n, int threads, std::int32_t* out) {
  const auto limit = static_cast<std::uint64_t>(n);
  return first_bad(
      count, threads,
      [=](std::int64_t begin, std::int64_t end) {
        std::uint64_t largest = 0;
        for (std::int64_t e = begin; e < end; ++e) {
          largest = std::max(largest, static_cast<std::uint64_t>(ids[e]));
          out[e] = static_cast<std::int32_t>(ids[e]);
        }
        return largest < limit;
      },
      [=](std::int64_t e) { return static_cast<std::uint64_t>(ids[e]) < limit; });
}

}  // namespace rlsft
