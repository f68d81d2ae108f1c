#pragma once

namespace rlsft::losses_detail::RLSFT_ISA {
namespace {

// Rewards and values of a chunk, 0 where masked; adds to the sums when there are any.
struct Shaped {
  alignas(64) float reward[kChunk], value[kChunk], score[kChunk];
};

float value_at(const Column& column, std::int64_t at) {
  float lanes[kChunk];
  Reader reader;
  const float* value = reader(column, {at, 1});
  std::memcpy(lanes, value, sizeof(float));
  return lanes[0];
}

struct ShapeReaders {
  Reader logp, ref, value, score;
};

// One score a row goes to the row's last token that counts.
inline void place_score(const GaeInputs& in, const GaeSegment& segment, Chunk chunk, Shaped& shaped) {
  for (std::int64_t i = 0; i < kChunk; ++i) shaped.score[i] = 0;
  const std::int64_t at = segment.score_at - chunk.begin;
  if (at >= 0 && at < chunk.size) shaped.score[at] = value_at(in.scores, segment.row);
}

void shape(const GaeInputs& in, const GaeSettings& s, const GaeSegment& segment, Chunk chunk, const std::uint8_t* mask,
           ShapeReaders& readers, Shaped& shaped, Sums<3>& sums) {
  const float* logp = readers.logp(in.logprobs, chunk);
  const float* ref = readers.ref(in.ref_logprobs, chunk);
  const float* value = readers.value(in.values, chunk);
  const float* score = shaped.score;
  if (in.has_token_scores) {
    score = readers.score(in.scores, chunk);
  } else {
    place_score(in, segment, chunk, shaped);
  }
  for (std::int64_t i = 0; i < chunk.size; i += kLanes) {
    const Ints here = lanes_of(mask + i);
    const Floats kept = only(here, load(score + i)), kept_value = only(here, load(value + i));
    Floats reward = kept;
    if (ref != nullptr) {
      const Floats kl = only(here, kl_of(load(logp + i) - load(ref + i), s.kl_estimator).estimate);
      sums.chunk[0] += kl;
      reward = kept - s.kl_coef * kl;
    }
    sums.chunk[1] += kept;
    sums.chunk[2] += kept_value;
    store(shaped.reward + i, reward);
    store(shaped.value + i, kept_value);
  }
  sums.end_chunk();
}

// The recurrence from right to left; a masked token leaves what it carries as it is. `advantage` may be null.
struct Carry {
  double advantage, value;
  std::int64_t tokens;
};
inline void recur(const Shaped& shaped, const std::uint8_t* mask, std::int64_t size, double gamma, double decay,
                  Carry& carry, float* advantage) {
  double next_advantage = carry.advantage, next_value = carry.value;
  std::int64_t tokens = 0;
  for (std::int64_t i = size - 1; i >= 0; --i) {
    const double value = static_cast<double>(shaped.value[i]);
    const double delta = (static_cast<double>(shaped.reward[i]) - value) + gamma * next_value;
    const double here = delta + decay * next_advantage;
    const bool counts = mask[i] != 0;
    next_advantage = counts ? here : next_advantage;
    next_value = counts ? value : next_value;
    tokens += counts;
    if (advantage != nullptr) advantage[i] = counts ? static_cast<float>(here) : 0.0f;
  }
  carry = {next_advantage, next_value, carry.tokens + tokens};
}

void finish(const Shaped& shaped, const std::uint8_t* mask, Chunk chunk, const float* advantage, float* returns,
            GaeSums& sums) {
  const std::int64_t whole = (chunk.size + kLanes - 1) / kLanes * kLanes;
  for (std::int64_t i = 0; i < chunk.size; i += kLanes) {
    store(returns + i, only(lanes_of(mask + i), load(advantage + i) + load(shaped.value + i)));
  }
  merge(sums.advantages, moments_of(advantage, mask, whole));
  merge(sums.returns, moments_of(returns, mask, whole));
}

void gae(const GaeInputs& in, const GaeSettings& s, const GaeSegment& segment, float* advantages, float* returns,
         GaeSums* result, GaeSummary* summary) {
  ShapeReaders readers;
  MaskReader masks;
  Writer advantage_writer, returns_writer;
  Shaped shaped;
  Sums<3> sums;
  Carry carry = {segment.next_advantage, segment.next_value, 0};
  const double decay = s.gamma * s.lam;
  const std::int64_t chunks = (segment.end - segment.begin + kChunk - 1) / kChunk;
  if (advantages != nullptr) *result = {0, 0, 0, {0, 0, 0}, {0, 0, 0}};
  for (std::int64_t k = chunks - 1; k >= 0; --k) {
    const std::int64_t begin = segment.begin + k * kChunk;
    const Chunk chunk = {begin, segment.end - begin < kChunk ? segment.end - begin : kChunk};
    const std::uint8_t* mask = masks(in.mask, chunk);
    shape(in, s, segment, chunk, mask, readers, shaped, sums);
    float* advantage = advantage_writer.open(advantages, chunk);
    recur(shaped, mask, chunk.size, s.gamma, decay, carry, advantage);
    if (advantages == nullptr) continue;
    finish(shaped, mask, chunk, advantage, returns_writer.open(returns, chunk), *result);
    advantage_writer.close();
    returns_writer.close();
  }
  if (advantages != nullptr) {
    result->kl = sums.total(0);
    result->score = sums.total(1);
    result->value = sums.total(2);
  }
  if (summary != nullptr) *summary = {carry.tokens, carry.advantage, carry.value};
}

void whiten(float* x, const std::uint8_t* mask, std::int64_t count, float mean, float scale) {
  MaskReader masks;
  for (std::int64_t at = 0; at < count; at += kChunk) {
    const Chunk chunk = {at, count - at < kChunk ? count - at : kChunk};
    const std::uint8_t* here = masks(mask, chunk);
    std::int64_t i = 0;
    for (; i + kLanes <= chunk.size; i += kLanes) {
      store(x + at + i, only(lanes_of(here + i), (load(x + at + i) - mean) * scale));
    }
    for (; i < chunk.size; ++i) x[at + i] = here[i] != 0 ? (x[at + i] - mean) * scale : 0.0f;
  }
}

}  // namespace
}  // namespace rlsft::losses_detail::RLSFT_ISA
