#include "rlsft/isodata.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"

namespace {

using rlsft::IsodataInput;
using rlsft::IsodataOptions;
using rlsft::IsodataOutput;
using rlsft::IsodataStop;
using rlsft::IsodataVariant;

template <typename T>
struct Run {
  std::vector<std::int32_t> labels;
  IsodataOutput<T> out;
};

template <typename T>
Run<T> run(const std::vector<T>& points, std::int64_t d, const std::vector<std::int64_t>& offsets,
        const IsodataOptions& options, int threads = 1) {
  Run<T> result;
  result.labels.assign(static_cast<std::size_t>(offsets.back()), -7);
  const IsodataInput<T> input{points.data(), d, offsets.data(), static_cast<std::int64_t>(offsets.size()) - 1};
  result.out = rlsft::isodata<T>(input, options, threads, result.labels.data());
  return result;
}

template <typename T>
bool same(const Run<T>& a, const Run<T>& b) {
  return a.labels == b.labels && a.out.centers == b.out.centers && a.out.medoids == b.out.medoids &&
         a.out.center_offsets == b.out.center_offsets && a.out.step_offsets == b.out.step_offsets &&
         a.out.stops == b.out.stops;
}

std::vector<float> blobs(std::int64_t rows, std::int64_t d, int count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> centers(static_cast<std::size_t>(count * d));
  for (double& c : centers) c = 8 * normal(generator);
  std::vector<float> points;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t q = 0; q < d; ++q) {
      points.push_back(static_cast<float>(centers[(i % count) * d + q] + normal(generator)));
    }
  }
  return points;
}

// labels 0..k-1 all used (or -1 where noise is allowed), medoids members of their clusters, offsets consistent
template <typename T>
void check_shape(const Run<T>& r, const std::vector<std::int64_t>& offsets, std::int64_t d, bool may_be_noise) {
  CHECK(r.out.center_offsets.size() == offsets.size());
  CHECK(r.out.step_offsets.size() == offsets.size());
  CHECK(r.out.centers.size() == r.out.medoids.size() * static_cast<std::size_t>(d));
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    const std::int64_t k = r.out.center_offsets[g + 1] - r.out.center_offsets[g];
    std::set<std::int32_t> used(r.labels.begin() + offsets[g], r.labels.begin() + offsets[g + 1]);
    if (may_be_noise) used.erase(-1);
    CHECK(static_cast<std::int64_t>(used.size()) == k);
    CHECK(used.empty() || (*used.begin() == 0 && *used.rbegin() == k - 1));
    CHECK((k == 0) == (offsets[g] == offsets[g + 1]));
    for (std::int64_t c = 0; c < k; ++c) {
      const std::int64_t medoid = r.out.medoids[r.out.center_offsets[g] + c];
      CHECK(medoid >= offsets[g] && medoid < offsets[g + 1]);
      CHECK(r.labels[medoid] == c);
    }
  }
}

void no_rows_one_row_and_two_rows() {
  for (const IsodataVariant variant : {IsodataVariant::ball_hall, IsodataVariant::str}) {
    IsodataOptions options;
    options.variant = variant;
    options.cosine = variant == IsodataVariant::str;
    const std::vector<std::int64_t> offsets{0, 0, 1, 3, 3};
    const auto r = run<double>({3, 4, 1, 0, 0, 1}, 2, offsets, options);
    check_shape(r, offsets, 2, false);
    CHECK(r.out.center_offsets == (std::vector<std::int64_t>{0, 0, 1, 3, 3}));
    CHECK(r.out.stops[0] == IsodataStop::stable);
    const std::vector<std::int64_t> none{0};
    check_shape(run<double>({}, 2, none, options), none, 2, false);
  }
}

void equal_rows_are_one_cluster() {
  IsodataOptions options;
  options.n_clusters = 4;
  for (const bool cosine : {false, true}) {
    options.cosine = cosine;
    std::vector<double> points;
    for (int i = 0; i < 9; ++i) points.insert(points.end(), {.1, .7, -.3});
    const auto r = run(points, 3, {0, 9}, options);
    CHECK(r.labels == std::vector<std::int32_t>(9, 0));
    for (const rlsft::IsodataStep& step : r.out.steps) CHECK(step.splits == 0 && step.clusters == 1);
  }
}

void two_blobs_from_one_and_from_many_starts() {
  for (const std::int64_t starts : {1, 2, 8}) {
    IsodataOptions options;
    options.n_clusters = 2;
    options.n_init_clusters = starts;
    options.max_std = 5;
    options.min_distance = 3;
    options.split_by_largest = true;
    const auto r = run<double>({-11.5, -10.5, -9.5, -8.5, 8.5, 9.5, 10.5, 11.5}, 1, {0, 8}, options);
    CHECK(r.out.medoids.size() == 2);
    for (int i = 0; i < 8; ++i) CHECK(r.labels[i] == r.labels[i < 4 ? 0 : 4]);
    CHECK(r.labels[0] != r.labels[4]);
    CHECK_NEAR(std::abs(r.out.centers[0]), 10.0, 0.0);
  }
}

void threads_and_neighbours_change_no_bit() {
  const std::vector<float> large = blobs(20000, 9, 5, 1);
  IsodataOptions options;
  options.n_clusters = 6;
  CHECK(same(run(large, 9, {0, 20000}, options, 1), run(large, 9, {0, 20000}, options, 3)));
  const std::vector<std::int64_t> offsets{0, 4000, 4000, 9000, 20000};
  const auto batch = run(large, 9, offsets, options, 2);
  CHECK(same(batch, run(large, 9, offsets, options, 4)));
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    const std::vector<float> part(large.begin() + offsets[g] * 9, large.begin() + offsets[g + 1] * 9);
    const auto alone = run(part, 9, {0, offsets[g + 1] - offsets[g]}, options);
    CHECK(std::equal(alone.labels.begin(), alone.labels.end(), batch.labels.begin() + offsets[g]));
  }
}

void contradicting_bounds_stop() {
  IsodataOptions options;
  options.max_iter = 100000;
  options.n_clusters = 2;
  options.max_std = .1;
  options.min_distance = 50;
  const auto cycle = run(blobs(100, 2, 1, 3), 2, {0, 100}, options);
  CHECK(cycle.out.stops[0] == IsodataStop::cycle);
  CHECK(cycle.out.steps.size() < 50);
  options.variant = IsodataVariant::str;
  options.cosine = true;
  options.min_size = 2;
  options.max_size = 2;
  const auto str = run(blobs(40, 6, 3, 4), 6, {0, 40}, options);
  CHECK(str.out.stops[0] != IsodataStop::max_iter);
}

IsodataOptions random_options(std::mt19937& generator) {
  const auto one_of = [&](std::initializer_list<double> values) {
    return *(values.begin() + generator() % values.size());
  };
  IsodataOptions options;
  options.variant = generator() % 2 ? IsodataVariant::str : IsodataVariant::ball_hall;
  options.init = generator() % 2 ? rlsft::IsodataInit::random : rlsft::IsodataInit::kmeans_plus_plus;
  options.n_clusters = static_cast<std::int64_t>(one_of({0, 1, 3, 9}));
  options.n_init_clusters = static_cast<std::int64_t>(one_of({0, 1, 5, 20}));
  options.max_iter = static_cast<int>(one_of({1, 2, 20}));
  options.cosine = generator() % 2;
  options.seed = generator();
  options.min_samples = one_of({1, 2, 7});
  options.max_std = one_of({-1, 0, .5});
  options.split_by_largest = generator() % 2;
  options.min_distance = one_of({-1, 0, 3});
  options.max_merges = static_cast<std::int64_t>(one_of({0, 1, 4}));
  options.squared_dispersion = generator() % 2;
  options.discard_as_noise = generator() % 2;
  options.stop_early = generator() % 2;
  options.min_size = static_cast<std::int64_t>(one_of({0, 1, 4}));
  options.max_size = static_cast<std::int64_t>(one_of({0, 1, 3}));
  options.var_threshold = one_of({0, .05, 2});
  options.variance_kind = static_cast<rlsft::IsodataVarianceKind>(generator() % 3);
  return options;
}

void random_shapes_and_options_keep_the_contract() {
  std::mt19937 generator(5);
  for (int round = 0; round < 400; ++round) {
    std::vector<std::int64_t> offsets{0};
    for (unsigned g = 0; g < generator() % 5; ++g) offsets.push_back(offsets.back() + generator() % 30);
    const std::int64_t d = 1 + generator() % 20;
    std::vector<float> points = blobs(offsets.back(), d, 1 + generator() % 4, generator());
    if (generator() % 3 == 0) {
      for (float& value : points) value = static_cast<float>(static_cast<int>(value / 4));
    }
    const IsodataOptions options = random_options(generator);
    const auto r = run(points, d, offsets, options);
    check_shape(r, offsets, d, options.discard_as_noise && options.variant == IsodataVariant::ball_hall);
    CHECK(same(r, run(points, d, offsets, options, 4)));
  }
}

// The float32 filter: labels of float64 distances whatever the shape, offset and scale.
template <typename T>
void assignment_is_that_of_float64(double offset, double scale) {
  std::mt19937 generator(7);
  for (int round = 0; round < 60; ++round) {
    const std::int64_t n = 1 + generator() % 300, d = 1 + generator() % 140, k = 1 + generator() % 40;
    const std::vector<float> values = blobs(n + k, d, 5, generator());
    std::vector<T> points;
    for (std::int64_t j = 0; j < n * d; ++j) points.push_back(static_cast<T>(values[j] * scale + offset));
    std::vector<double> centers;
    for (std::int64_t j = n * d; j < (n + k) * d; ++j) centers.push_back(values[j] * scale + offset);
    std::vector<std::int32_t> labels(n), again(n);
    std::vector<double> sums(2 * k * d), sums_again(2 * k * d);
    rlsft::isodata_assign<T>(points.data(), n, d, centers, 1, 1, true, labels.data(), sums.data());
    rlsft::isodata_assign<T>(points.data(), n, d, centers, 3, 2, true, again.data(), sums_again.data());
    CHECK(labels == again && sums == sums_again);
    for (std::int64_t i = 0; i < n; ++i) {
      std::vector<double> distances(k);
      for (std::int64_t c = 0; c < k; ++c) {
        for (std::int64_t q = 0; q < d; ++q) {
          const double difference = static_cast<double>(points[i * d + q]) - centers[c * d + q];
          distances[c] += difference * difference;
        }
      }
      const double smallest = *std::min_element(distances.begin(), distances.end());
      CHECK(labels[i] >= 0 && labels[i] < k && distances[labels[i]] <= smallest * (1 + 1.01e-10));
    }
  }
}

void weights_on_larger_sets_keep_the_contract() {
  std::mt19937 generator(11);
  for (int round = 0; round < 60; ++round) {
    const std::vector<std::int64_t> offsets{0, 90, 90, 200, 900};
    const std::int64_t d = 1 + generator() % 20;
    const std::vector<float> points = blobs(900, d, 4, generator());
    std::vector<double> weight;
    for (int i = 0; i < 900; ++i) weight.push_back(generator() % 3 ? .5 + generator() % 4 : 0);
    IsodataOptions options = random_options(generator);
    options.variant = IsodataVariant::ball_hall;
    Run<float> one, many;
    for (Run<float>* r : {&one, &many}) {
      r->labels.assign(900, -7);
      IsodataInput<float> input{points.data(), d, offsets.data(), 4};
      input.weight = weight.data();
      r->out = rlsft::isodata<float>(input, options, r == &one ? 1 : 4, r->labels.data());
      check_shape(*r, offsets, d, options.discard_as_noise);
      for (const std::int64_t medoid : r->out.medoids) CHECK(weight[medoid] > 0);
    }
    CHECK(same(one, many));
  }
}

void a_group_without_a_start_is_refused() {
  const std::vector<double> points{1, 2};
  const std::vector<std::int64_t> offsets{0, 2}, start_offsets{0, 0};
  std::vector<std::int32_t> labels(2);
  IsodataInput<double> input{points.data(), 1, offsets.data(), 1};
  input.start = points.data();
  input.start_offsets = start_offsets.data();
  bool refused = false;
  try {
    rlsft::isodata<double>(input, {}, 1, labels.data());
  } catch (const std::invalid_argument& error) {
    refused = std::string(error.what()).find("group 0") != std::string::npos;
  }
  CHECK(refused);
}

}  // namespace

int main() {
  no_rows_one_row_and_two_rows();
  equal_rows_are_one_cluster();
  two_blobs_from_one_and_from_many_starts();
  threads_and_neighbours_change_no_bit();
  contradicting_bounds_stop();
  random_shapes_and_options_keep_the_contract();
  assignment_is_that_of_float64<float>(0, 1);
  assignment_is_that_of_float64<float>(5e4, 1);
  assignment_is_that_of_float64<double>(1e7, 1);
  assignment_is_that_of_float64<double>(0, 1e140);
  weights_on_larger_sets_keep_the_contract();
  a_group_without_a_start_is_refused();
  return rlsft_test::finish();
}
