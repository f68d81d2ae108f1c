// One large graph of cosines, never written down.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "iteration_start.hpp"
#include "large_ranker.hpp"
#include "power_iteration.hpp"
#include "rlsft/parallel.hpp"
#include "sweep_kernels.hpp"

namespace rlsft {
namespace {

// W = offset (1 1^T - I) + slope (X X^T - diag(|x_i|^2)) with rows scaled to unit length; a zero row stays zero.
template <typename T>
class CosineGraph final : public LargeGraph {
 public:
  CosineGraph(const T* rows, std::int64_t nodes, std::int64_t d, EdgeMap map, int threads)
      : rows_(rows), d_(d), offset_(map == EdgeMap::shifted_cosine ? 0.5 : 0.0),
        slope_(map == EdgeMap::shifted_cosine ? 0.5 : 1.0), scale_(static_cast<std::size_t>(nodes)) {
    n = nodes;
    has_negative_edges = map == EdgeMap::cosine;
    threads_ = useful_threads(static_cast<double>(n) * static_cast<double>(d) * 0.25, threads);
  }

  // Norms of the rows, and the projection of all ones. Not finite: a value is NaN or infinite. Extreme: squares left
  // the range of double.
  enum class Rows { usable, not_finite, extreme };
  Rows measure() {
    std::vector<char> is_extreme(static_cast<std::size_t>(block_count()), 0);
    clear_partial();
    for_blocks([&](std::int64_t block, std::int64_t first, std::int64_t last) {
      for_fours(first, last, [&](const T* const* four, std::int64_t i, std::int64_t count) {
        double squares[4], weights[4] = {0.0, 0.0, 0.0, 0.0};
        kernels_.squares(four, d_, squares);
        for (std::int64_t r = 0; r < count; ++r) {
          const bool vanishes = sizeof(T) == 8 && squares[r] < 1e-250 && !is_zero(four[r]);
          if (vanishes || !std::isfinite(squares[r])) is_extreme[block] = 1;
          scale_[i + r] = weights[r] = squares[r] > 0.0 ? 1.0 / std::sqrt(squares[r]) : 0.0;
        }
        kernels_.accumulate(four, d_, weights, partial_.data() + block * d_);
      });
    });
    add_partial();
    const bool usable = std::none_of(is_extreme.begin(), is_extreme.end(), [](char extreme) { return extreme != 0; });
    return usable ? Rows::usable : sizeof(T) == 4 ? Rows::not_finite : Rows::extreme;
  }

  void apply(const double* u, double* y) override {
    clear_partial();
    for_blocks([&](std::int64_t block, std::int64_t first, std::int64_t last) {
      for_fours(first, last, [&](const T* const* four, std::int64_t i, std::int64_t count) {
        double weights[4] = {0.0, 0.0, 0.0, 0.0};
        for (std::int64_t r = 0; r < count; ++r) weights[r] = u[i + r] * scale_[i + r];
        kernels_.accumulate(four, d_, weights, partial_.data() + block * d_);
      });
    });
    add_partial();
    const double total = std::accumulate(u, u + n, 0.0);
    for_blocks([&](std::int64_t, std::int64_t first, std::int64_t last) {
      for_fours(first, last, [&](const T* const* four, std::int64_t i, std::int64_t count) {
        double dots[4];
        kernels_.project(four, d_, projection_.data(), dots);
        for (std::int64_t r = 0; r < count; ++r) y[i + r] = value(i + r, dots[r], total, u[i + r]);
      });
    });
  }

  // A whole sweep in one pass over the rows: a row's y_j becomes its next u_j = next_u(block, j, y_j), and while the
  // row is in the cache it is added to the next projection. `u` is overwritten; `total` is its sum.
  template <typename NextU>
  void sweep(double* u, double total, const NextU& next_u) {
    clear_partial();
    for_blocks([&](std::int64_t block, std::int64_t first, std::int64_t last) {
      for_fours(first, last, [&](const T* const* four, std::int64_t i, std::int64_t count) {
        double dots[4], weights[4] = {0.0, 0.0, 0.0, 0.0};
        kernels_.project(four, d_, projection_.data(), dots);
        for (std::int64_t r = 0; r < count; ++r) {
          const std::int64_t row = i + r;
          u[row] = next_u(block, row, value(row, dots[r], total, u[row]));
          weights[r] = u[row] * scale_[row];
        }
        kernels_.accumulate(four, d_, weights, partial_.data() + block * d_);
      });
    });
    add_partial();
  }

  // Sum of all weights, from the projection of all ones that measure() leaves.
  double total_weight() const {
    double square = 0.0, unit_rows = 0.0;
    for (const double value : projection_) square += value * value;
    for (const double scale : scale_) unit_rows += scale > 0.0 ? 1.0 : 0.0;
    const double count = static_cast<double>(n);
    return offset_ * count * (count - 1.0) + slope_ * (square - unit_rows);
  }

  std::int64_t block_count() const { return (n + kBlock - 1) / kBlock; }

  // Equal responses have equal rows.
  void equalise_twins(double* x, const double* teleport, double near) override {
    std::vector<std::int64_t> nodes(static_cast<std::size_t>(n));
    std::iota(nodes.begin(), nodes.end(), 0);
    std::vector<std::uint64_t> keys(nodes.size());
    for_blocks([&](std::int64_t, std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) keys[i] = key_of_row(i);
    });
    share_means_of_twins(nodes, keys, x, teleport, near, [&](std::int64_t i, std::int64_t k) {
      return std::equal(rows_ + i * d_, rows_ + (i + 1) * d_, rows_ + k * d_);
    });
  }

 private:
  static constexpr std::int64_t kBlock = 512;  // rows whose sums one thread makes: fixes the order of summation

  // Entry of W^T u from the row's dot product with the projection; the diagonal's own share is taken out.
  double value(std::int64_t i, double dot, double total, double u) const {
    return offset_ * (total - u) + slope_ * (dot * scale_[i] - (scale_[i] > 0.0 ? u : 0.0));
  }

  void clear_partial() { partial_.assign(static_cast<std::size_t>(block_count() * d_), 0.0); }
  void add_partial() {
    projection_.assign(partial_.begin(), partial_.begin() + d_);
    for (std::int64_t block = 1; block < block_count(); ++block) {
      for (std::int64_t k = 0; k < d_; ++k) projection_[k] += partial_[block * d_ + k];
    }
  }

  template <typename Body>
  void for_blocks(const Body& body) const {
    parallel_for(block_count(), threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        body(block, block * kBlock, std::min(n, (block + 1) * kBlock));
      }
    });
  }

  // body(four rows, first of them, how many are new): the kernels want four, so the last ones may repeat.
  template <typename Body>
  void for_fours(std::int64_t first, std::int64_t last, const Body& body) const {
    for (std::int64_t i = first; i < last; i += 4) {
      const T* four[4];
      for (std::int64_t r = 0; r < 4; ++r) four[r] = rows_ + std::min(i + r, last - 1) * d_;
      body(four, i, std::min<std::int64_t>(4, last - i));
    }
  }

  bool is_zero(const T* row) const {
    return std::all_of(row, row + d_, [](T value) { return value == 0; });
  }

  std::uint64_t key_of_row(std::int64_t i) const {
    std::uint64_t key = 0;
    for (std::int64_t k = 0; k < std::min<std::int64_t>(d_, 16); ++k) {
      const double value = static_cast<double>(rows_[i * d_ + k]) + 0.0;  // -0 counts as 0
      std::uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof(bits));
      key = mix_bits(key ^ bits);
    }
    return key;
  }

  const SweepKernels<T>& kernels_ = sweep_kernels<T>();
  const T* rows_;
  const std::int64_t d_;
  const double offset_, slope_;
  int threads_ = 1;
  std::vector<double> scale_;       // [n] 1 / |row|, 0 for a zero row
  std::vector<double> partial_;     // [blocks, d]
  std::vector<double> projection_;  // [d]
};

// What a sweep adds up in one block, on a cache line of its own.
struct alignas(64) BlockSums {
  double step = 0.0, dangling = 0.0, total = 0.0;
};

// Jacobi sweeps, each one pass over the rows.
template <typename T>
class CosineWalk {
 public:
  CosineWalk(CosineGraph<T>& graph, const RankOptions& options, const std::vector<double>& teleport)
      : graph_(graph), options_(options), teleport_(teleport), inverse_(teleport.size()), u_(teleport.size(), 1.0),
        sums_(static_cast<std::size_t>(graph.block_count())) {}

  RankOutcome run(const double* start, std::vector<double>& x) {
    first_sweep(start, x);
    RankOutcome outcome{0, INFINITY};
    while (outcome.n_iter < options_.max_iter && !(outcome.residual < options_.tol)) {
      outcome.residual = sweep(x);
      ++outcome.n_iter;
    }
    return outcome;
  }

 private:
  // W^T 1, from the projection of all ones: the degrees, which divide the rows and are the first guess.
  void first_sweep(const double* start, std::vector<double>& x) {
    const double a = options_.damping, all = graph_.total_weight();
    graph_.sweep(u_.data(), static_cast<double>(x.size()), [&](std::int64_t block, std::int64_t i, double degree) {
      inverse_[i] = degree > 0.0 ? 1.0 / degree : 0.0;
      x[i] = start != nullptr ? start[i] : all > 0.0 ? a * (degree / all) + (1.0 - a) * teleport_[i] : teleport_[i];
      return note(block, i, x[i]);
    });
    collect();
  }

  double sweep(std::vector<double>& x) {
    const double a = options_.damping, dangling = dangling_;
    graph_.sweep(u_.data(), total_, [&](std::int64_t block, std::int64_t j, double y) {
      const double next = (1.0 - a) * teleport_[j] + a * (y + dangling * teleport_[j]);
      sums_[block].step += std::abs(next - x[j]);
      x[j] = next;
      return note(block, j, next);
    });
    return collect();
  }

  double note(std::int64_t block, std::int64_t i, double x) {
    const double u = x * inverse_[i];
    sums_[block].dangling += inverse_[i] == 0.0 ? x : 0.0;
    sums_[block].total += u;
    return u;
  }

  double collect() {
    double step = 0.0;
    dangling_ = total_ = 0.0;
    for (BlockSums& sums : sums_) {
      step += sums.step;
      dangling_ += sums.dangling;
      total_ += sums.total;
      sums = {};
    }
    return step;
  }

  CosineGraph<T>& graph_;
  const RankOptions& options_;
  const std::vector<double>& teleport_;
  std::vector<double> inverse_, u_;
  std::vector<BlockSums> sums_;
  double dangling_ = 0.0, total_ = 0.0;
};

}  // namespace

template <typename T>
bool rank_large_cosine(const T* rows, std::int64_t n, std::int64_t d, EdgeMap map, const double* teleport,
                       const double* start, const RankOptions& options, int threads, T* scores, RankOutcome* outcome) {
  using Rows = typename CosineGraph<T>::Rows;
  CosineGraph<T> graph(rows, n, d, map, threads);
  const Rows state = graph.measure();
  if (state == Rows::extreme) return false;
  if (state == Rows::not_finite) {
    *outcome = {kBadInput, 0.0};
    return true;
  }
  const std::vector<double> v = teleport_or_uniform(n, teleport);
  std::vector<double> x(v.size());
  if (options.form == RankForm::stochastic) {
    x = v;
    *outcome = CosineWalk<T>(graph, options, v).run(start, x);
  } else {
    first_guess(n, v.data(), v.data(), start, options.damping, false, x.data());
    make_positive(n, x.data());
    *outcome = large_eigenvector(graph, options, v.data(), x.data());
  }
  if (outcome->n_iter < 0) return true;
  // equal rows have equal sums in every sweep: only from an uneven start do they differ
  if (start != nullptr) graph.equalise_twins(x.data(), v.data(), twin_distance(false, options.tol));
  write_scores(n, x.data(), options.form, scores);
  return true;
}

template bool rank_large_cosine<float>(const float*, std::int64_t, std::int64_t, EdgeMap, const double*, const double*,
                                       const RankOptions&, int, float*, RankOutcome*);
template bool rank_large_cosine<double>(const double*, std::int64_t, std::int64_t, EdgeMap, const double*,
                                        const double*, const RankOptions&, int, double*, RankOutcome*);

}  // namespace rlsft
