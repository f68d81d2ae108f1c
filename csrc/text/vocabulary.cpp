#include "rlsft/vocabulary.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace rlsft {
namespace {

constexpr std::uint64_t kSmallestTable = 1u << 12;
constexpr std::uint64_t kLargestTable = 1u << 18;  // 2 MB: stays in a second-level cache

int bits_for(std::uint64_t value) {
  int bits = 1;
  while ((value >> bits) != 0) ++bits;
  return bits;
}

}  // namespace

// Clearing a table larger than four entries a token would cost more than the hash table does.
Vocabulary::Vocabulary(std::int64_t expected_tokens)
    : direct_limit_(std::clamp(static_cast<std::uint64_t>(std::max<std::int64_t>(expected_tokens, 0)) * 4,
                               kSmallestTable, kLargestTable)) {}

void Vocabulary::begin_call() {
  if (++call_ != 0) return;
  std::fill(by_id_.begin(), by_id_.end(), 0);
  std::fill(slots_.begin(), slots_.end(), Slot{0, 0});
  call_ = 1;
}

std::int64_t Vocabulary::number(const std::int64_t* ids, std::int64_t count, std::int32_t* numbers) {
  if (count > std::numeric_limits<std::int32_t>::max()) throw std::length_error("a group has 2^31 tokens or more");
  begin_call();
  std::uint64_t all_bits = 0;  // a negative id sets the highest
  for (std::int64_t t = 0; t < count; ++t) all_bits |= static_cast<std::uint64_t>(ids[t]);
  const bool direct = all_bits < direct_limit_;
  if (!direct) return number_by_hash(ids, count, numbers);
  const std::size_t needed = std::size_t{1} << bits_for(all_bits);
  if (by_id_.size() < needed) by_id_.resize(needed, Known{0});
  return number_by_id(ids, count, numbers);
}

// No branch depends on whether a word is new: in text that is a coin toss, and a wrong guess costs five look-ups. The
// choice is spelt with masks, because GCC turns a conditional expression back into a branch.
std::int64_t Vocabulary::number_by_id(const std::int64_t* ids, std::int64_t count, std::int32_t* numbers) {
  std::uint64_t next = 0;
  Known* const table = by_id_.data();
  const std::uint64_t call = std::uint64_t{call_} << 32;
  for (std::int64_t t = 0; t < count; ++t) {
    const Known known = table[ids[t]];
    const std::uint64_t is_new = (known ^ call) >> 32 != 0;
    const std::uint64_t number = next ^ ((next ^ (known & 0xffffffffu)) & (is_new - 1));
    next += is_new;
    table[ids[t]] = call | number;
    numbers[t] = static_cast<std::int32_t>(number);
  }
  return static_cast<std::int64_t>(next);
}

std::int64_t Vocabulary::number_by_hash(const std::int64_t* ids, std::int64_t count, std::int32_t* numbers) {
  const int bits = bits_for(static_cast<std::uint64_t>(count) * 2);  // at most half full
  const std::size_t size = std::size_t{1} << bits;
  if (slots_.size() < size) slots_.resize(size, Slot{0, 0});
  const std::size_t mask = size - 1;
  const std::uint64_t call = std::uint64_t{call_} << 32;
  std::uint64_t next = 0;
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t id = ids[t];
    std::size_t at = static_cast<std::size_t>((static_cast<std::uint64_t>(id) * 0x9E3779B97F4A7C15u) >> (64 - bits));
    while (slots_[at].known >> 32 == call_ && slots_[at].id != id) at = (at + 1) & mask;
    const std::uint64_t is_new = slots_[at].known >> 32 != call_;
    const std::uint64_t number = next ^ ((next ^ (slots_[at].known & 0xffffffffu)) & (is_new - 1));
    next += is_new;
    slots_[at] = {id, call | number};
    numbers[t] = static_cast<std::int32_t>(number);
  }
  return static_cast<std::int64_t>(next);
}

}  // namespace rlsft
