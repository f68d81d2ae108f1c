#include "rlsft/torch_team.hpp"

#include "rlsft/parallel.hpp"

#ifdef __linux__
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <string>
#include <vector>
#endif

namespace rlsft {

#ifndef __linux__
void parallel_for_beside_torch(std::int64_t count, int threads,
                               const std::function<void(std::int64_t, std::int64_t)>& body) {
  parallel_for(count, threads, body);
}
const char* torch_team_library() { return ""; }
#else

namespace {

// The three entry points of libgomp that a loop needs; found in the loaded library, never linked: a linked copy could
// be a second runtime.
struct Gomp {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;
  int (*in_parallel)() = nullptr;
  std::string path;
};

// Other packages may bring a libgomp of their own: the one beside torch's libraries is torch's.
int remember_gomp(dl_phdr_info* info, std::size_t, void* found) {
  const char* path = info->dlpi_name;
  const char* slash = path ? std::strrchr(path, '/') : nullptr;
  if (!slash || std::strncmp(slash + 1, "libgomp", 7) != 0) return 0;
  std::string& best = *static_cast<std::string*>(found);
  const std::string here(path);
  const bool beside_torch = here.find("/torch/") != std::string::npos || here.find("/torch.libs/") != std::string::npos;
  if (best.empty() || beside_torch) best = here;
  return beside_torch ? 1 : 0;
}

template <typename Function>
bool find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  return function != nullptr;
}

Gomp find_gomp() {
  Gomp gomp;
  dl_iterate_phdr(&remember_gomp, &gomp.path);
  if (gomp.path.empty()) return gomp;
  void* library = dlopen(gomp.path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  const bool complete = library && find(library, "GOMP_parallel", gomp.parallel) &&
                        find(library, "omp_get_thread_num", gomp.thread_num) &&
                        find(library, "omp_get_num_threads", gomp.num_threads) &&
                        find(library, "omp_in_parallel", gomp.in_parallel);
  return complete ? gomp : Gomp{};
}

std::atomic<bool> forked{false};  // libgomp's workers do not survive a fork, and it waits for them for ever

const Gomp& gomp() {
  static const Gomp found = [] {
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
    return find_gomp();
  }();
  return found;
}

struct Loop {
  std::int64_t count;
  const std::function<void(std::int64_t, std::int64_t)>* body;
  std::vector<std::exception_ptr> errors;
};

void run_part(void* argument) {
  Loop& loop = *static_cast<Loop*>(argument);
  const int part = gomp().thread_num(), parts = gomp().num_threads();  // the runtime may give fewer than asked
  try {
    (*loop.body)(loop.count * part / parts, loop.count * (part + 1) / parts);
  } catch (...) {
    loop.errors[static_cast<std::size_t>(part)] = std::current_exception();
  }
}

}  // namespace

void parallel_for_beside_torch(std::int64_t count, int threads,
                               const std::function<void(std::int64_t, std::int64_t)>& body) {
  threads = static_cast<int>(std::min<std::int64_t>(threads, count));
  if (threads <= 1 || !gomp().parallel || forked || gomp().in_parallel()) {
    parallel_for(count, threads, body);
    return;
  }
  Loop loop{count, &body, std::vector<std::exception_ptr>(static_cast<std::size_t>(threads))};
  gomp().parallel(&run_part, &loop, static_cast<unsigned>(threads), 0);
  for (const std::exception_ptr& error : loop.errors) {
    if (error) std::rethrow_exception(error);
  }
}

const char* torch_team_library() { return gomp().parallel ? gomp().path.c_str() : ""; }
#endif

}  // namespace rlsft
