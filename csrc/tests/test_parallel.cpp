#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "rlsft/parallel.hpp"

namespace {

void every_item_runs_once() {
  for (const int threads : {1, 2, 3, 8}) {
    for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<int> seen(static_cast<std::size_t>(count), 0);
      rlsft::parallel_for(count, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      for (const int times : seen) CHECK(times == 1);
    }
  }
}

void the_lowest_failing_range_is_reported() {
  std::string message;
  try {
    rlsft::parallel_for(8, 4, [](std::int64_t begin, std::int64_t) {
      if (begin >= 2) throw std::runtime_error("range " + std::to_string(begin));
    });
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  CHECK(message == "range 2");
}

void nested_loops_run_inline() {
  std::atomic<int> total{0};
  rlsft::parallel_for(4, 4, [&](std::int64_t begin, std::int64_t end) {
    rlsft::parallel_for(end - begin, 4, [&](std::int64_t b, std::int64_t e) { total += static_cast<int>(e - b); });
  });
  CHECK(total == 4);
}

void two_callers_do_not_disturb_each_other() {
  std::vector<std::int64_t> sums(2, 0);
  const auto caller = [&sums](std::size_t which) {
    for (int round = 0; round < 200; ++round) {
      std::atomic<std::int64_t> sum{0};
      rlsft::parallel_for(64, 2, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) sum += i;
      });
      sums[which] += sum;
    }
  };
  std::thread other(caller, 1);
  caller(0);
  other.join();
  CHECK(sums[0] == 200 * 64 * 63 / 2);
  CHECK(sums[1] == sums[0]);
}

void small_work_stays_on_one_thread() {
  CHECK(rlsft::useful_threads(1e3, 8) == 1);
  CHECK(rlsft::useful_threads(1e9, 8) == 8);
  CHECK(rlsft::useful_threads(1e9, 0) == 1);
}

}  // namespace

int main() {
  every_item_runs_once();
  the_lowest_failing_range_is_reported();
  nested_loops_run_inline();
  two_callers_do_not_disturb_each_other();
  small_work_stays_on_one_thread();
  return rlsft_test::finish();
}
