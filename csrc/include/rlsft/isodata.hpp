// ISODATA: clustering whose number of clusters adapts by splitting and merging, for one set or a batch of groups.
#pragma once

#include <cstdint>
#include <vector>

namespace rlsft {

enum class IsodataVariant { ball_hall, str };
enum class IsodataInit { kmeans_plus_plus, random };
enum class IsodataVarianceKind { trace, max_component_variance, max_component_std };
enum class IsodataStop : std::int8_t { stable = 0, cycle = 1, max_iter = 2, tol = 3 };

// Negative `max_std` and `min_distance` mean "auto": 0.6 times the root of the mean coordinate variance, and 0.75
// times the root of the total variance, of each group. `n_clusters` 0 means min(8, n), or ceil(sqrt(n)) when
// `default_is_sqrt`; `n_init_clusters` 0 means n_clusters; `max_size` 0 means no bound.
struct IsodataOptions {
  IsodataVariant variant = IsodataVariant::ball_hall;
  IsodataInit init = IsodataInit::kmeans_plus_plus;
  std::int64_t n_clusters = 0;       // K
  std::int64_t n_init_clusters = 0;  // N_c
  bool default_is_sqrt = true;
  int max_iter = 20;   // I >= 1
  bool cosine = false; // rows scaled to unit length; for ball_hall the centres too
  std::uint64_t seed = 0;
  // Ball and Hall
  double min_samples = 1;        // theta_N, compared with sums of weights
  double max_std = -1;           // theta_S
  bool split_by_largest = false; // compare the largest coordinate's deviation, not the root mean square of all
  double min_distance = -1;      // theta_C
  std::int64_t max_merges = 2;   // L
  double split_factor = 0.5;     // gamma in (0, 1]
  bool squared_dispersion = false;
  bool discard_as_noise = false;
  bool stop_early = true;
  double tol = 0;                // also stop when two quiet passes moved the centres by at most tol * mean variance
  // STR
  std::int64_t min_size = 0;
  std::int64_t max_size = 0;
  double var_threshold = 0.05;
  IsodataVarianceKind variance_kind = IsodataVarianceKind::trace;
};

template <typename T>
struct IsodataInput {
  const T* points;              // [offsets[num_groups], d]
  std::int64_t d;               // >= 1
  const std::int64_t* offsets;  // [num_groups + 1], from 0, never decreasing
  std::int64_t num_groups;
  const double* start = nullptr;                // [start_offsets[num_groups], d] starting centres, or null
  const std::int64_t* start_offsets = nullptr;  // [num_groups + 1]; at least one centre for a group that has rows
  const double* scores = nullptr;               // [rows] tie-break of the medoids, or null
  const double* weight = nullptr;               // [rows] >= 0, a positive one in every group that has rows; null: ones
};

struct IsodataStep {
  std::int64_t splits, merges, drops, clusters;
};

template <typename T>
struct IsodataOutput {
  std::vector<T> centers;                       // [sum k, d]
  std::vector<std::int64_t> center_offsets{0};  // [num_groups + 1]
  std::vector<std::int64_t> medoids;            // [sum k], row of `points`
  std::vector<IsodataStep> steps;               // one for each pass of each group
  std::vector<std::int64_t> step_offsets{0};    // [num_groups + 1]
  std::vector<IsodataStop> stops;               // [num_groups]
  std::int64_t groups_by_gram = 0;              // groups that the dot products decided, without coordinates
  std::int64_t bad_group = -1;  // the first with NaN, infinity or a value beyond kLargestMagnitude; the rest is useless

  void reserve(std::int64_t groups, std::int64_t clusters, std::int64_t d);
  void close_group(const std::vector<IsodataStep>& group_steps, IsodataStop stop);
  void append(const IsodataOutput& next);
};

// Squared distances of larger values could overflow.
template <typename T>
constexpr double kLargestMagnitude = sizeof(T) == 4 ? 3.4028234663852886e38 : 1e150;

// Clusters every group by itself: a group's result depends neither on its neighbours, nor on where it stands, nor on
// `threads`. labels[i] in 0..k-1 (all used) is the nearest of the group's returned centres, or -1 for noise.
// Sums are float64; values within a relative 1e-10 count as equal and the lowest index wins.
// ball_hall: O(n * k * d) time a pass, O(n^2) for small groups after O(n^2 * d) once; memory O(n + k * d) plus block
// sums of at most 64 MiB or 4 * 2 * k * d values. str: O(n^2 * d) time in the worst case.
// A row of weight w counts as w equal rows; one of weight 0 gets a label and influences nothing. ball_hall only.
// Throws std::invalid_argument when a group with rows has no starting centre, and for weights with variant str.
template <typename T>
IsodataOutput<T> isodata(const IsodataInput<T>& input, const IsodataOptions& options, int threads,
                         std::int32_t* labels);  // [rows], out

// For tests and benches: the assignment step of one set alone, `passes` times after one preparation, with any number
// of rows. sums [k, 2, d] = sums of (x - c) and, on request, of (x - c)^2 over the rows of each centre. Returns how many
// rows the float32 filter left to float64 distances. n >= 1, centers [k, d] with k >= 1, finite, magnitudes <= 1e150.
template <typename T>
std::int64_t isodata_assign(const T* points, std::int64_t n, std::int64_t d, const std::vector<double>& centers,
                            int threads, int passes, bool with_squares, std::int32_t* labels, double* sums);

extern template IsodataOutput<float> isodata(const IsodataInput<float>&, const IsodataOptions&, int, std::int32_t*);
extern template IsodataOutput<double> isodata(const IsodataInput<double>&, const IsodataOptions&, int, std::int32_t*);

}  // namespace rlsft
