// TextRank of one dense graph by one block: GroupRanker (csrc/ranking), its sums in the same order. A thread takes a
// column; thread 0 adds what must be added one after the other.
#pragma once

#include "block.cuh"
#include "rlsft/textrank.hpp"

namespace rlsft::cuda {

// Vectors of a graph of at most N nodes, in shared memory.
template <int N>
struct RankVectors {
  double sums[N], x[N], u[N], y[N], v[N], moved[N], lost[N];
  double scalar[2];  // what thread 0 tells the others
  int exponents[N], first_twin[N], votes[kMostWarps];
};

struct RankSettings {
  double damping, tol;
  std::int64_t max_iter;
  RankForm form;
  RankMethod method;
  bool allows_negative;
};

// In two lanes of even and odd columns, then the last column of an odd number.
template <typename T>
__device__ double row_sum(const T* weights, int m, int ld, int i) {
  double even = 0.0, odd = 0.0;
  int j = 0;
  for (; j + 2 <= m; j += 2) {
    even += static_cast<double>(weights[i * ld + j]);
    odd += static_cast<double>(weights[i * ld + j + 1]);
  }
  double sum = even + odd;
  if (j < m) sum += static_cast<double>(weights[i * ld + j]);
  return sum;
}

template <typename T, int N>
class BlockRanker {
 public:
  __device__ BlockRanker(RankVectors<N>& vectors, T* weights, int m, int ld, const RankSettings& settings)
      : s_(vectors), weights_(weights), m_(m), ld_(ld), settings_(settings), j_(thread_id()) {}

  // s_.sums holds the sums of the rows. The weights may be rescaled in place; matrix [m, m] is scratch.
  __device__ RankOutcome rank(const double* teleport, const double* start, bool symmetric, double* matrix, T* scores) {
    if (j_ < m_) s_.v[j_] = teleport != nullptr ? teleport[j_] : 1.0 / static_cast<double>(m_);
    __syncthreads();
    RankOutcome outcome;
    if (settings_.form == RankForm::stochastic) {
      if (sizeof(T) == 8) rescale_extreme_rows();
      set_start(start, symmetric);
      outcome = iterate_stochastic();
    } else {
      set_start(start, false);
      make_positive();
      outcome = iterate_eigenvector(matrix);
    }
    if (outcome.n_iter < 0) return outcome;
    equalise_twins(start == nullptr);
    write(scores);
    return outcome;
  }

 private:
  __device__ double weight(int i, int j) const { return static_cast<double>(weights_[i * ld_ + j]); }

  // Runs f in thread 0 and hands its result to all.
  template <typename F>
  __device__ double alone(F f) {
    __syncthreads();
    if (j_ == 0) s_.scalar[0] = f();
    __syncthreads();
    return s_.scalar[0];
  }

  __device__ void set_start(const double* start, bool symmetric) {
    const double total = alone([&] {
      double sum = 0.0;
      for (int i = 0; i < m_; ++i) sum += s_.sums[i];
      return sum;
    });
    const bool by_degree = symmetric && start == nullptr && total > 0.0;
    const double a = settings_.damping;
    if (j_ < m_) {
      const double v = s_.v[j_];
      s_.x[j_] = start != nullptr ? start[j_] : by_degree ? a * (s_.sums[j_] / total) + (1.0 - a) * v : v;
    }
    __syncthreads();
  }

  __device__ void make_positive() {
    const bool has_zero = block_any(j_ < m_ && s_.x[j_] == 0.0, s_.votes);
    if (has_zero && j_ < m_) s_.x[j_] = 0.5 * s_.x[j_] + 0.5 / static_cast<double>(m_);
    __syncthreads();
  }

  // Row scaling by a power of two leaves a row's probabilities as they are, and keeps 1 / sum inside double's range.
  __device__ void rescale_extreme_rows() {
    const double sum = j_ < m_ ? s_.sums[j_] : 0.0;
    const bool extreme = sum != 0.0 && !(sum >= 1e-280 && sum <= 1e280);
    if (!block_any(extreme, s_.votes)) return;
    if (extreme) {
      double largest = 0.0;
      for (int j = 0; j < m_; ++j) largest = weight(j_, j) > largest ? weight(j_, j) : largest;
      const int exponent = ilogb(largest);
      for (int j = 0; j < m_; ++j) {
        weights_[j_ * ld_ + j] = static_cast<T>(scale_by_power(weight(j_, j), -exponent));
      }
    }
    __syncthreads();
    if (j_ < m_) s_.sums[j_] = row_sum(weights_, m_, ld_, j_);
    __syncthreads();
  }

  // Four chains of rows, as sweep_one() of the C++ kernels.
  __device__ double column_sum(const double* u) const {
    double chain[4] = {0.0, 0.0, 0.0, 0.0};
    int i = 0;
    for (; i + 4 <= m_; i += 4) {
#pragma unroll
      for (int r = 0; r < 4; ++r) chain[r] += u[i + r] * weight(i + r, j_);
    }
    for (; i < m_; ++i) chain[0] += u[i] * weight(i, j_);
    return (chain[0] + chain[2]) + (chain[1] + chain[3]);
  }

  // Even entries, then odd ones: the two lanes of the scalar kernels.
  __device__ double lane_sum(const double* values) const {
    double even = 0.0, odd = 0.0;
    for (int j = 0; j < m_; j += 2) {
      even += values[j];
      odd += j + 1 < m_ ? values[j + 1] : 0.0;
    }
    return even + odd;
  }

  __device__ RankOutcome iterate_stochastic() {
    if (j_ < m_) s_.sums[j_] = s_.sums[j_] > 0.0 ? 1.0 / s_.sums[j_] : 0.0;
    __syncthreads();
    std::int64_t left = settings_.max_iter, before = 0;
    if (settings_.method == RankMethod::gauss_seidel) {
      // the last sweep is Jacobi's: its step bounds the error, that of Gauss-Seidel does not
      before = iterate_in_place(left - 1);
      left -= before;
    }
    RankOutcome outcome = jacobi(left);
    outcome.n_iter += before;
    return outcome;
  }

  __device__ void publish(double x) {
    const double inverse = s_.sums[j_];
    s_.lost[j_] = inverse == 0.0 ? x : 0.0;
    s_.u[j_] = x * inverse;
  }

  __device__ RankOutcome jacobi(std::int64_t max_iter) {
    const double a = settings_.damping;
    if (j_ < m_) publish(s_.x[j_]);
    double dangling = alone([&] { return lane_sum(s_.lost); });
    RankOutcome outcome{0, kInfinity};
    while (outcome.n_iter < max_iter && !(outcome.residual < settings_.tol)) {
      double next = 0.0;
      if (j_ < m_) {
        const double v = s_.v[j_];
        next = (1.0 - a) * v + a * (column_sum(s_.u) + dangling * v);
        s_.moved[j_] = magnitude(next - s_.x[j_]);
      }
      __syncthreads();
      if (j_ < m_) {
        s_.x[j_] = next;
        publish(next);
      }
      __syncthreads();
      if (j_ == 0) s_.scalar[0] = lane_sum(s_.moved);
      if (j_ == 32) s_.scalar[1] = lane_sum(s_.lost);
      __syncthreads();
      outcome.residual = s_.scalar[0];
      dangling = s_.scalar[1];
      ++outcome.n_iter;
    }
    return outcome;
  }

  // Gauss-Seidel sweeps in node order that carry the mass; the number of them.
  __device__ std::int64_t iterate_in_place(std::int64_t max_iter) {
    const double a = settings_.damping;
    if (j_ < m_) {
      double y = 0.0;
      for (int i = 0; i < m_; ++i) y += (s_.x[i] * s_.sums[i]) * weight(i, j_);
      s_.y[j_] = y;
    }
    double step = kInfinity;
    std::int64_t n_iter = 0;
    while (n_iter < max_iter && !(step < settings_.tol)) {
      __syncthreads();
      if (j_ == 0) sum_masses();
      __syncthreads();
      const double total = s_.scalar[0], base = (1.0 - a) * total + a * s_.scalar[1];
      double moved = 0.0;
      for (int j = 0; j < m_; ++j) {
        const double change = base * s_.v[j] + a * s_.y[j] - s_.x[j];
        moved += magnitude(change);
        __syncthreads();
        if (j_ == j) s_.x[j] += change;
        const double inverse = s_.sums[j];
        if (j_ < m_ && inverse != 0.0) s_.y[j_] += (change * inverse) * weight(j, j_);
        __syncthreads();
      }
      step = moved / total;
      ++n_iter;
    }
    const double total = alone([&] {
      double sum = 0.0;
      for (int j = 0; j < m_; ++j) sum += s_.x[j];
      return sum;
    });
    if (j_ < m_) s_.x[j_] /= total;
    __syncthreads();
    return n_iter;
  }

  __device__ void sum_masses() {
    double total = 0.0, dangling = 0.0;
    for (int j = 0; j < m_; ++j) {
      total += s_.x[j];
      dangling += s_.sums[j] == 0.0 ? s_.x[j] : 0.0;
    }
    s_.scalar[0] = total;
    s_.scalar[1] = dangling;
  }

  // Closer to 1 the eigenvector is what a singular Katz system falls back to: it must have converged by then.
  static constexpr double kSurelyBelow = 1.0 - 1e-9;

  __device__ RankOutcome iterate_eigenvector(double* matrix) {
    RankOutcome outcome{0, kInfinity};
    double rho = 0.0;
    while (outcome.n_iter < settings_.max_iter && !(outcome.residual < settings_.tol)) {
      if (j_ < m_) s_.y[j_] = apply();
      rho = alone([&] { return l1_norm(s_.y); });
      if (!is_finite(2.0 * rho)) return {kOverflow, 0.0};
      ++outcome.n_iter;
      if (!settings_.allows_negative) {
        const double growth = alone([&] { return largest_growth(); });
        if (settings_.damping * growth <= kSurelyBelow) return katz(matrix, outcome);
      }
      if (rho == 0.0) return katz(matrix, outcome);
      outcome.residual = shifted_step(rho);
    }
    if (outcome.residual < settings_.tol && settings_.damping * rho <= 1.0) return katz(matrix, outcome);
    return outcome;
  }

  // (W^T x)_j, four rows at a time.
  __device__ double apply() const {
    double y = 0.0;
    int i = 0;
    for (; i + 4 <= m_; i += 4) {
      y += (s_.x[i] * weight(i, j_) + s_.x[i + 1] * weight(i + 1, j_)) +
           (s_.x[i + 2] * weight(i + 2, j_) + s_.x[i + 3] * weight(i + 3, j_));
    }
    for (; i < m_; ++i) y += s_.x[i] * weight(i, j_);
    return y;
  }

  __device__ double l1_norm(const double* values) const {
    double sum = 0.0;
    for (int j = 0; j < m_; ++j) sum += magnitude(values[j]);
    return sum;
  }

  // max_j y_j / x_j: an upper bound of rho for non-negative weights and positive x (Collatz, Wielandt).
  __device__ double largest_growth() const {
    double largest = 0.0;
    for (int j = 0; j < m_; ++j) {
      if (s_.y[j] > largest * s_.x[j]) largest = s_.x[j] > 0.0 ? s_.y[j] / s_.x[j] : kInfinity;
    }
    return largest;
  }

  // x <- W^T x + rho/4 x, normalised. The shift changes no eigenvector, and a bipartite graph no longer oscillates.
  __device__ double shifted_step(double rho) {
    if (j_ < m_) s_.y[j_] += 0.25 * rho * s_.x[j_];
    const double norm = alone([&] { return l1_norm(s_.y); });
    if (j_ < m_) {
      const double next = s_.y[j_] / norm;
      s_.moved[j_] = next - s_.x[j_];
      s_.x[j_] = next;
    }
    return alone([&] { return l1_norm(s_.moved); });
  }

  __device__ RankOutcome katz(double* matrix, RankOutcome outcome) {
    if (j_ < m_) {
      for (int i = 0; i < m_; ++i) {
        matrix[j_ * m_ + i] = (i == j_ ? 1.0 : 0.0) - settings_.damping * weight(i, j_);
      }
      s_.y[j_] = s_.v[j_];
    }
    __syncthreads();
    if (solve(matrix)) {
      const double norm = alone([&] { return katz_norm(); });
      if (norm >= 0.0 && j_ < m_) s_.x[j_] = s_.y[j_] / norm;
    }
    __syncthreads();
    return {outcome.n_iter, 0.0};
  }

  // Gauss with partial pivoting of matrix [m, m] and s_.y, by rows: solve_in_place() of the C++ core.
  __device__ bool solve(double* matrix) {
    for (int k = 0; k < m_; ++k) {
      const int pivot = static_cast<int>(alone([&] { return static_cast<double>(pivot_row(matrix, k)); }));
      if (pivot < 0) return false;
      if (pivot != k) swap_rows(matrix, pivot, k);
      __syncthreads();
      if (j_ > k && j_ < m_) {
        const double factor = matrix[j_ * m_ + k] / matrix[k * m_ + k];
        for (int j = k; j < m_; ++j) matrix[j_ * m_ + j] -= factor * matrix[k * m_ + j];
        s_.y[j_] -= factor * s_.y[k];
      }
      __syncthreads();
    }
    alone([&] {
      for (int k = m_ - 1; k >= 0; --k) {
        double value = s_.y[k];
        for (int j = k + 1; j < m_; ++j) value -= matrix[k * m_ + j] * s_.y[j];
        s_.y[k] = value / matrix[k * m_ + k];
      }
      return 0.0;
    });
    return true;
  }

  // The first row with the largest entry of the column, -1 when that is 0.
  __device__ int pivot_row(const double* matrix, int column) const {
    int best = column;
    for (int i = column + 1; i < m_; ++i) {
      if (magnitude(matrix[i * m_ + column]) > magnitude(matrix[best * m_ + column])) best = i;
    }
    return matrix[best * m_ + column] == 0.0 ? -1 : best;
  }

  __device__ void swap_rows(double* matrix, int p, int k) {
    if (j_ < m_) {
      const double upper = matrix[k * m_ + j_];
      matrix[k * m_ + j_] = matrix[p * m_ + j_];
      matrix[p * m_ + j_] = upper;
    }
    if (j_ == 0) {
      const double upper = s_.y[k];
      s_.y[k] = s_.y[p];
      s_.y[p] = upper;
    }
  }

  // The norm of a finite solution without negative entries (rounding is cut off), and -1 otherwise: then a * rho was 1,
  // or above 1 by less than power iteration could tell, and the eigenvector is the limit.
  __device__ double katz_norm() {
    const double norm = l1_norm(s_.y);
    if (!is_finite(norm)) return -1.0;
    for (int j = 0; j < m_ && !settings_.allows_negative; ++j) {
      if (s_.y[j] < -1e-12 * norm) return -1.0;
      s_.y[j] = s_.y[j] < 0.0 ? 0.0 : s_.y[j];
    }
    return l1_norm(s_.y);
  }

  // Nodes that the graph cannot tell apart share their mean: see GroupRanker::equalise_twins.
  __device__ void equalise_twins(bool even_start) {
    const double near = even_start ? 1e-12 : 1e-12 + 10.0 * settings_.tol;
    bool is_close = false;
    if (j_ < m_) {
      for (int i = 0; i < j_; ++i) is_close = is_close || magnitude(s_.x[i] - s_.x[j_]) <= near;
      s_.first_twin[j_] = is_close ? kUnknown : j_;
    }
    if (!block_any(is_close, s_.votes)) return;
    for (int k = 1; k < m_; ++k) {
      if (s_.first_twin[k] == kUnknown) find_twin(k, near);
    }
    double sum = 0.0, size = 0.0;
    if (j_ < m_ && s_.first_twin[j_] == j_) {
      for (int k = 0; k < m_; ++k) {
        if (s_.first_twin[k] != j_) continue;
        sum += s_.x[k];
        size += 1.0;
      }
      s_.y[j_] = sum / size;
    }
    __syncthreads();
    if (j_ < m_) s_.x[j_] = s_.y[s_.first_twin[j_]];
    __syncthreads();
  }

  static constexpr int kUnknown = -1;

  // first_twin[k]: the lowest earlier node that stands for its class and that k is a twin of, or k.
  __device__ void find_twin(int k, double near) {
    const int i = j_;
    const bool is_twin = i < k && s_.first_twin[i] == i && magnitude(s_.x[i] - s_.x[k]) <= near &&
                         s_.v[i] == s_.v[k] && are_twins(i, k);
    const unsigned found = __ballot_sync(kFullWarp, is_twin);
    __syncthreads();  // the votes before these have been read
    if (lane_id() == 0) s_.votes[warp_id()] = static_cast<int>(found);
    __syncthreads();
    if (j_ == 0) {
      int first = k;
      for (int warp = 0; warp * 32 < k && first == k; ++warp) {
        const auto bits = static_cast<unsigned>(s_.votes[warp]);
        if (bits != 0) first = warp * 32 + lowest_bit(bits);
      }
      s_.first_twin[k] = first;
    }
    __syncthreads();
  }

  __device__ bool are_twins(int i, int k) const {
    const T* w = weights_;
    const int ld = ld_;
    bool same = w[i * ld + k] == w[k * ld + i] && w[i * ld + i] == w[k * ld + k];
    for (int j = 0; j < m_ && same; ++j) {
      same = j == i || j == k || (w[i * ld + j] == w[k * ld + j] && w[j * ld + i] == w[j * ld + k]);
    }
    return same;
  }

  __device__ void write(T* scores) {
    double scale = 1.0;
    if (settings_.form == RankForm::eigenvector) {
      scale = alone([&] {
        double largest = s_.x[0], smallest = s_.x[0];
        for (int j = 1; j < m_; ++j) {
          largest = s_.x[j] > largest ? s_.x[j] : largest;
          smallest = s_.x[j] < smallest ? s_.x[j] : smallest;
        }
        return -smallest > largest ? smallest : largest;  // an eigenvector has no sign of its own
      });
    }
    if (j_ < m_) scores[j_] = static_cast<T>(s_.x[j_] / scale);
  }

  RankVectors<N>& s_;
  T* const weights_;
  const int m_, ld_;
  const RankSettings settings_;
  const int j_;
};

}  // namespace rlsft::cuda
