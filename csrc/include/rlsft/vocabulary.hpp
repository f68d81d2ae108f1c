// Token ids of any range become small numbers: what bit rows, counts and postings are indexed with.
#pragma once

#include <cstdint>
#include <vector>

namespace rlsft {

// Keeps its tables from call to call, so one object serves all groups of a thread. Not thread-safe.
class Vocabulary {
 public:
  // expected_tokens: how many tokens all calls together will bring. It decides how large a table may be that is
  // indexed by the id itself; larger and negative ids go through a hash table.
  explicit Vocabulary(std::int64_t expected_tokens);

  // Numbers the distinct ids 0, 1, .. in the order of their first appearance: numbers [count], out. Returns how many
  // there are. O(count). Throws std::length_error for 2^31 tokens or more.
  std::int64_t number(const std::int64_t* ids, std::int64_t count, std::int32_t* numbers);

 private:
  // call of number() << 32 | number of the word; an entry of an earlier call counts as empty
  using Known = std::uint64_t;
  struct Slot {
    std::int64_t id;
    Known known;
  };
  std::int64_t number_by_id(const std::int64_t* ids, std::int64_t count, std::int32_t* numbers);
  std::int64_t number_by_hash(const std::int64_t* ids, std::int64_t count, std::int32_t* numbers);
  void begin_call();

  std::uint64_t direct_limit_;
  std::uint32_t call_ = 0;
  std::vector<Known> by_id_;
  std::vector<Slot> slots_;
};

}  // namespace rlsft
