// A small thread pool for loops over independent items. No OpenMP: a second runtime beside torch's oversubscribes
// the cores, and its spinning barriers hurt on a busy machine. Workers here sleep on a condition variable.
#pragma once

#include <cstdint>
#include <functional>

namespace rlsft {

// A thread must have a quarter of a millisecond to do, or waking it costs more than it saves. Builds for tests lower
// it, so that inputs small enough for a sanitizer really use several threads.
#ifndef RLSFT_MIN_NS_PER_THREAD
#define RLSFT_MIN_NS_PER_THREAD 250e3
#endif
constexpr double kMinNsPerThread = RLSFT_MIN_NS_PER_THREAD;

// Threads worth using for work that one thread finishes in `estimated_ns`: at least 1, at most `requested`.
int useful_threads(double estimated_ns, int requested);

// Calls body(begin, end) over [0, count) cut into `threads` contiguous ranges of equal size (static, so that what an
// item computes cannot depend on timing). The caller works on the first range; returns when all are done. Rethrows
// the exception of the lowest range that failed. Runs everything in the caller when threads <= 1, when count < 2,
// or when another loop already holds the pool (a nested or concurrent call): the process has at most one worker less
// than the largest `threads` it was asked for, whoever calls; fewer where the system refuses a thread. Safe after
// fork().
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t, std::int64_t)>& body);

}  // namespace rlsft
