#include "rlsft/parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace rlsft {
namespace {

using Body = std::function<void(std::int64_t, std::int64_t)>;

class Pool {
 public:
  // Takes the pool for one loop; false when another loop has it.
  bool try_run(std::int64_t count, int threads, const Body& body) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      start_workers(threads - 1);
      body_ = &body;
      count_ = count;
      parts_ = std::min(threads, workers_ + 1);
      pending_ = workers_;
      errors_.assign(static_cast<std::size_t>(parts_), nullptr);
      ++generation_;
    }
    wake_.notify_all();
    run_part(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    body_ = nullptr;
    for (const std::exception_ptr& error : errors_) {
      if (error) std::rethrow_exception(error);
    }
    return true;
  }

 private:
  // A limit on threads or memory may leave fewer than wanted: the loop then runs on those there are.
  void start_workers(int wanted) {
    try {
      for (; workers_ < wanted; ++workers_) std::thread(&Pool::work, this, workers_ + 1, generation_).detach();
    } catch (const std::system_error&) {
    }
  }

  void run_part(int part) {
    if (part >= parts_) return;
    try {
      (*body_)(count_ * part / parts_, count_ * (part + 1) / parts_);
    } catch (...) {
      errors_[static_cast<std::size_t>(part)] = std::current_exception();
    }
  }

  void work(int part, std::uint64_t seen) {
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
      }
      run_part(part);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_;   // held by the caller for a whole loop
  std::mutex mutex_;  // guards everything below
  std::condition_variable wake_, done_;
  const Body* body_ = nullptr;
  std::int64_t count_ = 0;
  int parts_ = 0;
  int workers_ = 0;
  int pending_ = 0;
  std::uint64_t generation_ = 0;
  std::vector<std::exception_ptr> errors_;
};

// Never destroyed: detached workers may outlive static destruction. After fork() the child has no workers, so it
// gets a pool of its own; the parent's object is left behind untouched (its mutexes may be locked for ever).
std::atomic<Pool*> current_pool{nullptr};

Pool& pool() {
  static const bool ready = [] {
    current_pool = new Pool();
    return pthread_atfork(nullptr, nullptr, [] { current_pool = new Pool(); }) == 0;
  }();
  (void)ready;
  return *current_pool;
}

thread_local bool inside_loop = false;

}  // namespace

int useful_threads(double estimated_ns, int requested) {
  const double wanted = std::min(estimated_ns / kMinNsPerThread, 1e6);
  return std::max(1, std::min(requested, static_cast<int>(wanted)));
}

void parallel_for(std::int64_t count, int threads, const Body& body) {
  if (count <= 0) return;
  threads = static_cast<int>(std::min<std::int64_t>(threads, count));
  if (threads > 1 && !inside_loop) {
    const Body marked = [&body](std::int64_t begin, std::int64_t end) {
      inside_loop = true;
      try {
        body(begin, end);
      } catch (...) {
        inside_loop = false;
        throw;
      }
      inside_loop = false;
    };
    if (pool().try_run(count, threads, marked)) return;
  }
  body(0, count);
}

}  // namespace rlsft
