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

// The tokens of a chunk that count, side by side, and what comes behind the last of them.
struct Dense {
  float reward[kChunk + kLanes], value[kChunk + kLanes];
  double delta[kChunk], advantage[kChunk];
  alignas(64) float narrow[kChunk + kLanes];
};

// Moves x[i] with mask[i] set to the front; writes up to a register beyond them. Returns how many.
inline std::int64_t compact(const float* x, const std::uint8_t* mask, std::int64_t size, float* to) {
  std::int64_t kept = 0;
#if RLSFT_REGISTER == 64
  for (std::int64_t i = 0; i < size; i += kLanes) {
    const __m128i bytes = _mm_loadu_si128((const __m128i*)(mask + i));
    const __mmask16 here = _mm_test_epi8_mask(bytes, bytes);
    _mm512_storeu_ps(to + kept, _mm512_maskz_compress_ps(here, _mm512_loadu_ps(x + i)));
    kept += __builtin_popcount(here);
  }
#else
  for (std::int64_t i = 0; i < size; ++i) {
    to[kept] = x[i];
    kept += mask[i] != 0;
  }
#endif
  return kept;
}

// The inverse: 0 where the mask is not set. Reads up to a register beyond what was kept.
inline void expand(const float* from, const std::uint8_t* mask, std::int64_t size, float* to) {
  std::int64_t at = 0;
#if RLSFT_REGISTER == 64
  for (std::int64_t i = 0; i < size; i += kLanes) {
    const __m128i bytes = _mm_loadu_si128((const __m128i*)(mask + i));
    const __mmask16 here = _mm_test_epi8_mask(bytes, bytes);
    _mm512_storeu_ps(to + i, _mm512_maskz_expand_ps(here, _mm512_loadu_ps(from + at)));
    at += __builtin_popcount(here);
  }
#else
  for (std::int64_t i = 0; i < size; ++i) {
    to[i] = mask[i] != 0 ? from[at] : 0.0f;
    at += mask[i] != 0;
  }
#endif
}

struct Carry {
  double advantage, value;
  std::int64_t tokens;
};

// A_j = delta_j + decay A_{j + 1} from right to left. Four at a time: the processor waits once for a group.
inline void recur(const double* delta, std::int64_t count, double decay, double& carry, double* advantage) {
  const double d2 = decay * decay, d3 = d2 * decay, d4 = d2 * d2;
  std::int64_t j = count;
  for (; j >= 4; j -= 4) {
    const double s3 = delta[j - 1];
    const double s2 = delta[j - 2] + decay * s3;
    const double s1 = delta[j - 3] + decay * s2;
    const double s0 = delta[j - 4] + decay * s1;
    advantage[j - 1] = s3 + decay * carry;
    advantage[j - 2] = s2 + d2 * carry;
    advantage[j - 3] = s1 + d3 * carry;
    carry = advantage[j - 4] = s0 + d4 * carry;
  }
  for (; j >= 1; --j) carry = advantage[j - 1] = delta[j - 1] + decay * carry;
}

// Advantages of the chunk, 0 where masked; the carry passes through masked tokens.
void advance(const Shaped& shaped, const std::uint8_t* mask, std::int64_t size, double gamma, double decay,
             Dense& dense, Carry& carry, float* advantage) {
  const std::int64_t kept = compact(shaped.reward, mask, size, dense.reward);
  compact(shaped.value, mask, size, dense.value);
  if (kept > 0) {
    const double last_value = carry.value;
    for (std::int64_t j = 0; j + 1 < kept; ++j) {
      const double value = static_cast<double>(dense.value[j]);
      dense.delta[j] =
          (static_cast<double>(dense.reward[j]) - value) + gamma * static_cast<double>(dense.value[j + 1]);
    }
    dense.delta[kept - 1] =
        (static_cast<double>(dense.reward[kept - 1]) - static_cast<double>(dense.value[kept - 1])) +
        gamma * last_value;
    recur(dense.delta, kept, decay, carry.advantage, dense.advantage);
    for (std::int64_t j = 0; j < kept; ++j) dense.narrow[j] = static_cast<float>(dense.advantage[j]);
    carry.value = static_cast<double>(dense.value[0]);
    carry.tokens += kept;
  }
  expand(dense.narrow, mask, size, advantage);
}

void add_moments(const float* advantage, const float* returns, const std::uint8_t* mask, std::int64_t size,
                 GaeSums& sums) {
  const std::int64_t whole = (size + kLanes - 1) / kLanes * kLanes;
  merge(sums.advantages, moments_of(advantage, mask, whole));
  merge(sums.returns, moments_of(returns, mask, whole));
}

void gae(const GaeInputs& in, const GaeSettings& s, const GaeSegment& segment, float* advantages, float* returns,
         GaeSums* result, GaeSummary* summary) {
  ShapeReaders readers;
  MaskReader masks;
  Writer advantage_writer, returns_writer;
  Shaped shaped;
  Dense dense;
  Sums<3> sums;
  Carry carry = {0, static_cast<double>(segment.next_value), 0};
  *result = {0, 0, 0, {0, 0, 0}, {0, 0, 0}};
  for (std::int64_t end = segment.end; end > segment.begin;) {
    const std::int64_t begin = end - segment.begin < kChunk ? segment.begin : end - kChunk;
    const Chunk chunk = {begin, end - begin};
    const std::uint8_t* mask = masks(in.mask, chunk);
    shape(in, s, segment, chunk, mask, readers, shaped, sums);
    float *advantage = advantage_writer.open(advantages, chunk), *gain = returns_writer.open(returns, chunk);
    advance(shaped, mask, chunk.size, s.gamma, s.gamma * s.lam, dense, carry, advantage);
    for (std::int64_t i = 0; i < chunk.size; i += kLanes) {
      store(gain + i, only(lanes_of(mask + i), load(advantage + i) + load(shaped.value + i)));
    }
    if (segment.is_whole_row) add_moments(advantage, gain, mask, chunk.size, *result);
    advantage_writer.close();
    returns_writer.close();
    end = begin;
  }
  result->kl = sums.total(0);
  result->score = sums.total(1);
  result->value = sums.total(2);
  *summary = {carry.tokens, carry.advantage, carry.value};
}

// What comes in from the right, faded by every token that counts. Below kNothing it changes no float any more.
constexpr double kNothing = 1e-50;

void connect(const GaeInputs& in, const GaeSegment& segment, double incoming, double decay, float* advantages,
             float* returns, GaeSums* sums) {
  MaskReader masks;
  Reader advantage_reader, returns_reader;
  for (std::int64_t end = segment.end; end > segment.begin;) {
    const std::int64_t begin = end - segment.begin < kChunk ? segment.begin : end - kChunk;
    const Chunk chunk = {begin, end - begin};
    const std::uint8_t* mask = masks(in.mask, chunk);
    // false for NaN: what is not a number reaches every token to the left
    for (std::int64_t i = chunk.size; i-- > 0 && !(incoming < kNothing && incoming > -kNothing);) {
      if (mask[i] == 0) continue;
      advantages[begin + i] = static_cast<float>(static_cast<double>(advantages[begin + i]) + incoming);
      returns[begin + i] = static_cast<float>(static_cast<double>(returns[begin + i]) + incoming);
      incoming *= decay;
    }
    add_moments(advantage_reader({advantages, FloatType::float32}, chunk),
                returns_reader({returns, FloatType::float32}, chunk), mask, chunk.size, *sums);
    end = begin;
  }
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
