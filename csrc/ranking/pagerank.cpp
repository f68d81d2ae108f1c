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
#include "pagerank_team.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft {
namespace {

static_assert(kSliceLanes == kRowLanes, "the layout and the kernels must agree");

constexpr std::int64_t kRounds = 16;          // of a Gauss-Seidel sweep: 16 take as many sweeps as row by row does
constexpr std::int64_t kTasksPerRound = 16;   // what the threads of a round share out
constexpr std::int64_t kSegmentEdges = 8192;  // of a long row: hubs must not serialise
constexpr std::int64_t kSmallGraph = 1 << 17;  // rows whose float64 values fit the second-level cache
constexpr double kFloatStep = 1e-6;           // a float32 copy of the values serves down to this step
constexpr double kNsPerEdge = 0.7;

double milliseconds() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Rows that are computed in one go, or a piece of a long row.
struct Task {
  std::int64_t begin, end;  // slices, or entries of ids
};

struct Round {
  std::vector<Task> segments, slices;
  std::int64_t first_row = 0, last_row = 0;  // of the slices
};

// A sum that carries what rounding drops: a million equal terms, one after the other, lose five digits of it.
class ExactSum {
 public:
  void add(double term) {
    const double next = sum_ + term;
    lost_ += std::abs(sum_) >= std::abs(term) ? (sum_ - next) + term : (term - next) + sum_;
    sum_ = next;
  }
  double value() const { return sum_ + lost_; }

 private:
  double sum_ = 0.0, lost_ = 0.0;
};

// Masses that a sweep hands to the next one.
struct Mass {
  double total = 1.0, dangling = 0.0;
};

// What every sweep needs, in the order of positions.
struct State {
  InEdges in;
  double damping = 0.85;
  std::vector<double> x, inverse, base;         // [rows]
  std::vector<double> base_dangling, combined;  // [rows], with a dangling distribution of its own
  double peeled_teleport = 0.0, peeled_teleport_dangling = 0.0;      // sums of v over peeled nodes
  double peeled_distribution = 0.0, peeled_distribution_dangling = 0.0;  // sums of d over them
  Mass mass;
  double sent_teleport = 0.0, sent_dangling = 0.0;  // what multiplies v and d in the current sweep
  std::int64_t n_iter = 0;
  double residual = INFINITY;

  bool has_dangling() const { return !base_dangling.empty(); }

  void begin_sweep() {
    sent_teleport = (1.0 - damping) * mass.total;
    sent_dangling = damping * mass.dangling;
    if (!has_dangling()) {
      sent_teleport += sent_dangling;
      sent_dangling = 0.0;
      return;
    }
    for (std::size_t p = 0; p < combined.size(); ++p) {
      combined[p] = sent_teleport * base[p] + sent_dangling * base_dangling[p];
    }
  }
  const double* row_base() const { return has_dangling() ? combined.data() : base.data(); }
  double row_mass() const { return has_dangling() ? 1.0 : sent_teleport; }

  Mass peeled_mass() const {
    return {sent_teleport * peeled_teleport + sent_dangling * peeled_distribution,
            sent_teleport * peeled_teleport_dangling + sent_dangling * peeled_distribution_dangling};
  }

  // The peeled nodes follow the factors at once, so their step is known without visiting them.
  void end_sweep(const RowSums& rows, double old_teleport, double old_dangling) {
    const Mass peeled = peeled_mass();
    mass = {rows.total + peeled.total, rows.dangling + peeled.dangling};
    const double step = rows.step + std::abs(sent_teleport - old_teleport) * peeled_teleport +
                        std::abs(sent_dangling - old_dangling) * peeled_distribution;
    residual = step / mass.total;
    ++n_iter;
  }
};

std::vector<Task> cut_slices(const std::vector<std::int64_t>& begin, std::int64_t first, std::int64_t last,
                             std::int64_t parts) {
  const auto cost = [&](std::int64_t s) { return begin[s] + 2 * kRowLanes * s; };  // a row costs about two edges
  std::vector<Task> tasks;
  std::int64_t s = first;
  for (std::int64_t k = 1; k <= parts && s < last; ++k) {
    const std::int64_t goal = cost(first) + (cost(last) - cost(first)) * k / parts;
    std::int64_t end = s;
    while (end < last && cost(end) < goal) ++end;
    if (end > s) tasks.push_back({s, end});
    s = end;
  }
  return tasks;
}

std::vector<Task> cut_long_rows(const InEdges& in) {
  std::vector<Task> tasks;
  for (std::int64_t r = 0; r < in.long_rows; ++r) {
    for (std::int64_t e = in.long_begin[r]; e < in.long_begin[r + 1]; e += kSegmentEdges) {
      tasks.push_back({e, std::min(in.long_begin[r + 1], e + kSegmentEdges)});
    }
  }
  return tasks;
}

// The same for any number of threads. Jacobi is the one-round case.
std::vector<Round> plan_rounds(const InEdges& in, SweepMethod method) {
  std::vector<Round> rounds(1);
  rounds[0].segments = cut_long_rows(in);
  const auto slices = static_cast<std::int64_t>(in.slice_begin.size()) - 1;
  const std::int64_t parts = method == SweepMethod::jacobi ? 1 : kRounds;
  for (const Task& range : cut_slices(in.slice_begin, 0, slices, parts)) {
    if (method != SweepMethod::jacobi) rounds.emplace_back();
    Round& round = rounds.back();
    round.slices = cut_slices(in.slice_begin, range.begin, range.end, method == SweepMethod::jacobi ? kRounds * kTasksPerRound : kTasksPerRound);
    round.first_row = in.first_short + range.begin * kRowLanes;
    round.last_row = in.first_short + range.end * kRowLanes;
  }
  return rounds;
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

// v, d and the start by position, and what the peeled nodes hold.
class StateBuilder {
 public:
  StateBuilder(const SparseGraph& graph, const double* teleport, const double* dangling, const double* start,
               State& state)
      : graph_(graph), teleport_(teleport), dangling_(dangling), start_(start), s_(state) {}

  void build() {
    const auto rows = static_cast<std::size_t>(s_.in.rows);
    for (std::vector<double>* array : {&s_.x, &s_.inverse, &s_.base}) array->assign(rows, 0.0);
    if (dangling_ != nullptr) {
      s_.base_dangling.assign(rows, 0.0);
      s_.combined.assign(rows, 0.0);
    }
    for (std::int64_t j = 0; j < s_.in.n; ++j) {
      if (s_.in.position[j] < 0) {
        add_peeled(j);
      } else {
        set_row(j, s_.in.position[j]);
      }
    }
    set_masses();
    if (!is_start_of_use()) {
      s_.x = s_.base;
      set_masses();
    }
  }

 private:
  double teleport(std::int64_t j) const { return teleport_ != nullptr ? teleport_[j] : 1.0 / static_cast<double>(s_.in.n); }

  void add_peeled(std::int64_t j) {
    const bool is_dangling = s_.in.inverse_strength[j] == 0.0;
    const double d = dangling_ != nullptr ? dangling_[j] : 0.0;
    peeled_teleport_.add(teleport(j));
    peeled_distribution_.add(d);
    if (is_dangling) peeled_teleport_dangling_.add(teleport(j));
    if (is_dangling) peeled_distribution_dangling_.add(d);
  }

  void set_row(std::int64_t j, std::int64_t p) {
    const double a = s_.damping;
    s_.inverse[p] = s_.in.inverse_strength[j];
    s_.base[p] = teleport(j) + (s_.in.peels ? a * s_.in.from_peeled_teleport[j] : 0.0);
    if (dangling_ != nullptr) {
      s_.base_dangling[p] = dangling_[j] + (s_.in.peels ? a * s_.in.from_peeled_dangling[j] : 0.0);
    }
    if (start_ != nullptr) {
      s_.x[p] = start_[j];
    } else {  // nearly what a first sweep would make of a uniform start, for nothing
      const auto edges = static_cast<double>(std::max<std::int64_t>(graph_.edges, 1));
      s_.x[p] = (1.0 - a) * s_.base[p] + a * (static_cast<double>(s_.in.degree[j]) / edges);
    }
  }

  void set_masses() {
    s_.peeled_teleport = peeled_teleport_.value();
    s_.peeled_teleport_dangling = peeled_teleport_dangling_.value();
    s_.peeled_distribution = peeled_distribution_.value();
    s_.peeled_distribution_dangling = peeled_distribution_dangling_.value();
    ExactSum total, dangling;
    for (std::size_t p = 0; p < s_.x.size(); ++p) {
      total.add(s_.x[p]);
      if (s_.inverse[p] == 0.0) dangling.add(s_.x[p]);
    }
    const Mass rows{total.value(), dangling.value()};
    s_.mass = {1.0, rows.dangling};  // what the peeled nodes would hold beside these rows
    s_.begin_sweep();
    const Mass peeled = s_.peeled_mass();
    s_.mass = {rows.total + peeled.total, rows.dangling + peeled.dangling};
  }

  // A start may lie on peeled nodes alone, where no sweep reads it: from zero every sweep would give zero, and from next
  // to nothing it would lose digits.
  bool is_start_of_use() const { return s_.mass.total > 0x1p-40; }

  const SparseGraph& graph_;
  const double *teleport_, *dangling_, *start_;
  State& s_;
  ExactSum peeled_teleport_, peeled_teleport_dangling_, peeled_distribution_, peeled_distribution_dangling_;
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

void write_scores(const State& state, const double* teleport, const double* dangling, double* scores) {
  const double uniform = 1.0 / static_cast<double>(state.in.n);
  ExactSum total;
  for (std::int64_t j = 0; j < state.in.n; ++j) {
    const std::int64_t p = state.in.position[j];
    const double v = teleport != nullptr ? teleport[j] : uniform, d = dangling != nullptr ? dangling[j] : 0.0;
    const double x = p >= 0 ? state.x[p] : state.sent_teleport * v + state.sent_dangling * d;
    scores[j] = x;
    total.add(x);
  }
  for (std::int64_t j = 0; j < state.in.n; ++j) scores[j] /= total.value();
}

}  // namespace

PagerankOutcome pagerank(const SparseGraph& graph, const double* teleport, const double* dangling, const double* start,
                         const PagerankOptions& options, int threads, double* scores) {
  if (graph.n == 0) return {0, 0.0, 0.0, 0.0};
  const double begin = milliseconds();
  State state;
  state.damping = options.damping;
  state.in = build_in_edges(graph, teleport, dangling, threads);
  StateBuilder(graph, teleport, dangling, start, state).build();
  const double built = milliseconds();
  // below that a round is over before a second thread has woken up
  const bool worth = state.in.edges >= kRounds * (std::int64_t{1} << 14);
  const int used = worth ? useful_threads(kNsPerEdge * 10.0 * static_cast<double>(state.in.edges), threads) : 1;
  sweep_any(state, options, used);
  write_scores(state, teleport, dangling, scores);
  return {state.n_iter, state.residual, built - begin, milliseconds() - built};
}

}  // namespace rlsft
