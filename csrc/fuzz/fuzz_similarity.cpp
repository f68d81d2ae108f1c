#include "fuzz_input.hpp"
#include "rlsft/similarity.hpp"

namespace {

using namespace rlsft_fuzz;
using rlsft::EdgeMap;

template <typename T>
struct Edges {
  std::vector<T> values;  // flat m x m blocks
  std::vector<char> ok;
};

template <typename T>
Edges<T> similarity(const std::vector<T>& rows, std::int64_t d, const std::vector<std::int64_t>& offsets, EdgeMap map,
                    int threads) {
  const std::int64_t groups = static_cast<std::int64_t>(offsets.size()) - 1;
  std::vector<std::int64_t> blocks(offsets.size());
  rlsft::square_block_offsets(offsets.data(), groups, blocks.data());
  Edges<T> edges{std::vector<T>(static_cast<std::size_t>(blocks.back()), T(-7)), std::vector<char>(offsets.size())};
  static_assert(sizeof(bool) == sizeof(char), "ok is written as bool");
  rlsft::similarity_groups<T>(rows.data(), d, offsets.data(), groups, map, threads, edges.values.data(),
                              reinterpret_cast<bool*>(edges.ok.data()));
  return edges;
}

// Independent of the core: long double, one value after the other, rows scaled by their largest value.
template <typename T>
long double cosine(const T* a, const T* b, std::int64_t d) {
  long double largest_a = 0, largest_b = 0, aa = 0, bb = 0, ab = 0;
  for (std::int64_t k = 0; k < d; ++k) {
    largest_a = std::max(largest_a, std::abs(static_cast<long double>(a[k])));
    largest_b = std::max(largest_b, std::abs(static_cast<long double>(b[k])));
  }
  if (largest_a == 0 || largest_b == 0) return 0;
  for (std::int64_t k = 0; k < d; ++k) {
    const long double x = a[k] / largest_a, y = b[k] / largest_b;
    aa += x * x;
    bb += y * y;
    ab += x * y;
  }
  return ab / std::sqrt(aa * bb);
}

template <typename T>
void check_block(const T* rows, std::int64_t m, std::int64_t d, EdgeMap map, const T* edges) {
  const long double allowed = sizeof(T) == 4 ? 1e-5L : 1e-13L;
  for (std::int64_t i = 0; i < m; ++i) {
    REQUIRE(edges[i * m + i] == T(0));
    for (std::int64_t j = 0; j < i; ++j) {
      long double expected = cosine(rows + i * d, rows + j * d, d);
      if (map == EdgeMap::shifted_cosine) expected = 0.5L + 0.5L * expected;
      if (map == EdgeMap::relu_cosine) expected = expected > 0 ? expected : 0;
      const T edge = edges[i * m + j];
      REQUIRE(std::abs(static_cast<long double>(edge) - expected) <= allowed);
      REQUIRE(same_bits(&edge, &edges[j * m + i], 1));
      REQUIRE(edge <= T(1) && edge >= (map == EdgeMap::cosine ? T(-1) : T(0)));
    }
  }
}

// Equal rows have equal edges to everybody else.
template <typename T>
void check_twins(const T* rows, std::int64_t m, std::int64_t d, const T* edges) {
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t k = i + 1; k < m; ++k) {
      if (!std::equal(rows + i * d, rows + (i + 1) * d, rows + k * d)) continue;
      for (std::int64_t j = 0; j < m; ++j) REQUIRE(j == i || j == k || edges[i * m + j] == edges[k * m + j]);
    }
  }
}

template <typename T>
void run(Input& in) {
  Reals kind;
  const std::uint8_t shape = in.byte();
  kind.wide = (shape & 1) != 0;
  kind.bad = (shape & 6) == 6;
  const std::int64_t d = in.between(1, 24);
  const std::vector<std::int64_t> offsets = in.offsets(2, 18);
  const EdgeMap map = in.pick({EdgeMap::shifted_cosine, EdgeMap::relu_cosine, EdgeMap::cosine});
  const std::vector<T> rows = in.rows<T>(offsets.back(), d, kind);
  const std::uint8_t twist = in.byte();
  const Edges<T> plain = similarity(rows, d, offsets, map, 1);
  const T* block = plain.values.data();
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    const std::int64_t m = offsets[g + 1] - offsets[g];
    const T* group = rows.data() + offsets[g] * d;
    REQUIRE((plain.ok[g] != 0) == all_finite(group, m * d));
    if (plain.ok[g] != 0) {
      check_block(group, m, d, map, block);
      check_twins(group, m, d, block);
      const Edges<T> alone = similarity(std::vector<T>(group, group + m * d), d, {0, m}, map, 1);
      REQUIRE(same_bits(alone.values.data(), block, m * m));
    }
    block += m * m;
  }
  if (twist % 2 == 0) {
    const Edges<T> threaded = similarity(rows, d, offsets, map, 2 + twist / 2 % 2);
    REQUIRE(same_bits(threaded.values, plain.values) && threaded.ok == plain.ok);
  } else if (!kind.wide) {
    std::vector<T> scaled = rows;
    for (T& value : scaled) value = std::ldexp(value, twist / 2 % 40 - 20);
    REQUIRE(same_bits(similarity(scaled, d, offsets, map, 1).values, plain.values));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  in.flag() ? run<double>(in) : run<float>(in);
  return 0;
}
