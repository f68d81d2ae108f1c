// Tile kernels of outer_product.hpp. AMX multiplies 16 x 32 by 32 x 16 bfloat16 tiles into a 16 x 16 float32 tile; the
// left one holds `grad` transposed, the right one `hidden` with two rows interleaved.
#include <immintrin.h>

#include "outer_product.hpp"

namespace rlsft::outer_detail::amx {
namespace {

constexpr std::int64_t kTile = 16;                    // rows and float32 columns of a tile
constexpr std::int64_t kTileSize = kTile * kStep;     // bfloat16 numbers of a tile
constexpr std::int64_t kStepsAtOnce = 10;             // 20 KiB of a panel: stays in the first-level cache
constexpr std::int64_t kLine = 64;                    // bytes
constexpr std::int64_t kAccumulatorStride = kPanel * static_cast<std::int64_t>(sizeof(float));

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// The compiler does not know that tile loads read memory.
inline void fence() { __asm__ volatile("" ::: "memory"); }

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes_per_row[16] = {};
  std::uint8_t rows[16] = {};
  TileConfig() {
    for (int i = 0; i < 8; ++i) {
      bytes_per_row[i] = kLine;
      rows[i] = kTile;
    }
  }
};

// Up to 32 columns of two neighbouring rows, (a0 b0 a1 b1 ..): columns 8k..8k+3 in `low`, 8k+4..8k+7 in `high`.
struct RowPair {
  __m512i low, high;
};

inline RowPair interleave(const std::uint16_t* rows, std::int64_t stride, std::int64_t row_count, __mmask32 columns) {
  const __m512i zero = _mm512_setzero_si512();
  const __m512i a = row_count > 0 ? _mm512_maskz_loadu_epi16(columns, rows) : zero;
  const __m512i b = row_count > 1 ? _mm512_maskz_loadu_epi16(columns, rows + stride) : zero;
  return {_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)};
}

inline __mmask32 first(std::int64_t columns) {
  return columns >= kPanel ? ~__mmask32{0} : static_cast<__mmask32>((std::uint32_t{1} << columns) - 1);
}

// GCC 12 warns about its own unmasked forms of these (an operand left undefined); the masks cost nothing.
constexpr __mmask16 kAll16 = 0xffff;
constexpr __mmask8 kAll8 = 0xff;
inline __m512i low32(__m512i a, __m512i b) { return _mm512_maskz_unpacklo_epi32(kAll16, a, b); }
inline __m512i high32(__m512i a, __m512i b) { return _mm512_maskz_unpackhi_epi32(kAll16, a, b); }
inline __m512i low64(__m512i a, __m512i b) { return _mm512_maskz_unpacklo_epi64(kAll8, a, b); }
inline __m512i high64(__m512i a, __m512i b) { return _mm512_maskz_unpackhi_epi64(kAll8, a, b); }
inline __m512i even_lanes(__m512i a, __m512i b) { return _mm512_maskz_shuffle_i32x4(kAll16, a, b, 0x88); }
inline __m512i odd_lanes(__m512i a, __m512i b) { return _mm512_maskz_shuffle_i32x4(kAll16, a, b, 0xdd); }

// Transposes 16 registers of 16 pairs, in which register k holds pair k of columns 8L + offset + j at place 4L + j, and
// writes the pairs of each column to its row of the two tiles.
inline void write_transposed(const __m512i (&pairs)[16], std::int64_t offset, std::uint16_t* tiles) {
  __m512i quads[4][4];  // [g][j]: in lane L, pairs 4g..4g+3 of place 4L + j
  for (int g = 0; g < 4; ++g) {
    const __m512i a = low32(pairs[4 * g], pairs[4 * g + 1]);
    const __m512i b = high32(pairs[4 * g], pairs[4 * g + 1]);
    const __m512i c = low32(pairs[4 * g + 2], pairs[4 * g + 3]);
    const __m512i d = high32(pairs[4 * g + 2], pairs[4 * g + 3]);
    quads[g][0] = low64(a, c);
    quads[g][1] = high64(a, c);
    quads[g][2] = low64(b, d);
    quads[g][3] = high64(b, d);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i even_a = even_lanes(quads[0][j], quads[1][j]);
    const __m512i odd_a = odd_lanes(quads[0][j], quads[1][j]);
    const __m512i even_b = even_lanes(quads[2][j], quads[3][j]);
    const __m512i odd_b = odd_lanes(quads[2][j], quads[3][j]);
    std::uint16_t* to = tiles + (offset + j) * kStep;
    _mm512_store_si512(to + 0 * 8 * kStep, even_lanes(even_a, even_b));
    _mm512_store_si512(to + 1 * 8 * kStep, even_lanes(odd_a, odd_b));
    _mm512_store_si512(to + 2 * 8 * kStep, odd_lanes(even_a, even_b));
    _mm512_store_si512(to + 3 * 8 * kStep, odd_lanes(odd_a, odd_b));
  }
}

// One panel of `grad` from column `start`, transposed: [steps][2 tiles][16 columns][32 rows].
void pack_grad(const OuterProduct& p, std::int64_t start, std::uint16_t* packed) {
  const __mmask32 columns = first(p.columns - start);
  for (std::int64_t row = 0; row < p.rows; row += kStep, packed += kPairSize) {
    __m512i low[16], high[16];
    for (int k = 0; k < 16; ++k) {
      const std::int64_t at = row + 2 * k;
      const RowPair pair = interleave(p.grad + least(at, p.rows - 1) * p.grad_stride + start, p.grad_stride,
                                      p.rows - at, columns);
      low[k] = pair.low;
      high[k] = pair.high;
    }
    write_transposed(low, 0, packed);
    write_transposed(high, 4, packed);
  }
}

// Tiles 0..3 += two left tiles times two right tiles a step. Meanwhile fetches the next block of `out`.
struct Fetch {
  const char* next;
  std::int64_t stride, rows_left, rows_a_step;

  void step() {
    for (std::int64_t i = least(rows_a_step, rows_left); i > 0; --i, --rows_left, next += stride) {
      _mm_prefetch(next, _MM_HINT_T1);
      _mm_prefetch(next + kLine, _MM_HINT_T1);
    }
  }
};

inline void multiply(const std::uint16_t* left, const std::uint16_t* right, std::int64_t steps, Fetch& fetch) {
  for (std::int64_t s = 0; s < steps; ++s, left += kPairSize, right += kPairSize) {
    _tile_loadd(6, right, kLine);
    _tile_loadd(4, left, kLine);
    _tile_loadd(7, right + kTileSize, kLine);
    _tile_loadd(5, left + kTileSize, kLine);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    fetch.step();
  }
}

inline void load_sums(const float* from, std::int64_t stride) {
  fence();
  const char* at = reinterpret_cast<const char*>(from);
  _tile_loadd(0, at, stride);
  _tile_loadd(1, at + kLine, stride);
  _tile_loadd(2, at + kTile * stride, stride);
  _tile_loadd(3, at + kTile * stride + kLine, stride);
}

inline void store_sums(float* to, std::int64_t stride) {
  char* at = reinterpret_cast<char*>(to);
  _tile_stored(0, at, stride);
  _tile_stored(1, at + kLine, stride);
  _tile_stored(2, at + kTile * stride, stride);
  _tile_stored(3, at + kTile * stride + kLine, stride);
  fence();
}

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// A part of `out` that tiles reach beyond, copied to where there is room.
struct Edge {
  alignas(64) float values[kPanel * kPanel];

  void read(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t columns) {
    for (std::int64_t i = 0; i < kPanel * kPanel; ++i) values[i] = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) values[i * kPanel + j] = from[i * stride + j];
    }
  }
  void write(float* to, std::int64_t stride, std::int64_t rows, std::int64_t columns) const {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) to[i * stride + j] = values[i * kPanel + j];
    }
  }
};

// 32 x 32 sums at (column, unit) of `out` plus `steps` steps of the packed factors.
void add_square(const OuterProduct& p, std::int64_t column, std::int64_t unit, const std::uint16_t* left,
                const std::uint16_t* right, std::int64_t steps, bool from_zero, Fetch& fetch) {
  const std::int64_t rows = least(kPanel, p.columns - column), units = least(kPanel, p.width - unit);
  float* sums = p.out + column * p.width + unit;
  const std::int64_t stride = p.width * static_cast<std::int64_t>(sizeof(float));
  if (rows == kPanel && units == kPanel) {
    if (from_zero) zero_sums();
    else load_sums(sums, stride);
    multiply(left, right, steps, fetch);
    store_sums(sums, stride);
    return;
  }
  Edge edge;
  edge.read(sums, p.width, from_zero ? 0 : rows, units);
  load_sums(edge.values, kAccumulatorStride);
  multiply(left, right, steps, fetch);
  store_sums(edge.values, kAccumulatorStride);
  edge.write(sums, p.width, rows, units);
}

// Fetches `grad` of the next block while this one is multiplied.
struct FetchGrad {
  const std::uint16_t* next;
  std::int64_t stride, rows_left, rows_a_square;

  void square() {
    for (std::int64_t i = least(rows_a_square, rows_left); i > 0; --i, --rows_left, next += stride) {
      const char* line = reinterpret_cast<const char*>(next);
      for (std::int64_t k = 0; k < kBlock * 2; k += kLine) _mm_prefetch(line + k, _MM_HINT_T1);
    }
  }
};

void add_block(const OuterProduct& p, const std::uint16_t* packed_hidden, std::int64_t start, bool last,
               const std::uint16_t* packed_grad) {
  const std::int64_t steps = p.steps(), panel_size = steps * kPairSize, units = p.hidden_panels();
  const std::int64_t parts = up(steps, kStepsAtOnce), squares = units * parts * kBlockPanels;
  FetchGrad fetch_grad{p.grad + start + kBlock, p.grad_stride, last ? 0 : p.rows, up(p.rows, squares)};
  const std::int64_t stride = p.width * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t panels = up(least(kBlock, p.columns - start), kPanel);
  for (std::int64_t u = 0; u < units; ++u) {
    const float* next = u + 1 < units ? p.out + start * p.width + (u + 1) * kPanel : p.out + (start + kBlock) * p.width;
    Fetch fetch{reinterpret_cast<const char*>(next), stride, u + 1 < units || !last ? panels * kPanel : 0,
                up(kPanel, steps)};
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t from = steps * part / parts, to = steps * (part + 1) / parts;
      for (std::int64_t v = 0; v < panels; ++v) {
        fetch_grad.square();
        add_square(p, start + v * kPanel, u * kPanel, packed_grad + v * panel_size + from * kPairSize,
                   packed_hidden + u * panel_size + from * kPairSize, to - from, p.overwrite && part == 0, fetch);
      }
    }
  }
}

}  // namespace

// [panels][steps][2 tiles][16 pairs of rows][16 units][2 rows]
void pack_hidden(const OuterProduct& p, std::int64_t begin, std::int64_t end, std::uint16_t* packed) {
  // unpacking leaves units 8k..8k+3 and 8k+4..8k+7 in two registers; these put 0..15 and 16..31 together
  const __m512i first_half = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  const __m512i second_half = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  for (std::int64_t panel = begin; panel < end; ++panel) {
    const std::int64_t start = panel * kPanel;
    const __mmask32 units = first(p.width - start);
    std::uint16_t* to = packed + panel * p.steps() * kPairSize;
    for (std::int64_t row = 0; row < p.rows; row += kStep, to += kPairSize) {
      for (std::int64_t k = 0; k < kTile; ++k) {
        const std::int64_t at = row + 2 * k;
        const RowPair pair = interleave(p.hidden + least(at, p.rows - 1) * p.hidden_stride + start, p.hidden_stride,
                                        p.rows - at, units);
        _mm512_store_si512(to + k * kStep, _mm512_permutex2var_epi64(pair.low, first_half, pair.high));
        _mm512_store_si512(to + kTileSize + k * kStep, _mm512_permutex2var_epi64(pair.low, second_half, pair.high));
      }
    }
  }
}

void add_blocks(const OuterProduct& p, const std::uint16_t* packed_hidden, std::int64_t begin, std::int64_t end,
                std::uint16_t* scratch) {
  const TileConfig config;
  fence();
  _tile_loadconfig(&config);
  for (std::int64_t block = begin; block < end; ++block) {
    const std::int64_t start = block * kBlock;
    for (std::int64_t v = 0; v < kBlockPanels && start + v * kPanel < p.columns; ++v) {
      pack_grad(p, start + v * kPanel, scratch + v * p.steps() * kPairSize);
    }
    fence();
    add_block(p, packed_hidden, start, block + 1 == end, scratch);
  }
  _tile_release();
}

}  // namespace rlsft::outer_detail::amx
