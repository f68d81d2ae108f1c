#include "rlsft/pagerank.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <deque>
#include <type_traits>
#include <vector>

#include "pagerank_kernels.hpp"
#include "pagerank_layout.hpp"
#include "pagerank_plan.hpp"
#include "pagerank_state.hpp"
#include "pagerank_team.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft {
namespace {

static_assert(kSliceLanes == kRowLanes, "the layout and the kernels must agree");

constexpr std::int64_t kSmallGraph = 1 << 17;  // rows whose float64 values fit the second-level cache
constexpr double kFloatStep = 1e-6;           // a float32 copy of the values serves down to this step
constexpr double kNsPerEdge = 0.7;

double milliseconds() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs sweeps that gather `Value` copies of x / strength, over edges with weights of type `Weight`.
template <typename Value, typename Weight>
class Sweeps {
 public:
  Sweeps(State& state, const Weight* weights, const std::vector<Round>& rounds, const PagerankOptions& options)
      : state_(state), weights_(weights), rounds_(rounds), options_(options), values_(state.in.rows + 1) {
    std::int64_t buffered = 0;
    std::size_t slice_tasks = 0;
    for (const Round& round : rounds_) {
      buffered = std::max(buffered, round.last_row - round.first_row);
      slice_tasks += round.slices.size();
    }
    const bool jacobi = options_.method == SweepMethod::jacobi;
    next_ = LargeArray<Value>(jacobi ? state.in.rows + 1 : buffered);
    for (std::int64_t p = 0; p < state.in.rows; ++p) {
      values_[p] = static_cast<Value>(state.x[p] * state.inverse[p]);
    }
    values_[state.in.rows] = Value{0};
    if (jacobi) next_[state.in.rows] = Value{0};
    partial_.assign(rounds_[0].segments.size(), 0.0);
    sums_.assign(slice_tasks + 1, RowSums{});
    for (const Round& round : rounds_) {
      compute_claims_.emplace_back(round.segments.size() + round.slices.size());
      publish_claims_.emplace_back(round.slices.size() + 1);
    }
  }

  // Until the step is below `tol` or max_iter sweeps are done.
  void run(double tol, int threads) {
    tol_ = tol;
    done_ = finished();
    if (!done_) begin_sweep();
    Barrier alone(1), together(threads);
    parallel_for(threads, threads, [&](std::int64_t begin, std::int64_t end) {
      // all in one call: the pool is taken, and this thread works by itself
      const bool works_alone = end - begin == threads;
      work({begin, works_alone ? 1 : threads}, works_alone ? alone : together);
    });
  }

 private:
  bool finished() const { return state_.n_iter >= options_.max_iter || state_.residual < tol_; }

  struct Worker {
    std::int64_t number, count;
  };

  // Which tasks are taken, by the number of the sweep. A worker starts at its own share, so that what it wrote in the
  // last sweep is still in its cache, and then helps out: a thread that lost its core must not hold up the others.
  class Claims {
   public:
    explicit Claims(std::size_t tasks) : taken_(tasks) {}

    template <typename F>
    void each(std::int64_t sweep, Worker worker, F f) {
      const std::size_t all = taken_.size();
      const std::size_t first = all * static_cast<std::size_t>(worker.number) / static_cast<std::size_t>(worker.count);
      for (std::size_t i = 0; i < all; ++i) {
        const std::size_t k = first + i < all ? first + i : first + i - all;
        if (taken_[k].load(std::memory_order_relaxed) == sweep) continue;
        if (taken_[k].exchange(sweep, std::memory_order_relaxed) != sweep) f(k);
      }
    }

   private:
    std::vector<std::atomic<std::int64_t>> taken_;
  };

  void work(Worker worker, Barrier& barrier) {
    const bool leads = worker.number == 0;
    while (!done_) {
      const std::int64_t sweep = state_.n_iter + 1;
      std::size_t first_sum = 1;
      for (std::size_t r = 0; r < rounds_.size(); ++r) {
        compute(rounds_[r], r, first_sum, sweep, worker);
        first_sum += rounds_[r].slices.size();
        barrier.wait();
        publish(rounds_[r], r, sweep, worker);
        barrier.wait();
      }
      if (leads) {
        end_sweep();
        if (!done_) begin_sweep();
      }
      barrier.wait();
    }
  }

  void begin_sweep() {
    old_teleport_ = state_.sent_teleport;
    old_dangling_ = state_.sent_dangling;
    state_.begin_sweep();
  }

  void end_sweep() {
    RowSums all;
    for (const RowSums& part : sums_) {  // in a fixed order
      all.total += part.total;
      all.dangling += part.dangling;
      all.step += part.step;
    }
    state_.end_sweep(all, old_teleport_, old_dangling_);
    if (options_.method == SweepMethod::jacobi) std::swap(values_, next_);
    done_ = finished();
  }

  // Reads the values of earlier rounds and writes beside them, so that it does not matter who is how far.
  void compute(const Round& round, std::size_t r, std::size_t first_sum, std::int64_t sweep, Worker worker) {
    const std::size_t segments = round.segments.size();
    compute_claims_[r].each(sweep, worker, [&](std::size_t k) {
      if (k < segments) {
        compute_segment(round.segments[k], k);
      } else {
        sums_[first_sum + k - segments] = compute_slices(round, round.slices[k - segments]);
      }
    });
  }

  const Weight* weights_at(std::int64_t at) const { return weights_ == nullptr ? nullptr : weights_ + at; }

  void compute_segment(const Task& task, std::size_t k) {
    partial_[k] = kernels_.segment(state_.in.ids.data() + task.begin, weights_at(task.begin), task.end - task.begin,
                                   values_.data());
  }

  RowSums compute_slices(const Round& round, const Task& task) {
    const std::int64_t row = state_.in.first_short + task.begin * kRowLanes;
    const bool jacobi = options_.method == SweepMethod::jacobi;
    const Rows<Value> rows{state_.x.data() + row, state_.inverse.data() + row, state_.row_base() + row,
                           next_.data() + (jacobi ? row : row - round.first_row)};
    return kernels_.slices(state_.in.ids.data(), weights_, state_.in.slice_begin.data() + task.begin,
                           task.end - task.begin, values_.data(), state_.row_mass(), state_.damping, rows);
  }

  void publish(const Round& round, std::size_t r, std::int64_t sweep, Worker worker) {
    const bool jacobi = options_.method == SweepMethod::jacobi;
    publish_claims_[r].each(sweep, worker, [&](std::size_t k) {
      if (k == round.slices.size()) {
        if (!round.segments.empty()) finish_long_rows(jacobi ? next_ : values_);
      } else if (!jacobi) {
        const std::int64_t begin = state_.in.first_short + round.slices[k].begin * kRowLanes;
        const std::int64_t end = state_.in.first_short + round.slices[k].end * kRowLanes;
        const Value* const fresh = next_.data() + (begin - round.first_row);
        std::copy(fresh, fresh + (end - begin), values_.data() + begin);
      }
    });
  }

  void finish_long_rows(const LargeArray<Value>& sent) {
    RowSums sums;
    std::size_t k = 0;
    const std::vector<Task>& segments = rounds_[0].segments;
    for (std::int64_t r = 0; r < state_.in.long_rows; ++r) {
      double sum = 0.0;
      for (; k < segments.size() && segments[k].end <= state_.in.long_begin[r + 1]; ++k) sum += partial_[k];
      const double next = state_.row_mass() * state_.row_base()[r] + state_.damping * sum;
      sums.step += std::abs(next - state_.x[r]);
      sums.total += next;
      if (state_.inverse[r] == 0.0) sums.dangling += next;
      state_.x[r] = next;
      sent[r] = static_cast<Value>(next * state_.inverse[r]);
    }
    sums_[0] = sums;
  }

  State& state_;
  const Weight* const weights_;
  const std::vector<Round>& rounds_;
  const PagerankOptions& options_;
  const PagerankKernels<Value, Weight>& kernels_ = pagerank_kernels<Value, Weight>();
  LargeArray<Value> values_, next_;  // x / strength by position; the sweep's new ones where they are not yet to be seen
  std::vector<double> partial_;      // sums of the segments of long rows
  std::vector<RowSums> sums_;        // long rows, then each task of slices
  std::deque<Claims> compute_claims_, publish_claims_;  // of each round
  double tol_ = 0.0, old_teleport_ = 0.0, old_dangling_ = 0.0;
  bool done_ = false;
};

template <typename Weight>
void sweep(State& state, const Weight* weights, const PagerankOptions& options, int threads) {
  const std::vector<Round> rounds = plan_rounds(state.in, options.method);
  if (state.in.rows > kSmallGraph) {
    Sweeps<float, Weight>(state, weights, rounds, options).run(std::max(options.tol, kFloatStep), threads);
  }
  Sweeps<double, Weight>(state, weights, rounds, options).run(options.tol, threads);
}

void sweep_any(State& state, const PagerankOptions& options, int threads) {
  if (state.in.weights32.data() != nullptr) {
    sweep<float>(state, state.in.weights32.data(), options, threads);
  } else if (state.in.weights64.data() != nullptr) {
    sweep<double>(state, state.in.weights64.data(), options, threads);
  } else {
    sweep<Unweighted>(state, nullptr, options, threads);
  }
}

}  // namespace

PagerankOutcome pagerank(const SparseGraph& graph, const double* teleport, const double* dangling, const double* start,
                         const PagerankOptions& options, int threads, double* scores) {
  if (graph.n == 0) return {0, 0.0, 0.0, 0.0};
  const double begin = milliseconds();
  State state;
  state.damping = options.damping;
  state.in = build_in_edges(graph, teleport, dangling, threads);
  build_state(graph, teleport, dangling, start, state);
  const double built = milliseconds();
  // below that a round is over before a second thread has woken up
  const bool worth = state.in.edges >= kRounds * (std::int64_t{1} << 14);
  const int used = worth ? useful_threads(kNsPerEdge * 10.0 * static_cast<double>(state.in.edges), threads) : 1;
  sweep_any(state, options, used);
  write_scores(state, teleport, dangling, scores);
  return {state.n_iter, state.residual, built - begin, milliseconds() - built};
}

}  // namespace rlsft
