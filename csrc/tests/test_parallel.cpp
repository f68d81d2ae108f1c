#include <atomic>
#include <filesystem>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "rlsft/parallel.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

std::int64_t sum_below(std::int64_t count, int threads) {
  std::vector<std::int64_t> parts(static_cast<std::size_t>(count), 0);  // one owner an item: no lock, no atomic
  rlsft::parallel_for(count, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) parts[static_cast<std::size_t>(i)] = i;
  });
  return std::accumulate(parts.begin(), parts.end(), std::int64_t{0});
}

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

// every mix at once: plain loops, nested ones and ones that throw, with different numbers of threads
void many_callers_at_once() {
  std::atomic<int> wrong{0};
  const auto caller = [&wrong](int which) {
    for (int round = 0; round < 150; ++round) {
      const int threads = 2 + (which + round) % 3;
      if (round % 3 == 0) wrong += sum_below(97, threads) != 97 * 96 / 2;
      if (round % 3 == 1) {
        std::vector<std::int64_t> inner(5, 0);
        rlsft::parallel_for(5, threads, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) inner[static_cast<std::size_t>(i)] = sum_below(40, 3);
        });
        for (const std::int64_t sum : inner) wrong += sum != 40 * 39 / 2;
      }
      if (round % 3 == 2) {
        int caught = 0;
        try {
          rlsft::parallel_for(8, threads, [](std::int64_t, std::int64_t) { throw std::runtime_error("all fail"); });
        } catch (const std::runtime_error&) {
          caught = 1;
        }
        wrong += caught != 1;
      }
    }
  };
  std::vector<std::thread> callers;
  for (int which = 0; which < 4; ++which) callers.emplace_back(caller, which);
  for (std::thread& thread : callers) thread.join();
  CHECK(wrong == 0);
}

void an_exception_of_a_nested_loop_comes_through_and_the_pool_goes_on() {
  for (int round = 0; round < 20; ++round) {
    std::string message;
    try {
      rlsft::parallel_for(6, 3, [](std::int64_t begin, std::int64_t) {
        rlsft::parallel_for(4, 2, [begin](std::int64_t, std::int64_t) {
          if (begin > 0) throw std::runtime_error("outer range " + std::to_string(begin));
        });
      });
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    CHECK(message == "outer range 2");
    CHECK(sum_below(100, 3) == 4950);
  }
}

// Linux lists a process's threads; elsewhere there is nothing to count, and ThreadSanitizer adds one of its own.
int threads_of_this_process() {
#ifdef __SANITIZE_THREAD__
  return -1;
#endif
  const std::filesystem::path tasks = "/proc/self/task";
  if (!std::filesystem::exists(tasks)) return -1;
  return static_cast<int>(std::distance(std::filesystem::directory_iterator(tasks), {}));
}

void workers_are_at_most_one_less_than_the_threads_asked_for() {  // first of all tests: nobody asked for more before
  const int before = threads_of_this_process();
  if (before < 0) return;
  sum_below(1000, 1);
  CHECK(threads_of_this_process() == before);
  for (int round = 0; round < 50; ++round) sum_below(1000, 3);
  CHECK(threads_of_this_process() == before + 2);
  sum_below(2, 64);  // two items need two threads
  CHECK(threads_of_this_process() == before + 2);
  std::atomic<bool> stop{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&stop] {
      while (!stop) sum_below(500, 3);
    });
  }
  int most = 0;
  for (int round = 0; round < 20; ++round) {
    sum_below(500, 3);
    most = std::max(most, threads_of_this_process());
  }
  stop = true;
  for (std::thread& thread : callers) thread.join();
  CHECK(most <= before + 2 + 3);
}

// ThreadSanitizer allows no new threads after the fork of a program with threads.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1  // clang's way to say what GCC defines
#endif
#endif
#if (defined(__unix__) || defined(__APPLE__)) && !defined(__SANITIZE_THREAD__)
bool works_in_a_child(int threads) {
  const pid_t child = fork();
  if (child == 0) _exit(sum_below(1000, threads) == 499500 && sum_below(10, 2) == 45 ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void a_child_process_has_a_pool_of_its_own() {
  CHECK(sum_below(1000, 3) == 499500);
  CHECK(works_in_a_child(3));
  std::atomic<int> good{0};  // forked while the parent's loop holds the pool, from a worker and from the caller
  rlsft::parallel_for(2, 2, [&](std::int64_t, std::int64_t) { good += works_in_a_child(3); });
  CHECK(good == 2);
  CHECK(sum_below(1000, 3) == 499500);
}
#else
void a_child_process_has_a_pool_of_its_own() {}
#endif

void small_work_stays_on_one_thread() {
  using rlsft::kMinNsPerThread;
  CHECK(rlsft::useful_threads(0.9 * kMinNsPerThread, 8) == 1);
  CHECK(rlsft::useful_threads(3.1 * kMinNsPerThread, 8) == 3);
  CHECK(rlsft::useful_threads(1e9 * kMinNsPerThread, 8) == 8);
  CHECK(rlsft::useful_threads(1e9 * kMinNsPerThread, 0) == 1);
}

}  // namespace

int main() {
  workers_are_at_most_one_less_than_the_threads_asked_for();
  every_item_runs_once();
  the_lowest_failing_range_is_reported();
  nested_loops_run_inline();
  two_callers_do_not_disturb_each_other();
  many_callers_at_once();
  an_exception_of_a_nested_loop_comes_through_and_the_pool_goes_on();
  a_child_process_has_a_pool_of_its_own();
  small_work_stays_on_one_thread();
  return rlsft_test::finish();
}
