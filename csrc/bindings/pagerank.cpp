#include "bindings.hpp"
#include "rlsft/pagerank.hpp"

namespace rlsft::bindings {
namespace {

using Ids = Array<std::int32_t>;

// The arrays of a graph as Python holds them; `weights` is float32, float64 or None.
SparseGraph view_graph(std::int64_t n, int order, const std::optional<Offsets>& pointers, const std::optional<Ids>& starts,
                       const Ids& ends, const Optional<float>& weights32, const Optional<double>& weights64) {
  require(order >= 0 && order <= 2, "order must be 0 (csr), 1 (csc) or 2 (coo)");
  require(n >= 0 && n < (std::int64_t{1} << 31) - 64, "n must be below 2^31 - 64");
  SparseGraph graph{};
  graph.n = n;
  graph.edges = ends.size();
  graph.order = static_cast<EdgeOrder>(order);
  graph.ends = ends.data();
  graph.weights32 = pointer_or_null(weights32);
  graph.weights64 = pointer_or_null(weights64);
  if (graph.order == EdgeOrder::coo) {
    require(starts.has_value() && starts->size() == graph.edges, "starts must have one entry an edge");
    graph.starts = starts->data();
  } else {
    require(pointers.has_value() && pointers->size() == n + 1, "pointers must be [n + 1]");
    graph.pointers = pointers->data();
  }
  require(!weights32 || weights32->size() == graph.edges, "weights must have one entry an edge");
  require(!weights64 || weights64->size() == graph.edges, "weights must have one entry an edge");
  return graph;
}

std::int64_t narrow(const Offsets& ids, std::int64_t n, int threads, Ids& out) {
  require(out.size() == ids.size(), "out must be as long as ids");
  require(n >= 0 && n < (std::int64_t{1} << 31), "n must be below 2^31");
  std::int32_t* narrowed = out.mutable_data();
  py::gil_scoped_release release;
  return narrow_ids(ids.data(), ids.size(), n, threads, narrowed);
}

py::dict rank(std::int64_t n, int order, const std::optional<Offsets>& pointers, const std::optional<Ids>& starts, const Ids& ends,
              const Optional<float>& weights32, const Optional<double>& weights64, const Optional<double>& teleport,
              const Optional<double>& dangling, const Optional<double>& start, double damping, double tol,
              std::int64_t max_iter, int method, int threads, Array<double>& scores) {
  SparseGraph graph = view_graph(n, order, pointers, starts, ends, weights32, weights64);
  for (const Optional<double>* vector : {&teleport, &dangling, &start}) {
    require(!*vector || (*vector)->size() == n, "teleport, dangling and start must be [n]");
  }
  require(scores.size() == n, "scores must be [n]");
  require(method == 0 || method == 1, "method must be 0 (gauss_seidel) or 1 (jacobi)");
  double* out = scores.mutable_data();
  PagerankOutcome outcome{};
  GraphCheck check{};
  {
    py::gil_scoped_release release;
    check = check_graph(graph, threads);  // whatever Python checked, C++ must not read out of bounds
    if (check.fault == GraphFault::none) {
      if (check.equal_weights) graph.weights32 = nullptr, graph.weights64 = nullptr;  // 1 each means the same, for fewer bytes
      const PagerankOptions options{damping, tol, max_iter, static_cast<SweepMethod>(method)};
      outcome = pagerank(graph, pointer_or_null(teleport), pointer_or_null(dangling), pointer_or_null(start), options,
                         threads, out);
    }
  }
  py::dict result;
  result["fault"] = static_cast<int>(check.fault);
  result["position"] = check.position;
  result["n_iter"] = outcome.n_iter;
  result["residual"] = outcome.residual;
  result["build_ms"] = outcome.build_ms;
  result["sweep_ms"] = outcome.sweep_ms;
  return result;
}

}  // namespace

void bind_pagerank(py::module_& m) {
  m.def("narrow_ids", &narrow, py::arg("ids").noconvert(), py::arg("n"), py::arg("threads"), py::arg("out").noconvert());
  m.def("pagerank", &rank, py::arg("n"), py::arg("order"), py::arg("pointers").noconvert(),
        py::arg("starts").noconvert(), py::arg("ends").noconvert(), py::arg("weights32").noconvert(),
        py::arg("weights64").noconvert(), py::arg("teleport").noconvert(), py::arg("dangling").noconvert(),
        py::arg("start").noconvert(), py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("method"),
        py::arg("threads"), py::arg("scores").noconvert());
}

}  // namespace rlsft::bindings
