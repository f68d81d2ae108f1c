// The nearest centre of every row. A float32 kernel ranks the centres and tells, by a bound on its rounding errors,
// which rows it cannot decide; those are decided by float64 distances, so that the labels are those of float64.
#include <atomic>
#include <cmath>

#include "isodata_common.hpp"
#include "rlsft/scratch.hpp"

namespace rlsft::isodata_detail {
namespace {

constexpr double kFloatRounding = 0x1.0p-24, kDoubleRounding = 0x1.0p-53;
constexpr double kLargestNorm = 1e15;  // of a centre, in units: its square must stay far from the float32 limit
constexpr float kNoCenter = 3e38f;

// Around up to 1024 rows spread over the set: the anchor need not be exact.
template <typename T>
std::vector<T> middle(const Rows<T>& rows) {
  const std::int64_t step = (rows.n + 1023) / 1024, count = (rows.n + step - 1) / step;
  std::vector<T> anchor(static_cast<std::size_t>(rows.d));
  for (std::int64_t q = 0; q < rows.d; ++q) {
    double sum = 0;
    for (std::int64_t i = 0; i < rows.n; i += step) sum += rows.at(i, q) - rows.at(0, q);
    anchor[q] = static_cast<T>(rows.at(0, q) + sum / static_cast<double>(count));
  }
  return anchor;
}

double unit_for(double largest_norm) {
  if (largest_norm == 0 || (largest_norm > 0x1.0p-40 && largest_norm < 0x1.0p40)) return 1;
  return std::ldexp(1.0, std::max(-1000, std::min(1000, -std::ilogb(largest_norm))));
}

struct PackedCenters {
  Scratch<float> values, halves;
  nearest::Panels panels{};
  bool is_usable = false;
};

// The two best float32 scores s = x.c - |c|^2 / 2 differ by `gap`, so the squared distances by at least 2 (gap - 2 E):
//   E = e (r C + C^2 / 2), with r <= (r^2 / R + R) / 2 for the radius R of the set, bounds the error of one score:
//   d + 2 additions and products and three roundings of inputs,
//   each 2^-24, for a row of norm r and the largest centre C; denormal products add a constant.
// The float64 code calls the centre unique if the second distance exceeds the first, at most (r + C)^2, by the tie
// rule and by its own rounding.
void set_margin(nearest::Panels& panels, double largest, double radius, double floor, double unit) {
  const double row_error = floor > 0 ? 0x1.0p-50 * unit : 0;
  const double d = static_cast<double>(panels.d);
  const double e = 1.01 * (d + 8) * kFloatRounding;
  const double tie = 0.6 * (kTie + 4 * (d + 8) * kDoubleRounding);
  const double tiny = (d + 1) * 0x1.0p-118;
  const double constant = (e + tie) * largest * largest + row_error * largest + 0.6 * floor * unit * unit +
                          tiny * (1 + largest);
  const double linear = (2 * e + 2 * tie) * largest + tiny;
  panels.margin[0] = static_cast<float>(1.001 * (constant + linear * radius / 2));
  panels.margin[1] = static_cast<float>(1.001 * (tie + linear / (2 * radius)));
}

template <typename T>
void pack_centers(const Rows<T>& rows, const std::vector<double>& centers, std::int64_t lanes, PackedCenters& packed) {
  const RowFilter<T>& filter = *rows.filter;
  const std::int64_t d = rows.d, k = static_cast<std::int64_t>(centers.size()) / d, count = (k + lanes - 1) / lanes;
  float* values = packed.values.reserve(count * d * lanes);
  float* halves = packed.halves.reserve(count * lanes);
  double largest = 0;
  for (std::int64_t c = 0; c < count * lanes; ++c) {
    float* lane = values + c / lanes * d * lanes + c % lanes;
    double squared = 0;
    for (std::int64_t q = 0; q < d; ++q) {
      const double value = c < k ? (centers[c * d + q] - static_cast<double>(filter.anchor[q])) * filter.unit : 0.0;
      squared += value * value;
      lane[q * lanes] = std::abs(value) <= kLargestNorm ? static_cast<float>(value) : 0.0f;
    }
    if (!(squared <= kLargestNorm * kLargestNorm)) return;
    halves[c] = c < k ? static_cast<float>(squared / 2) : kNoCenter;
    largest = std::max(largest, std::sqrt(squared));
  }
  packed.panels = {values, halves, count, d, {}};
  set_margin(packed.panels, largest, filter.radius, rows.floor, filter.unit);
  packed.is_usable = true;
}

std::uint32_t all_of(std::int64_t count) { return static_cast<std::uint32_t>((std::uint64_t{1} << count) - 1); }
std::int64_t lowest_bit(std::uint32_t bits) { return __builtin_ctz(bits); }

template <typename T>
class Assigner {
 public:
  Assigner(const Rows<T>& rows, const std::vector<double>& centers)
      : rows_(rows), centers_(centers), kernels_(nearest::kernels<T>()),
        k_(static_cast<std::int64_t>(centers.size()) / rows.d) {
    if (rows.filter != nullptr && k_ > 1) pack_centers(rows, centers, kernels_.lanes, packed_);
  }

  // Rows [first, last); sums [k, 2, d] or null. Returns how many rows needed float64 distances.
  std::int64_t assign(std::int64_t first, std::int64_t last, std::int32_t* labels, bool with_squares,
                      double* sums) const {
    const std::int64_t padded = (rows_.d + nearest::kDepth - 1) / nearest::kDepth * nearest::kDepth;
    Scratch<float> tile;
    std::vector<double> distances(static_cast<std::size_t>(k_));
    MemberSums members;
    if (packed_.is_usable) std::fill_n(tile.reserve(padded * kernels_.lanes), padded * kernels_.lanes, 0.0f);
    const std::int64_t chunk = rows_of_chunk<T>(rows_.d);
    std::int64_t undecided = 0;
    for (std::int64_t i = first; i < last; i += chunk) {
      const std::int64_t end = std::min(last, i + chunk);
      undecided += label_rows(i, end, labels, tile.data(), distances.data());
      if (sums != nullptr) members.add(rows_, i, end, labels, centers_, with_squares, sums);
    }
    return undecided;
  }

 private:
  std::int64_t label_rows(std::int64_t first, std::int64_t last, std::int32_t* labels, float* tile,
                          double* distances) const {
    std::int32_t found[nearest::kMaxLanes] = {};
    std::int64_t undecided = 0;
    for (std::int64_t i = first; i < last; i += kernels_.lanes) {
      const std::int64_t count = std::min(kernels_.lanes, last - i);
      std::uint32_t open = ~0u;
      if (packed_.is_usable) {
        const T* ahead = rows_.row(std::max(i, std::min(i + 2 * kernels_.lanes, rows_.n - kernels_.lanes)));
        kernels_.pack(rows_.span(i, count), rows_.filter->anchor.data(), rows_.filter->unit, tile);
        open = kernels_.nearest(tile, rows_.filter->squared_norms.data() + i, packed_.panels, ahead, found);
      }
      std::copy_n(found, count, labels + i);
      for (open &= all_of(count); open != 0; open &= open - 1, ++undecided) {
        const std::int64_t row = i + lowest_bit(open);
        labels[row] = exact_label(row, distances);
      }
    }
    return undecided;
  }

  std::int32_t exact_label(std::int64_t row, double* distances) const {
    if (k_ == 1) return 0;
    kernels_.distances_of_row(rows_.span(row, 1), centers_.data(), k_, distances);
    const double smallest = *std::min_element(distances, distances + k_);
    std::int32_t label = 0;
    while (label + 1 < k_ && !ties_with_smallest(distances[label], smallest, rows_.floor)) ++label;
    return label;
  }

  const Rows<T>& rows_;
  const std::vector<double>& centers_;
  const nearest::Kernels<T>& kernels_;
  const std::int64_t k_;
  PackedCenters packed_;
};

}  // namespace

template <typename T>
RowFilter<T> make_filter(const Rows<T>& rows) {
  RowFilter<T> filter;
  filter.anchor = middle(rows);
  const std::vector<double> origin(filter.anchor.begin(), filter.anchor.end());
  std::vector<double> squared(static_cast<std::size_t>(rows.n));
  parallel_for(rows.n, rows.threads, [&](std::int64_t first, std::int64_t last) {
    nearest::kernels<T>().distances(rows.span(first, last - first), nullptr, origin.data(), squared.data() + first);
  });
  const double largest = std::sqrt(*std::max_element(squared.begin(), squared.end()));
  if (!std::isfinite(largest)) return filter;
  filter.unit = unit_for(largest);
  filter.squared_norms.assign(static_cast<std::size_t>(rows.n + nearest::kMaxLanes), 0.0f);
  const double factor = 1.000001 * filter.unit * filter.unit;
  double sum = 0;
  for (std::int64_t i = 0; i < rows.n; ++i) {
    const double bound = factor * squared[i] + 0x1.0p-120;
    sum += bound;
    filter.squared_norms[i] = static_cast<float>(bound) * 1.000001f;
  }
  filter.radius = std::sqrt(sum / static_cast<double>(rows.n));
  return filter;
}

template <typename T>
void assign_nearest(const Rows<T>& rows, const std::vector<double>& centers, std::int32_t* labels, ClusterSums* sums) {
  const std::int64_t width = sums == nullptr ? 0 : 2 * static_cast<std::int64_t>(centers.size());
  const Assigner<T> assigner(rows, centers);
  std::atomic<std::int64_t> undecided{0};
  std::vector<double> values =
      sum_over_blocks(rows.n, width, rows.threads, [&](std::int64_t first, std::int64_t last, double* block_sums) {
        const bool with_squares = sums != nullptr && sums->has_squares;
        undecided += assigner.assign(first, last, labels, with_squares, sums == nullptr ? nullptr : block_sums);
      });
  if (sums != nullptr) *sums = {centers, std::move(values), undecided, sums->has_squares};
}

template <typename T>
void distances_to_own(const Rows<T>& rows, const std::vector<double>& centers, const std::int32_t* labels, double* out) {
  parallel_for(rows.n, rows.threads, [&](std::int64_t first, std::int64_t last) {
    nearest::kernels<T>().distances(rows.span(first, last - first), labels + first, centers.data(), out + first);
  });
}

#define RLSFT_INSTANTIATE(T)                                                                                 \
  template RowFilter<T> make_filter(const Rows<T>&);                                                         \
  template void assign_nearest(const Rows<T>&, const std::vector<double>&, std::int32_t*, ClusterSums*);     \
  template void distances_to_own(const Rows<T>&, const std::vector<double>&, const std::int32_t*, double*);
RLSFT_INSTANTIATE(float)
RLSFT_INSTANTIATE(double)
#undef RLSFT_INSTANTIATE

}  // namespace rlsft::isodata_detail
