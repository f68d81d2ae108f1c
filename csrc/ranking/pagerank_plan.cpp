#include "pagerank_plan.hpp"

#include <algorithm>

#include "pagerank_kernels.hpp"

namespace rlsft {
namespace {

constexpr std::int64_t kTasksPerRound = 16;   // what the threads of a round share out
constexpr std::int64_t kSegmentEdges = 8192;  // of a long row: hubs must not serialise

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

}  // namespace

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

}  // namespace rlsft
