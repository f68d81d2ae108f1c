// One large explicit graph.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>

#include "iteration_start.hpp"
#include "large_ranker.hpp"
#include "power_iteration.hpp"
#include "rlsft/dense_kernels.hpp"
#include "rlsft/parallel.hpp"
#include "sweep_kernels.hpp"

namespace rlsft {
namespace {

template <typename T>
class DenseGraph final : public LargeGraph {
 public:
  DenseGraph(const T* weights, std::int64_t nodes, std::int64_t ld, Stored stored, int threads)
      : weights_(weights), ld_(ld), stored_(stored), is_symmetric_(stored == Stored::upper) {
    n = nodes;
    threads_ = useful_threads(static_cast<double>(n) * static_cast<double>(n) * 0.12, threads);
    parts_ = std::clamp<std::int64_t>(n / 64, 1, 16);  // of n alone: the cut decides the order of the sums
  }

  void apply(const double* u, double* y) override {
    if (is_symmetric_) return apply_upper(u, y);
    // the threads share the columns: each y_j is one thread's sum over all rows
    constexpr std::int64_t kStrip = 64;
    parallel_for((n + kStrip - 1) / kStrip, threads_, [&](std::int64_t begin, std::int64_t end) {
      kernels_.sweep(weights_, n, ld_, begin * kStrip, std::min(end * kStrip, n), u, y);
    });
  }

  // False when some weight is negative, NaN or inf.
  bool row_sums(double* sums) {
    std::atomic<bool> valid{true};
    parallel_for(n, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = stored_ == Stored::upper ? i : 0;
        if (!kernels_.row_sums(weights_ + i * ld_ + first, 0, 1, n - first, ld_, sums + i)) valid = false;
      }
    });
    if (valid && stored_ == Stored::upper) {
      apply_upper(std::vector<double>(static_cast<std::size_t>(n), 1.0).data(), sums);
    }
    return valid;
  }

  // Row scaling by a power of two leaves a row's probabilities as they are, and keeps 1 / sum inside double's range.
  void rescale_extreme_rows(std::vector<double>& sums) {
    if (std::none_of(sums.begin(), sums.end(), is_extreme_sum)) return;
    rescaled_.resize(static_cast<std::size_t>(n * n));
    for (std::int64_t i = 0; i < n; ++i) {
      T* to = rescaled_.data() + i * n;
      for (std::int64_t j = 0; j < n; ++j) to[j] = at(i, j);
      if (!is_extreme_sum(sums[i])) continue;
      const int exponent = std::ilogb(*std::max_element(to, to + n));
      for (std::int64_t j = 0; j < n; ++j) to[j] = static_cast<T>(std::ldexp(static_cast<double>(to[j]), -exponent));
    }
    weights_ = rescaled_.data();
    ld_ = n;
    stored_ = Stored::all;
    is_symmetric_ = false;
    row_sums(sums.data());
  }

  // A symmetric graph starts from its degrees, and half of it is read: worth one look at all pairs.
  bool detect_symmetry() {
    if (!is_symmetric_) is_symmetric_ = looks_symmetric() && equals_its_transpose();
    return is_symmetric_;
  }

  void equalise_twins(double* x, const double* teleport, double near) override {
    const std::vector<std::int64_t> nodes = close_nodes(x, near);
    if (nodes.empty()) return;
    std::vector<std::uint64_t> keys(static_cast<std::size_t>(n), 0);
    parallel_for(static_cast<std::int64_t>(nodes.size()), threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) keys[nodes[k]] = key_of_row(nodes[k]);
    });
    share_means_of_twins(nodes, keys, x, teleport, near,
                         [&](std::int64_t i, std::int64_t k) { return are_twins(i, k); });
  }

  const T* weights() const { return weights_; }
  std::int64_t ld() const { return ld_; }

 private:
  T at(std::int64_t i, std::int64_t j) const {
    return stored_ == Stored::upper && j < i ? weights_[j * ld_ + i] : weights_[i * ld_ + j];
  }

  // Parts of equal area, each with a vector of its own that starts at its first row.
  void apply_upper(const double* u, double* y) {
    partial_.resize(static_cast<std::size_t>(parts_ * n));
    parallel_for(parts_, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t part = begin; part < end; ++part) {
        double* mine = partial_.data() + part * n;
        std::fill(mine + first_row(part), mine + n, 0.0);
        kernels_.sweep_upper(weights_, n, ld_, first_row(part), first_row(part + 1), u, mine);
      }
    });
    std::copy_n(partial_.data(), n, y);
    for (std::int64_t part = 1; part < parts_; ++part) {
      const double* more = partial_.data() + part * n;
      for (std::int64_t j = first_row(part); j < n; ++j) y[j] += more[j];
    }
  }

  std::int64_t first_row(std::int64_t part) const {
    if (part >= parts_) return n;
    const double share = 1.0 - std::sqrt(1.0 - static_cast<double>(part) / static_cast<double>(parts_));
    return static_cast<std::int64_t>(share * static_cast<double>(n)) / 4 * 4;
  }

  bool looks_symmetric() const {
    std::uint64_t state = 1;
    for (int k = 0; k < 2048; ++k) {
      state = mix_bits(state + 0x9e3779b97f4a7c15ULL);
      const auto i = static_cast<std::int64_t>(state % static_cast<std::uint64_t>(n));
      const auto j = static_cast<std::int64_t>((state >> 20) % static_cast<std::uint64_t>(n));
      if (weights_[i * ld_ + j] != weights_[j * ld_ + i]) return false;
    }
    return true;
  }

  bool equals_its_transpose() const {
    constexpr std::int64_t kSide = 16;
    std::atomic<bool> equal{true};
    const std::int64_t strips = (n + kSide - 1) / kSide;
    parallel_for(strips, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t strip = begin; strip < end && equal; ++strip) {
        const std::int64_t i0 = strip * kSide, i1 = std::min(i0 + kSide, n);
        T turned[kSide * kSide];  // reading down a column for each pair would take five times as long
        bool same = true;
        for (std::int64_t j0 = 0; j0 < i1; j0 += kSide) {
          const std::int64_t j1 = std::min(j0 + kSide, n);
          for (std::int64_t j = j0; j < j1; ++j) {
            for (std::int64_t i = i0; i < i1; ++i) turned[(i - i0) * kSide + j - j0] = weights_[j * ld_ + i];
          }
          for (std::int64_t i = i0; i < i1; ++i) {
            const T *row = weights_ + i * ld_ + j0, *column = turned + (i - i0) * kSide;
            int differ = 0;
            for (std::int64_t k = 0; k < j1 - j0; ++k) differ |= row[k] != column[k];
            same &= differ == 0;
          }
        }
        if (!same) equal = false;
      }
    });
    return equal;
  }

  std::vector<std::int64_t> close_nodes(const double* x, double near) const {
    std::vector<std::int64_t> order(static_cast<std::size_t>(n)), close;
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [x](std::int64_t a, std::int64_t b) { return x[a] < x[b]; });
    for (std::int64_t k = 0; k < n; ++k) {
      const bool after = k > 0 && x[order[k]] - x[order[k - 1]] <= near;
      const bool before = k + 1 < n && x[order[k + 1]] - x[order[k]] <= near;
      if (after || before) close.push_back(order[k]);
    }
    return close;
  }

  // Twins have the same weights in their rows, though not in the same order: a sum that forgets the order.
  std::uint64_t key_of_row(std::int64_t i) const {
    std::uint64_t key = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const double weight = static_cast<double>(at(i, j)) + 0.0;  // -0 counts as 0
      std::uint64_t bits = 0;
      std::memcpy(&bits, &weight, sizeof(bits));
      key += mix_bits(bits);
    }
    return key;
  }

  bool are_twins(std::int64_t i, std::int64_t k) const {
    if (at(i, k) != at(k, i) || at(i, i) != at(k, k)) return false;
    for (std::int64_t j = 0; j < n; ++j) {
      if (j != i && j != k && at(i, j) != at(k, j)) return false;
    }
    for (std::int64_t j = 0; !is_symmetric_ && j < n; ++j) {
      if (j != i && j != k && at(j, i) != at(j, k)) return false;
    }
    return true;
  }

  const SweepKernels<T>& kernels_ = sweep_kernels<T>();
  const T* weights_;
  std::int64_t ld_;
  Stored stored_;
  bool is_symmetric_;
  int threads_ = 1;
  std::int64_t parts_ = 1;
  std::vector<double> partial_;  // [parts, n]
  std::vector<T> rescaled_;
};

template <typename T>
RankOutcome stochastic(DenseGraph<T>& graph, const RankOptions& options, std::vector<double>& sums,
                       const std::vector<double>& v, std::vector<double>& x) {
  for (double& sum : sums) sum = sum > 0.0 ? 1.0 / sum : 0.0;
  std::int64_t before = 0;
  if (options.method == RankMethod::gauss_seidel) {
    const PaddedGraph<T> explicit_graph{graph.weights(), graph.n, graph.ld(), sums.data(), v.data()};
    const SweepLimits limits{options.damping, options.tol, options.max_iter - 1};
    std::vector<double> y(x.size());
    double residual = INFINITY;
    before = sweep_kernels<T>().iterate_in_place(explicit_graph, limits, x.data(), y.data(), &residual);
  }
  return large_jacobi(graph, options, sums, v, x, before);
}

}  // namespace

template <typename T>
RankOutcome rank_large_dense(const T* weights, std::int64_t n, std::int64_t ld, Stored stored, bool allow_negative,
                             const double* teleport, const double* start, const RankOptions& options, int threads,
                             T* scores) {
  DenseGraph<T> graph(weights, n, ld, stored, threads);
  graph.has_negative_edges = allow_negative;
  std::vector<double> sums(static_cast<std::size_t>(n));
  if (!graph.row_sums(sums.data()) && !allow_negative) return {kBadInput, 0.0};
  const std::vector<double> v = teleport_or_uniform(n, teleport);
  std::vector<double> x(v.size());
  RankOutcome outcome;
  if (options.form == RankForm::stochastic) {
    graph.rescale_extreme_rows(sums);
    first_guess(n, sums.data(), v.data(), start, options.damping, graph.detect_symmetry(), x.data());
    outcome = stochastic(graph, options, sums, v, x);
  } else {
    first_guess(n, sums.data(), v.data(), start, options.damping, false, x.data());
    make_positive(n, x.data());
    outcome = large_eigenvector(graph, options, v.data(), x.data());
  }
  if (outcome.n_iter < 0) return outcome;
  graph.equalise_twins(x.data(), v.data(), twin_distance(start == nullptr, options.tol));
  write_scores(n, x.data(), options.form, scores);
  return outcome;
}

template RankOutcome rank_large_dense<float>(const float*, std::int64_t, std::int64_t, Stored, bool, const double*,
                                             const double*, const RankOptions&, int, float*);
template RankOutcome rank_large_dense<double>(const double*, std::int64_t, std::int64_t, Stored, bool, const double*,
                                              const double*, const RankOptions&, int, double*);

}  // namespace rlsft
