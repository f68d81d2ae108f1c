// Loops that alternate with torch's matrix products. torch's OpenMP workers spin for some milliseconds after a product
// and hold the cores that a second pool would need, so such a loop runs on those very workers.
#pragma once

#include <cstdint>
#include <functional>

namespace rlsft {

// As parallel_for: body(begin, end) over [0, count) in at most `threads` contiguous ranges, exceptions of the lowest
// range rethrown. Runs on the OpenMP runtime that torch has loaded into this process when there is one, and otherwise,
// inside another parallel region, or after fork(), by parallel_for.
void parallel_for_beside_torch(std::int64_t count, int threads,
                               const std::function<void(std::int64_t, std::int64_t)>& body);

// The file of that runtime, or "" where loops run on the pool of parallel.hpp.
const char* torch_team_library();

}  // namespace rlsft
