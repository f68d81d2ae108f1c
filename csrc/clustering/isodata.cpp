// ISODATA on a batch: a thread takes whole groups, or the threads share the rows of one large set.
#include "rlsft/isodata.hpp"

#include <algorithm>
#include <utility>

#include "group_clusterer.hpp"
#include "rlsft/parallel.hpp"

namespace rlsft {

template <typename T>
void IsodataOutput<T>::reserve(std::int64_t groups, std::int64_t clusters, std::int64_t d) {
  // a half more than wanted: growing means to copy, and fresh pages cost more than the clustering of small groups
  const std::size_t count = static_cast<std::size_t>(groups * (clusters + (clusters + 1) / 2));
  centers.reserve(count * static_cast<std::size_t>(d));
  medoids.reserve(count);
  for (auto* offsets : {&center_offsets, &step_offsets}) offsets->reserve(static_cast<std::size_t>(groups) + 1);
  stops.reserve(static_cast<std::size_t>(groups));
}

template <typename T>
void IsodataOutput<T>::close_group(const std::vector<IsodataStep>& group_steps, IsodataStop stop) {
  steps.insert(steps.end(), group_steps.begin(), group_steps.end());
  center_offsets.push_back(static_cast<std::int64_t>(medoids.size()));
  step_offsets.push_back(static_cast<std::int64_t>(steps.size()));
  stops.push_back(stop);
}

template <typename T>
void IsodataOutput<T>::append(const IsodataOutput& next) {
  const std::int64_t first_center = center_offsets.back(), first_step = step_offsets.back();
  centers.insert(centers.end(), next.centers.begin(), next.centers.end());
  medoids.insert(medoids.end(), next.medoids.begin(), next.medoids.end());
  steps.insert(steps.end(), next.steps.begin(), next.steps.end());
  stops.insert(stops.end(), next.stops.begin(), next.stops.end());
  for (std::size_t g = 1; g < next.center_offsets.size(); ++g) {
    center_offsets.push_back(first_center + next.center_offsets[g]);
    step_offsets.push_back(first_step + next.step_offsets[g]);
  }
  groups_by_gram += next.groups_by_gram;
  if (bad_group < 0) bad_group = next.bad_group;
}

template <typename T>
IsodataOutput<T> isodata(const IsodataInput<T>& input, const IsodataOptions& options, int threads,
                         std::int32_t* labels) {
  const std::int64_t groups = input.num_groups, rows = groups ? input.offsets[groups] : 0;
  const std::int64_t rows_a_group = groups ? std::max<std::int64_t>(1, rows / groups) : 1;
  const double pass_ns =
      static_cast<double>(rows) * static_cast<double>(isodata_detail::clusters_wanted(options, rows_a_group) * input.d);
  threads = useful_threads(pass_ns, threads);
  // many groups: a thread takes whole groups; few and large ones: the threads share each group's rows
  const std::int64_t parts = groups >= threads ? threads : 1;
  std::vector<IsodataOutput<T>> outputs(static_cast<std::size_t>(parts));
  parallel_for(parts, static_cast<int>(parts), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      isodata_detail::GroupClusterer<T> clusterer(input, options, parts > 1 ? 1 : threads);
      IsodataOutput<T>& out = outputs[part];
      const std::int64_t part_begin = part * groups / parts, part_end = (part + 1) * groups / parts;
      out.reserve(part_end - part_begin, isodata_detail::clusters_wanted(options, rows_a_group), input.d);
      for (std::int64_t g = part_begin; g < part_end; ++g) {
        const std::int64_t begin = input.offsets[g];
        const double* scores = input.scores == nullptr ? nullptr : input.scores + begin;
        if (clusterer.cluster(g, nullptr, scores, labels + begin, out)) continue;
        out.bad_group = g;
        break;
      }
    }
  });
  for (std::int64_t part = 1; part < parts; ++part) outputs[0].append(outputs[part]);
  return std::move(outputs[0]);
}

template struct IsodataOutput<float>;
template struct IsodataOutput<double>;
template IsodataOutput<float> isodata(const IsodataInput<float>&, const IsodataOptions&, int, std::int32_t*);
template IsodataOutput<double> isodata(const IsodataInput<double>&, const IsodataOptions&, int, std::int32_t*);

}  // namespace rlsft
