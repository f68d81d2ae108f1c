// The module rlsft_kernels._C.
#include "bindings.hpp"
#include "rlsft/cpu.hpp"
#include "rlsft/torch_team.hpp"

namespace rlsft::bindings {

std::int64_t count_groups(const Offsets& offsets, std::int64_t rows) {
  require(offsets.ndim() == 1 && offsets.size() >= 1, "offsets must be one-dimensional and not empty");
  const std::int64_t groups = offsets.size() - 1;
  bool ok = offsets.at(0) == 0 && offsets.at(groups) == rows;
  for (std::int64_t g = 0; g < groups; ++g) ok = ok && offsets.data()[g] <= offsets.data()[g + 1];
  require(ok, "offsets must rise from 0 to the number of rows");
  return groups;
}

std::int64_t count_block_entries(const Offsets& offsets) {
  std::int64_t entries = 0;
  for (std::int64_t g = 0; g + 1 < offsets.size(); ++g) {
    const std::int64_t m = offsets.data()[g + 1] - offsets.data()[g];
    entries += m * m;
  }
  return entries;
}

namespace {

py::dict build_info() {
  py::dict info;
  info["compiler"] = RLSFT_COMPILER;
  info["flags"] = RLSFT_FLAGS;
  info["cuda"] = cuda_facts();
  return info;
}

}  // namespace
}  // namespace rlsft::bindings

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native core of rlsft_kernels. Private: use the functions of rlsft_kernels.";
  m.def("build_info", &rlsft::bindings::build_info);
  m.def("cpu_isa", &rlsft::active_isa_name);
  m.def("torch_team_library", &rlsft::torch_team_library);
  rlsft::bindings::bind_ranking(m);
  rlsft::bindings::bind_isodata(m);
  rlsft::bindings::bind_text(m);
  rlsft::bindings::bind_text_scores(m);
  rlsft::bindings::bind_pagerank(m);
  rlsft::bindings::bind_head(m);
  rlsft::bindings::bind_losses(m);
  rlsft::bindings::bind_outer_product(m);
  rlsft::bindings::bind_cuda(m);
}
