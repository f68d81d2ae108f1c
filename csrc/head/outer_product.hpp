// The blocks that accumulate_outer() hands to the tile kernels, and how packed factors lie in memory.
#pragma once

#include <cstdint>

namespace rlsft::outer_detail {

constexpr std::int64_t kStep = 32;          // rows (summands) of one tile product
constexpr std::int64_t kPanel = 32;         // columns, or hidden units, of two tiles side by side
constexpr std::int64_t kBlockPanels = 4;    // panels of `grad` that share a panel of `hidden` in the first-level cache
constexpr std::int64_t kBlock = kBlockPanels * kPanel;
constexpr std::int64_t kPairSize = kStep * kPanel;  // numbers in one step of a panel: two tiles

constexpr std::int64_t up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct OuterProduct {
  const std::uint16_t* grad;
  std::int64_t rows, grad_stride, columns;
  const std::uint16_t* hidden;
  std::int64_t hidden_stride, width;
  float* out;
  bool overwrite;

  std::int64_t steps() const { return up(rows, kStep); }
  std::int64_t hidden_panels() const { return up(width, kPanel); }
  std::int64_t blocks() const { return up(columns, kBlock); }
  std::int64_t packed_hidden_size() const { return hidden_panels() * steps() * kPairSize; }
  std::int64_t packed_grad_size() const { return kBlockPanels * steps() * kPairSize; }
};

namespace amx {

// Panels [begin, end) of `hidden`, zero-padded, as right factors of tile products.
void pack_hidden(const OuterProduct& product, std::int64_t begin, std::int64_t end, std::uint16_t* packed);

// Blocks [begin, end) of kBlock rows of `out`. `scratch` holds packed_grad_size() numbers; it and packed_hidden are
// aligned to 64 bytes.
void add_blocks(const OuterProduct& product, const std::uint16_t* packed_hidden, std::int64_t begin, std::int64_t end,
                std::uint16_t* scratch);

}  // namespace amx
}  // namespace rlsft::outer_detail
