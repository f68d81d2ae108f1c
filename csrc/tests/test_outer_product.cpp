#include "rlsft/outer_product.hpp"

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"

namespace {

using std::int64_t;

// Small whole numbers: every product and sum is exact, so that one wrong summand shows.
float number(int64_t i) { return static_cast<float>((i * 7919 + 13) % 17 - 8); }

std::uint16_t bfloat16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<std::uint16_t>(bits >> 16);
}

// Vectors end where the data do: what reads or writes beyond is the sanitizer's to find.
void sums_are_exact(int64_t rows, int64_t columns, int64_t width, bool overwrite, int threads) {
  const int64_t grad_stride = columns + 3, hidden_stride = width + 1;
  std::vector<std::uint16_t> grad(static_cast<std::size_t>((rows - 1) * grad_stride + columns));
  std::vector<std::uint16_t> hidden(static_cast<std::size_t>((rows - 1) * hidden_stride + width));
  for (std::size_t i = 0; i < grad.size(); ++i) grad[i] = bfloat16(number(static_cast<int64_t>(i)));
  for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] = bfloat16(number(static_cast<int64_t>(i) * 3 + 1));
  std::vector<float> out(static_cast<std::size_t>(columns * width), 5.0f);
  rlsft::accumulate_outer(grad.data(), rows, grad_stride, columns, hidden.data(), hidden_stride, width, out.data(),
                          overwrite, threads);
  int64_t wrong = 0;
  for (int64_t v = 0; v < columns; ++v) {
    for (int64_t h = 0; h < width; ++h) {
      float sum = overwrite ? 0.0f : 5.0f;
      for (int64_t c = 0; c < rows; ++c) sum += number(c * grad_stride + v) * number((c * hidden_stride + h) * 3 + 1);
      wrong += sum != out[static_cast<std::size_t>(v * width + h)];
    }
  }
  CHECK(wrong == 0);
}

void no_rows_fill_with_zero_or_change_nothing() {
  std::vector<float> out(6, 5.0f);
  rlsft::accumulate_outer(nullptr, 0, 3, 3, nullptr, 2, 2, out.data(), false, 2);
  for (const float x : out) CHECK(x == 5.0f);
  rlsft::accumulate_outer(nullptr, 0, 3, 3, nullptr, 2, 2, out.data(), true, 2);
  for (const float x : out) CHECK(x == 0.0f);
}

void it_refuses_without_amx() {
  std::string message = "accepted";
  try {
    rlsft::accumulate_outer(nullptr, 0, 1, 1, nullptr, 1, 1, nullptr, false, 1);
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  CHECK(message == "accumulate_outer needs a CPU with AMX: see outer_product_isa");
}

void products_are_added(int threads) {
  std::vector<std::uint16_t> product(1001);
  std::vector<float> sum(product.size(), 0.25f);
  for (std::size_t i = 0; i < product.size(); ++i) product[i] = bfloat16(number(static_cast<int64_t>(i)));
  rlsft::add_product(sum.data(), product.data(), static_cast<int64_t>(sum.size()), threads);
  for (std::size_t i = 0; i < sum.size(); ++i) CHECK(sum[i] == 0.25f + number(static_cast<int64_t>(i)));
  rlsft::add_product(nullptr, nullptr, 0, threads);
}

}  // namespace

int main() {
  products_are_added(1);
  products_are_added(3);
  if (std::string(rlsft::outer_product_isa()) == "none") {
    it_refuses_without_amx();
    return rlsft_test::finish();
  }
  for (const int64_t rows : {1, 2, 31, 33, 64, 353}) {
    for (const int64_t columns : {1, 31, 33, 128, 161, 290}) {
      for (const int64_t width : {1, 16, 33, 64}) sums_are_exact(rows, columns, width, (rows + width) % 2 == 0, 3);
    }
  }
  no_rows_fill_with_zero_or_change_nothing();
  return rlsft_test::finish();
}
