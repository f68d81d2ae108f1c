#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "fuzz_input.hpp"
#include "rlsft/parallel.hpp"

namespace {

using namespace rlsft_fuzz;

struct Plan {
  std::int64_t count;
  int threads;
  std::int64_t fails_from;  // items from here on throw; `count` for none
  int nested_threads;       // 0: no inner loop
};

// Visits every item once and throws where the plan says; returns the first item of the range that was reported.
std::int64_t run(const Plan& plan, std::vector<std::atomic<int>>& visits, std::vector<std::atomic<int>>& starts) {
  try {
    rlsft::parallel_for(plan.count, plan.threads, [&](std::int64_t begin, std::int64_t end) {
      REQUIRE(0 <= begin && begin < end && end <= plan.count);
      ++starts[begin];
      if (plan.nested_threads == 0) {
        for (std::int64_t i = begin; i < end; ++i) ++visits[i];
      } else {
        rlsft::parallel_for(end - begin, plan.nested_threads, [&](std::int64_t from, std::int64_t to) {
          for (std::int64_t i = from; i < to; ++i) ++visits[begin + i];
        });
      }
      if (end > plan.fails_from) throw begin;
    });
  } catch (std::int64_t begin) {
    return begin;
  }
  return plan.count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  for (std::int64_t loops = in.between(1, 3); loops > 0; --loops) {
    Plan plan{};
    plan.count = in.between(0, 70);
    plan.threads = static_cast<int>(in.between(-1, 4));
    plan.fails_from = in.flag() ? in.between(0, 70) : plan.count;
    plan.nested_threads = static_cast<int>(in.between(0, 3));
    std::vector<std::atomic<int>> visits(static_cast<std::size_t>(plan.count) + 1), starts(visits.size());
    const std::int64_t reported = run(plan, visits, starts);
    std::int64_t first_failing = plan.count, ranges = 0;
    for (std::int64_t i = 0, begin = 0; i < plan.count; ++i) {
      REQUIRE(visits[i] == 1 && starts[i] <= 1);
      if (starts[i] == 1) begin = i;
      ranges += starts[i];
      if (i == plan.fails_from) first_failing = begin;
    }
    REQUIRE(reported == first_failing);
    REQUIRE(ranges <= std::max<std::int64_t>(1, plan.threads));
    REQUIRE(ranges == std::min<std::int64_t>(plan.count, std::max(1, plan.threads)));  // nobody else has the pool here
  }
  const double ns = std::ldexp(static_cast<double>(in.byte()), in.byte() % 64);
  const int requested = static_cast<int>(in.between(-2, 100)), useful = rlsft::useful_threads(ns, requested);
  REQUIRE(useful >= 1 && useful <= std::max(1, requested));
  REQUIRE(rlsft::useful_threads(2 * ns, requested) >= useful);
  return 0;
}
