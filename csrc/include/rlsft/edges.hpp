// How a cosine becomes an edge weight.
#pragma once

namespace rlsft {

enum class EdgeMap {
  cosine = 0,          // cos: negative edges, for study only
  shifted_cosine = 1,  // 0.5 + 0.5 cos
  relu_cosine = 2,     // max(cos, 0)
};

}  // namespace rlsft
