#include "bindings.hpp"
#include "rlsft/similarity.hpp"
#include "rlsft/textrank.hpp"

namespace rlsft::bindings {

RankOptions rank_options(double damping, double tol, std::int64_t max_iter, int form, int method) {
  require(form == 0 || form == 1, "form must be 0 (stochastic) or 1 (eigenvector)");
  require(method >= 0 && method <= 2, "method must be 0 (auto), 1 (gauss_seidel) or 2 (jacobi)");
  return {damping, tol, max_iter, static_cast<RankForm>(form), static_cast<RankMethod>(method)};
}

namespace {

// Runs `rank(outcome)` without the GIL, then spreads the outcomes over the two arrays.
template <typename Rank>
void fill_outcomes(std::int64_t groups, Array<std::int64_t>& n_iter, Array<double>& residual, Rank rank) {
  require(n_iter.size() == groups && residual.size() == groups, "n_iter and residual must have one entry a group");
  std::int64_t* n_iter_out = n_iter.mutable_data();
  double* residual_out = residual.mutable_data();
  py::gil_scoped_release release;
  std::vector<RankOutcome> outcome(static_cast<std::size_t>(groups));
  rank(outcome.data());
  for (std::size_t g = 0; g < outcome.size(); ++g) {
    n_iter_out[g] = outcome[g].n_iter;
    residual_out[g] = outcome[g].residual;
  }
}

template <typename T>
void bind_ranking_for(py::module_& m) {
  m.def(
      "textrank_embeddings",
      [](const Array<T>& rows, const Offsets& offsets, int edge, const Optional<double>& teleport,
         const Optional<double>& start, double damping, double tol, std::int64_t max_iter, int form, int method, int threads,
         Array<T>& scores, Array<std::int64_t>& n_iter, Array<double>& residual) {
        require(rows.ndim() == 2, "rows must be [M, d]");
        require(edge >= 0 && edge <= 2, "edge must be 0, 1 or 2");
        const std::int64_t count = rows.shape(0), d = rows.shape(1);
        const std::int64_t groups = count_groups(offsets, count);
        require(scores.size() == count, "scores must be [M]");
        require(!teleport || teleport->size() == count, "teleport must be [M]");
        require(!start || start->size() == count, "start must be [M]");
        T* out = scores.mutable_data();
        const RankOptions options = rank_options(damping, tol, max_iter, form, method);
        fill_outcomes(groups, n_iter, residual, [&](RankOutcome* outcome) {
          textrank_embeddings<T>(rows.data(), d, offsets.data(), groups, static_cast<EdgeMap>(edge),
                                        pointer_or_null(teleport), pointer_or_null(start), options, threads, out,
                                        outcome);
        });
      },
      py::arg("rows").noconvert(), py::arg("offsets").noconvert(), py::arg("edge"), py::arg("teleport").noconvert(),
      py::arg("start").noconvert(), py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("form"),
      py::arg("method"), py::arg("threads"), py::arg("scores").noconvert(), py::arg("n_iter").noconvert(),
      py::arg("residual").noconvert());
  m.def(
      "textrank_dense",
      [](const Array<T>& weights, const Offsets& offsets, const Optional<double>& teleport,
         const Optional<double>& start, double damping, double tol, std::int64_t max_iter, int form, int method, int threads,
         Array<T>& scores, Array<std::int64_t>& n_iter, Array<double>& residual) {
        const std::int64_t count = scores.size(), groups = count_groups(offsets, count);
        require(weights.size() == count_block_entries(offsets), "weights must hold one m x m block a group");
        require(!teleport || teleport->size() == count, "teleport must be [M]");
        require(!start || start->size() == count, "start must be [M]");
        T* out = scores.mutable_data();
        const RankOptions options = rank_options(damping, tol, max_iter, form, method);
        fill_outcomes(groups, n_iter, residual, [&](RankOutcome* outcome) {
          textrank_dense<T>(weights.data(), offsets.data(), groups, pointer_or_null(teleport),
                                   pointer_or_null(start), options, threads, out, outcome);
        });
      },
      py::arg("weights").noconvert(), py::arg("offsets").noconvert(), py::arg("teleport").noconvert(),
      py::arg("start").noconvert(), py::arg("damping"), py::arg("tol"), py::arg("max_iter"), py::arg("form"),
      py::arg("method"), py::arg("threads"), py::arg("scores").noconvert(), py::arg("n_iter").noconvert(),
      py::arg("residual").noconvert());
  m.def(
      "similarity_groups",
      [](const Array<T>& rows, const Offsets& offsets, int edge, int threads, Array<T>& edges, Array<bool>& ok) {
        require(rows.ndim() == 2, "rows must be [M, d]");
        require(edge >= 0 && edge <= 2, "edge must be 0, 1 or 2");
        const std::int64_t groups = count_groups(offsets, rows.shape(0)), d = rows.shape(1);
        require(edges.size() == count_block_entries(offsets), "edges must hold one m x m block a group");
        require(ok.size() == groups, "ok must have one entry a group");
        T* out = edges.mutable_data();
        bool* ok_out = ok.mutable_data();
        py::gil_scoped_release release;
        similarity_groups<T>(rows.data(), d, offsets.data(), groups, static_cast<EdgeMap>(edge), threads,
                                    out, ok_out);
      },
      py::arg("rows").noconvert(), py::arg("offsets").noconvert(), py::arg("edge"), py::arg("threads"),
      py::arg("edges").noconvert(), py::arg("ok").noconvert());
}

}  // namespace

void bind_ranking(py::module_& m) {
  bind_ranking_for<float>(m);
  bind_ranking_for<double>(m);
}

}  // namespace rlsft::bindings
