// Numbers with a bound on their error, and comparisons that know when the bound decides nothing.
#pragma once

#include <algorithm>
#include <cmath>

#include "isodata_common.hpp"

namespace rlsft::isodata_detail {

struct Bounded {
  double value;
  double error = 0;  // |value - truth| <= error
};

inline Bounded operator+(Bounded a, Bounded b) { return {a.value + b.value, a.error + b.error}; }
inline Bounded operator*(double factor, Bounded a) { return {factor * a.value, std::abs(factor) * a.error}; }

// Root of a quantity that is never negative: |sqrt(v) - sqrt(t)| is at most sqrt |v - t|, and |v - t| / sqrt(v).
inline Bounded root(Bounded a) {
  if (a.value <= 0) return {0, std::sqrt(std::max(0.0, a.value + a.error))};
  const double value = std::sqrt(a.value);
  return {value, std::min(a.error / value, std::sqrt(a.error))};
}

// The comparisons of isodata_common.hpp. One that the errors leave open sets is_undecided(): what was computed since
// then is worthless and has to be computed again without error.
class Decider {
 public:
  bool exceeds(Bounded a, Bounded b) { return is_positive(a.value - b.value * (1 + kTie), a, b); }
  bool falls_below(Bounded a, Bounded b) { return is_positive(b.value * (1 - kTie) - a.value, a, b); }
  bool ties_with_smallest(Bounded a, Bounded smallest) {
    return !is_positive(a.value - smallest.value * (1 + kTie), a, smallest);
  }

  bool ties_with_largest(Bounded a, Bounded largest) {
    return !is_positive(largest.value * (1 - kTie) - a.value, a, largest);
  }

  void require(bool is_decided) { is_undecided_ |= !is_decided; }
  bool is_undecided() const { return is_undecided_; }
  void reset() { is_undecided_ = false; }

 private:
  bool is_positive(double difference, Bounded a, Bounded b) {
    const double error = (a.error + b.error) * (1 + kTie);
    require(error == 0 || std::abs(difference) > error);
    return difference > 0;
  }

  bool is_undecided_ = false;
};

}  // namespace rlsft::isodata_detail
