#include "pagerank_state.hpp"

#include <algorithm>

namespace rlsft {
namespace {

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

}  // namespace

void build_state(const SparseGraph& graph, const double* teleport, const double* dangling, const double* start,
                 State& state) {
  StateBuilder(graph, teleport, dangling, start, state).build();
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

}  // namespace rlsft
