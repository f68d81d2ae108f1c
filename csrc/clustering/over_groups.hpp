// Runs the groups of a batch: a thread takes whole groups, or the threads share the rows of one large set.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "group_clusterer.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft::isodata_detail {

// make_worker(threads) returns, for each part of the groups, a function (group, out) that handles one group after
// another with so many threads, and false when the group's values cannot be used.
template <typename T, typename MakeWorker>
IsodataOutput<T> over_groups(const IsodataInput<T>& input, const IsodataOptions& options, int threads,
                             const MakeWorker& make_worker) {
  const std::int64_t groups = input.num_groups, rows = groups ? input.offsets[groups] : 0;
  const std::int64_t rows_a_group = groups ? std::max<std::int64_t>(1, rows / groups) : 1;
  const std::int64_t clusters = clusters_wanted(options, rows_a_group);
  threads = useful_threads(static_cast<double>(rows) * static_cast<double>(clusters * input.d), threads);
  const std::int64_t parts = groups >= threads ? threads : 1;
  std::vector<IsodataOutput<T>> outputs(static_cast<std::size_t>(parts));
  parallel_for(parts, static_cast<int>(parts), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      const std::int64_t begin = part * groups / parts, end = (part + 1) * groups / parts;
      IsodataOutput<T>& out = outputs[part];
      out.reserve(end - begin, clusters, input.d);
      auto worker = make_worker(parts > 1 ? 1 : threads);
      for (std::int64_t g = begin; g < end && out.bad_group < 0; ++g) {
        if (!worker(g, out)) out.bad_group = g;
      }
    }
  });
  for (std::int64_t part = 1; part < parts; ++part) outputs[0].append(outputs[part]);
  return std::move(outputs[0]);
}

}  // namespace rlsft::isodata_detail
