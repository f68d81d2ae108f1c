// What every sweep of PageRank needs and leaves. Private to pagerank*.cpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "pagerank_kernels.hpp"
#include "pagerank_layout.hpp"
#include "rlsft/pagerank.hpp"

namespace rlsft {

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

// Fills what depends on the arguments, by position; state.in and state.damping are set. May be null: teleport, dangling
// and start.
void build_state(const SparseGraph& graph, const double* teleport, const double* dangling, const double* start,
                 State& state);

// The scores of all nodes, peeled ones too, summing to 1.
void write_scores(const State& state, const double* teleport, const double* dangling, double* scores);

}  // namespace rlsft
