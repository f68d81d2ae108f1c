// One large graph of cosines, never written down.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "large_ranker.hpp"
#include "large_start.hpp"
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

  // Norms of the rows. Not finite: a value is NaN or infinite. Extreme: squares left the range of double.
  enum class Rows { usable, not_finite, extreme };
  Rows measure() {
    for_blocks([&](std::int64_t, std::int64_t first, std::int64_t last) {
      for_fours(first, last, [&](const T* const* four, std::int64_t i, std::int64_t count) {
        double squares[4];
        kernels_.squares(four, d_, squares);
        std::copy_n(squares, count, scale_.data() + i);
      });
    });
    Rows state = Rows::usable;
    for (double& value : scale_) {
      if (!std::isfinite(value)) return sizeof(T) == 4 ? Rows::not_finite : Rows::extreme;
      if (sizeof(T) == 8 && value < 1e-250) state = Rows::extreme;  // zero rows of doubles too: the matrix tells them apart
      value = value > 0.0 ? 1.0 / std::sqrt(value) : 0.0;
    }
    return state;
  }

  void apply(const double* u, double* y) override {
    const std::int64_t blocks = block_count();
    partial_.assign(static_cast<std::size_t>(blocks * d_), 0.0);
    for_blocks([&](std::int64_t block, std::int64_t first, std::int64_t last) {
      for_fours(first, last, [&](const T* const* four, std::int64_t i, std::int64_t count) {
        double weights[4] = {0.0, 0.0, 0.0, 0.0};
        for (std::int64_t r = 0; r < count; ++r) weights[r] = u[i + r] * scale_[i + r];
        kernels_.accumulate(four, d_, weights, partial_.data() + block * d_);
      });
    });
    for (std::int64_t block = 1; block < blocks; ++block) {
      for (std::int64_t k = 0; k < d_; ++k) partial_[k] += partial_[block * d_ + k];
    }
    const double total = std::accumulate(u, u + n, 0.0);
    for_blocks([&](std::int64_t, std::int64_t first, std::int64_t last) {
      for_fours(first, last, [&](const T* const* four, std::int64_t i, std::int64_t count) {
        double dots[4];
        kernels_.project(four, d_, partial_.data(), dots);
        for (std::int64_t r = 0; r < count; ++r) {
          const double own = scale_[i + r] > 0.0 ? u[i + r] : 0.0;
          y[i + r] = offset_ * (total - u[i + r]) + slope_ * (dots[r] * scale_[i + r] - own);
        }
      });
    });
  }

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

  std::int64_t block_count() const { return (n + kBlock - 1) / kBlock; }

  template <typename Body>
  void for_blocks(const Body& body) const {
    parallel_for(block_count(), threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) body(block, block * kBlock, std::min(n, (block + 1) * kBlock));
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
  std::vector<double> scale_;    // [n] 1 / |row|, 0 for a zero row
  std::vector<double> partial_;  // [blocks, d]
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
  std::vector<double> x;
  if (options.form == RankForm::stochastic) {
    std::vector<double> sums(v.size());
    graph.apply(std::vector<double>(v.size(), 1.0).data(), sums.data());
    x = first_guess(sums, v, start, options.damping, true);
    for (double& sum : sums) sum = sum > 0.0 ? 1.0 / sum : 0.0;
    *outcome = large_jacobi(graph, options, sums, v, x, 0);
  } else {
    x = first_guess(v, v, start, options.damping, false);
    make_positive(x);
    *outcome = large_eigenvector(graph, options, v.data(), x.data());
  }
  if (outcome->n_iter < 0) return true;
  graph.equalise_twins(x.data(), v.data(), twin_distance(start == nullptr, options.tol));
  write_scores(x, options.form, scores);
  return true;
}

template bool rank_large_cosine<float>(const float*, std::int64_t, std::int64_t, EdgeMap, const double*, const double*,
                                       const RankOptions&, int, float*, RankOutcome*);
template bool rank_large_cosine<double>(const double*, std::int64_t, std::int64_t, EdgeMap, const double*,
                                        const double*, const RankOptions&, int, double*, RankOutcome*);

}  // namespace rlsft
