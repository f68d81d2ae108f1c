// isodata() (rlsft/isodata.hpp) for small groups whose points lie on a CUDA device.
#pragma once

#include <cstdint>

#include "rlsft/isodata.hpp"

namespace rlsft::cuda {

constexpr int kMostRows = 256;      // of a group
constexpr int kMostClusters = 512;  // at any time of a run: see most_clusters()

// Device arrays.
template <typename T>
struct IsodataArrays {
  const T* points;              // [offsets[groups], d]
  const std::int64_t* offsets;  // [groups + 1]
  const double* start;          // [groups, starts, d] starting centres, or null
  const double* scores;         // [rows] tie-break of the medoids, or null
  const double* weight;         // [rows] >= 0, a positive one in every group that has rows; null: ones
  double* workspace;            // [blocks, workspace_doubles()]
  std::int32_t* labels;         // [rows], out
  T* centers;                   // [rows, d], out: a group's centres begin at its first row
  std::int64_t* medoids;        // [rows], out: likewise; rows of `points`
  std::int32_t* counts;         // [groups], out: centres
  std::int32_t* steps;          // [groups, max_iter, 4], out: splits, merges, drops, clusters of each pass
  std::int32_t* n_steps;        // [groups], out: passes, kBadPoints for NaN, infinity or a value that is too large
  std::int32_t* stops;          // [groups], out: IsodataStop
};
constexpr std::int32_t kBadPoints = -1;

// The largest number of clusters a group of up to `rows` rows may have on the way; `starts` as in IsodataArrays, or 0.
std::int64_t most_clusters(std::int64_t rows, std::int64_t starts, const IsodataOptions& options);
// Doubles that a block works in.
std::int64_t workspace_doubles(std::int64_t rows, std::int64_t clusters, std::int64_t d, const IsodataOptions& options);

// All work is queued on `stream`. `blocks` blocks take the groups in turn, one at a time, so the workspace need not hold
// all groups. Distances and sums are float64 in a fixed order, with the tie rules of the C++ core: the same clusters,
// passes and medoids. `rows`: of the largest group, at most kMostRows.
// Throws Error when the launch fails, std::invalid_argument for weights with variant str or sizes beyond the limits.
template <typename T>
void isodata(const IsodataArrays<T>& arrays, std::int64_t groups, std::int64_t d, std::int64_t rows,
             std::int64_t starts, const IsodataOptions& options, std::int64_t blocks, void* stream);

}  // namespace rlsft::cuda
