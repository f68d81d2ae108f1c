// What the element-wise losses read: one value a token or a pair, in one of three widths, arithmetic in float32.
#pragma once

#include <cstdint>

namespace rlsft {

enum class FloatType { float32, bfloat16, float16 };

// Values with unit stride. data == nullptr where an optional column is left out.
struct Column {
  const void* data;
  FloatType type;
};

enum class KlEstimator { k1, k2, k3 };

// Log-ratios are clamped to +-kMaxLogRatio before they are exponentiated; beyond it a token has no gradient.
constexpr float kMaxLogRatio = 20.0f;
// k3 is at most this.
constexpr float kMaxK3 = 10.0f;

}  // namespace rlsft
