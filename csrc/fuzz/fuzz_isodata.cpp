#include <algorithm>
#include <limits>
#include <set>
#include <stdexcept>

#include "fuzz_input.hpp"
#include "rlsft/isodata.hpp"

namespace {

using namespace rlsft_fuzz;
using rlsft::IsodataInit;
using rlsft::IsodataOptions;
using rlsft::IsodataOutput;
using rlsft::IsodataStop;
using rlsft::IsodataVariant;

template <typename T>
struct Problem {
  std::int64_t d;
  std::vector<std::int64_t> offsets;
  std::vector<T> points;
  std::vector<double> start, scores;  // empty: none
  std::vector<std::int64_t> start_offsets;
  IsodataOptions options;

  std::int64_t groups() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

template <typename T>
struct Found {
  std::vector<std::int32_t> labels;
  IsodataOutput<T> out;
  bool refused = false;
};

IsodataOptions read_options(Input& in) {
  IsodataOptions o;
  o.variant = in.flag() ? IsodataVariant::str : IsodataVariant::ball_hall;
  o.init = in.flag() ? IsodataInit::random : IsodataInit::kmeans_plus_plus;
  o.n_clusters = in.between(0, 9);
  o.n_init_clusters = in.between(0, 9);
  o.default_is_sqrt = in.flag();
  o.max_iter = static_cast<int>(in.pick<std::int64_t>({8, 1, 2, 3, 20}));
  o.cosine = in.flag();
  o.seed = in.byte() * 0x0101010101010101ull;
  if (o.variant == IsodataVariant::str) {
    o.min_size = in.between(0, 3);
    o.max_size = in.between(0, 5);
    o.var_threshold = in.pick({0.05, 0.0, 0.5, 3.0});
    o.variance_kind = static_cast<rlsft::IsodataVarianceKind>(in.between(0, 2));
    return o;
  }
  o.min_samples = in.between(1, 5);
  o.max_std = in.pick({-1.0, 0.0, 0.1, 1.0});
  o.split_by_largest = in.flag();
  o.min_distance = in.pick({-1.0, 0.0, 0.5, 4.0});
  o.max_merges = in.between(0, 3);
  o.split_factor = in.pick({0.5, 1.0, 0.01});
  o.squared_dispersion = in.flag();
  o.discard_as_noise = in.flag();
  o.stop_early = !in.flag();
  return o;
}

template <typename T>
Problem<T> read(Input& in) {
  Problem<T> p;
  p.options = read_options(in);
  const std::uint8_t shape = in.byte();
  Reals kind;
  kind.wide = (shape & 1) != 0;
  kind.max_exponent = 498;  // magnitudes up to 1e150
  p.d = in.between(1, 12);
  p.offsets = in.offsets(2, 12);
  p.points = in.rows<T>(p.offsets.back(), p.d, kind);
  if (shape & 2) {
    p.start_offsets = {0};
    for (std::int64_t g = 0; g < p.groups(); ++g) p.start_offsets.push_back(p.start_offsets.back() + in.between(0, 4));
    p.start = in.rows<double>(p.start_offsets.back(), p.d, kind);
  }
  if (shape & 4) {
    for (std::int64_t i = 0; i < p.offsets.back(); ++i) p.scores.push_back(static_cast<double>(in.byte() % 4));
  }
  return p;
}

template <typename T>
Found<T> cluster(const Problem<T>& p, int threads) {
  Found<T> found;
  found.labels.assign(static_cast<std::size_t>(p.offsets.back()), -7);
  rlsft::IsodataInput<T> input{};
  input.points = p.points.data();
  input.d = p.d;
  input.offsets = p.offsets.data();
  input.num_groups = p.groups();
  if (!p.start_offsets.empty()) {
    input.start = p.start.empty() ? reinterpret_cast<const double*>(p.offsets.data()) : p.start.data();
    input.start_offsets = p.start_offsets.data();
  }
  if (!p.scores.empty()) input.scores = p.scores.data();
  try {
    found.out = rlsft::isodata<T>(input, p.options, threads, found.labels.data());
  } catch (const std::invalid_argument&) {
    found.refused = true;
  }
  return found;
}

template <typename T>
bool same(const Found<T>& a, const Found<T>& b) {
  if (a.refused || b.refused) return a.refused == b.refused;
  return a.labels == b.labels && same_bits(a.out.centers, b.out.centers) && a.out.medoids == b.out.medoids &&
         a.out.center_offsets == b.out.center_offsets && a.out.step_offsets == b.out.step_offsets &&
         same_bits(a.out.steps, b.out.steps) && a.out.stops == b.out.stops;
}

template <typename T>
Problem<T> only_group(const Problem<T>& p, std::int64_t g) {
  Problem<T> one = p;
  const std::int64_t first = p.offsets[g], last = p.offsets[g + 1];
  one.offsets = {0, last - first};
  one.points.assign(p.points.begin() + first * p.d, p.points.begin() + last * p.d);
  if (!p.scores.empty()) one.scores.assign(p.scores.begin() + first, p.scores.begin() + last);
  if (!p.start_offsets.empty()) {
    one.start.assign(p.start.begin() + p.start_offsets[g] * p.d, p.start.begin() + p.start_offsets[g + 1] * p.d);
    one.start_offsets = {0, p.start_offsets[g + 1] - p.start_offsets[g]};
  }
  return one;
}

// 1 / length for cosine geometry. Independent of the core: long double, in order.
template <typename T>
long double row_scale(const T* row, std::int64_t d, bool cosine) {
  long double length = 0;
  for (std::int64_t q = 0; q < d; ++q) length += static_cast<long double>(row[q]) * row[q];
  return !cosine ? 1 : length > 0 ? 1 / std::sqrt(length) : 0;
}

template <typename T>
long double distance(const T* row, long double scale, const double* center, std::int64_t d) {
  long double sum = 0;
  for (std::int64_t q = 0; q < d; ++q) {
    const long double gap = row[q] * scale - center[q];
    sum += gap * gap;
  }
  return std::sqrt(sum);
}

// Rows whose squares leave double's range have no direction to speak of.
template <typename T>
bool has_direction(const T* row, std::int64_t d) {
  double largest = 0;
  for (std::int64_t q = 0; q < d; ++q) largest = std::max(largest, std::abs(static_cast<double>(row[q])));
  return largest == 0 || largest > 1e-140;
}

// Squares below double's range count as 0: `slack`.
// The label is the nearest centre, and the lowest one of a clear tie; a medoid is the nearest member.
template <typename T>
void check_labels(const Problem<T>& group, const std::int32_t* labels, const double* centers, std::int64_t k,
                  const std::int64_t* medoids) {
  const std::int64_t n = group.offsets.back(), d = group.d;
  const bool cosine = group.options.cosine;
  const long double slack = cosine ? 1e-13L : 1e-150L, near = 1 + 1e-9L;
  std::vector<long double> own(static_cast<std::size_t>(n), 0), nearest(static_cast<std::size_t>(k), HUGE_VALL);
  std::vector<long double> to(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < n; ++i) {
    const T* row = group.points.data() + i * d;
    if (labels[i] < 0 || (cosine && !has_direction(row, d))) continue;
    const long double scale = row_scale(row, d, cosine);
    for (std::int64_t c = 0; c < k; ++c) to[c] = distance(row, scale, centers + c * d, d);
    const long double smallest = *std::min_element(to.begin(), to.end());
    own[i] = to[labels[i]];
    nearest[labels[i]] = std::min(nearest[labels[i]], own[i]);
    REQUIRE(own[i] <= smallest * near + slack);
    for (std::int64_t c = 0; !cosine && c < labels[i]; ++c) REQUIRE(to[c] > smallest * (1 + 0.4e-10L) - slack);
  }
  for (std::int64_t c = 0; c < k; ++c) {
    REQUIRE(medoids[c] >= 0 && medoids[c] < n && labels[medoids[c]] == c);
    if (cosine && !has_direction(group.points.data() + medoids[c] * d, d)) continue;
    // members which differ by no more than the rounding of the centre are equally near
    const std::vector<T> origin(static_cast<std::size_t>(d));
    const long double length = distance(origin.data(), 1, centers + c * d, d);
    REQUIRE(own[medoids[c]] <= nearest[c] * near + 4 * std::numeric_limits<T>::epsilon() * length + slack);
  }
}

void check_steps(const rlsft::IsodataStep* steps, std::int64_t count, const IsodataOptions& options, std::int64_t n,
                 std::int64_t k, IsodataStop stop) {
  REQUIRE(count >= 1 && count <= options.max_iter);
  REQUIRE(stop != IsodataStop::max_iter || count == options.max_iter);
  for (std::int64_t s = 0; s < count; ++s) {
    REQUIRE(steps[s].splits >= 0 && steps[s].merges >= 0 && steps[s].drops >= 0 && steps[s].clusters >= 1);
    if (s > 0) {
      const std::int64_t change = steps[s].splits - steps[s].merges - steps[s].drops;
      REQUIRE(steps[s].clusters == steps[s - 1].clusters + change);
    }
    if (options.variant == IsodataVariant::ball_hall) {
      REQUIRE(steps[s].merges <= options.max_merges);
      REQUIRE(steps[s].splits == 0 || steps[s].merges == 0);
      REQUIRE(s + 1 < options.max_iter || steps[s].splits + steps[s].merges == 0);
    }
  }
  REQUIRE(k <= steps[count - 1].clusters && k <= n);
}

template <typename T>
void check_group(const Problem<T>& group, const Found<T>& found, std::int64_t g, std::int64_t first) {
  const std::int64_t n = group.offsets.back(), begin = found.out.center_offsets[g];
  const std::int64_t k = found.out.center_offsets[g + 1] - begin;
  const std::int32_t* labels = found.labels.data() + first;
  const std::int64_t steps = found.out.step_offsets[g + 1] - found.out.step_offsets[g];
  if (n == 0) {
    REQUIRE(k == 0 && steps == 0 && found.out.stops[g] == IsodataStop::stable);
    return;
  }
  const bool may_be_noise = group.options.discard_as_noise && group.options.variant == IsodataVariant::ball_hall;
  std::set<std::int32_t> used(labels, labels + n);
  if (may_be_noise) used.erase(-1);
  REQUIRE(static_cast<std::int64_t>(used.size()) == k && k >= 1 && *used.begin() == 0 && *used.rbegin() == k - 1);
  std::vector<std::int64_t> medoids;
  for (std::int64_t c = 0; c < k; ++c) medoids.push_back(found.out.medoids[begin + c] - first);
  const std::vector<double> centers(found.out.centers.begin() + begin * group.d,
                                    found.out.centers.begin() + (begin + k) * group.d);
  REQUIRE(all_finite(centers.data(), k * group.d));
  check_labels(group, labels, centers.data(), k, medoids.data());
  check_steps(found.out.steps.data() + found.out.step_offsets[g], steps, group.options, n, k, found.out.stops[g]);
}

template <typename T>
void run(Input& in) {
  const Problem<T> p = read<T>(in);
  const std::uint8_t twist = in.byte();
  const Found<T> found = cluster(p, 1);
  bool lacks_start = false;
  for (std::int64_t g = 0; g < p.groups() && !p.start_offsets.empty(); ++g) {
    lacks_start = lacks_start || (p.offsets[g] < p.offsets[g + 1] && p.start_offsets[g] == p.start_offsets[g + 1]);
  }
  REQUIRE(found.refused == lacks_start);
  if (found.refused) return;
  REQUIRE(found.out.center_offsets.size() == p.offsets.size() && found.out.step_offsets.size() == p.offsets.size());
  REQUIRE(found.out.stops.size() + 1 == p.offsets.size());
  for (std::int64_t g = 0; g < p.groups(); ++g) {
    const Problem<T> group = only_group(p, g);
    check_group(group, found, g, p.offsets[g]);
    if (twist % 4 == 1) {
      const Found<T> alone = cluster(group, 1);
      REQUIRE(std::equal(alone.labels.begin(), alone.labels.end(), found.labels.begin() + p.offsets[g]));
      REQUIRE(same_bits(alone.out.centers.data(), found.out.centers.data() + found.out.center_offsets[g] * p.d,
                        static_cast<std::int64_t>(alone.out.centers.size())));
    }
  }
  if (twist % 16 == 0) REQUIRE(same(found, cluster(p, 2 + twist / 16 % 2)));  // seldom: a hundred loops wake the pool
  if (twist % 4 == 2) REQUIRE(same(found, cluster(p, 1)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  in.flag() ? run<double>(in) : run<float>(in);
  return 0;
}
