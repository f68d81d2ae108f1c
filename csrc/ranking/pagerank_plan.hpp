// Which rows are computed together in a sweep, and in what order. Private to pagerank*.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "pagerank_layout.hpp"
#include "rlsft/pagerank.hpp"

namespace rlsft {

constexpr std::int64_t kRounds = 16;  // of a Gauss-Seidel sweep: 16 take as many sweeps as row by row does

// Rows that are computed in one go, or a piece of a long row.
struct Task {
  std::int64_t begin, end;  // slices, or entries of ids
};

struct Round {
  std::vector<Task> segments, slices;
  std::int64_t first_row = 0, last_row = 0;  // of the slices
};

// The same for any number of threads. Jacobi is the one-round case.
std::vector<Round> plan_rounds(const InEdges& in, SweepMethod method);

}  // namespace rlsft
