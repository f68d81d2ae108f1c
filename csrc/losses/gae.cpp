#include "rlsft/gae.hpp"

#include <cmath>
#include <cstring>

#include "block_sums.hpp"

namespace rlsft {
namespace {

using namespace losses_detail;

constexpr double kNsPerToken = 3;

// Position of the row's last token that counts, or -1.
std::int64_t last_token(const std::uint8_t* mask, std::int64_t begin, std::int64_t end) {
  for (; end - begin >= 8; end -= 8) {
    std::uint64_t eight;
    std::memcpy(&eight, mask + end - 8, sizeof eight);
    if (eight != 0) break;
  }
  while (end > begin && mask[end - 1] == 0) --end;
  return end > begin ? end - 1 : -1;
}

float bootstrap(const GaeInputs& in, std::int64_t row) {
  if (in.bootstrap_values.data == nullptr) return 0;
  return static_cast<const float*>(in.bootstrap_values.data)[row];
}

// Every row in pieces of at most kBlock tokens, left to right.
std::vector<GaeSegment> cut(const GaeInputs& in, double* sequences) {
  std::vector<GaeSegment> segments;
  segments.reserve(static_cast<std::size_t>(in.rows + in.offsets[in.rows] / kBlock));
  *sequences = 0;
  for (std::int64_t row = 0; row < in.rows; ++row) {
    const std::int64_t begin = in.offsets[row], end = in.offsets[row + 1];
    const std::int64_t last = last_token(in.mask, begin, end);
    *sequences += last >= 0;
    for (std::int64_t at = begin; at < end; at += kBlock) {
      const bool is_rightmost = at + kBlock >= end;
      segments.push_back({row, at, is_rightmost ? end : at + kBlock, in.has_token_scores ? -1 : last,
                          is_rightmost ? bootstrap(in, row) : 0.0f, end - begin <= kBlock});
    }
  }
  return segments;
}

struct Work {
  std::vector<GaeSegment> segments;
  std::vector<GaeSummary> summaries;
  std::vector<GaeSums> sums;
};

// body(k) for every segment
template <typename Body>
void over_segments(const Work& work, double ns, int threads, const Body& body) {
  const std::int64_t count = static_cast<std::int64_t>(work.segments.size());
  parallel_for(count, useful_threads(ns, threads), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t k = first; k < last; ++k) body(static_cast<std::size_t>(k));
  });
}

// incoming[k]: what comes in at the last token of segment k that counts. Right to left: n tokens that count turn
// (A_in, V_in) into A + decay^(n - 1) (decay A_in + gamma V_in) and V.
std::vector<double> incoming(const Work& work, double gamma, double decay) {
  std::vector<double> result(work.segments.size(), 0.0);
  double advantage = 0, value = 0;
  for (std::size_t k = work.segments.size(); k-- > 0;) {
    const bool is_rightmost = k + 1 == work.segments.size() || work.segments[k + 1].row != work.segments[k].row;
    if (is_rightmost) {  // its bootstrap value is in its summary already, unless no token of it counts
      advantage = 0;
      value = static_cast<double>(work.segments[k].next_value);
    } else {
      result[k] = decay * advantage + gamma * value;
    }
    const GaeSummary& summary = work.summaries[k];
    if (summary.tokens == 0) continue;
    const double fade = result[k] == 0 ? 0 : std::pow(decay, static_cast<double>(summary.tokens - 1));
    advantage = summary.advantage + fade * result[k];
    value = summary.value;
  }
  return result;
}

GaeSums run(const GaeInputs& in, const GaeSettings& settings, int threads, Work& work, float* advantages,
            float* returns) {
  work.summaries.resize(work.segments.size());
  work.sums.resize(work.segments.size());
  const double tokens = static_cast<double>(in.offsets[in.rows]), decay = settings.gamma * settings.lam;
  over_segments(work, tokens * kNsPerToken, threads, [&](std::size_t k) {
    loss_kernels().gae(in, settings, work.segments[k], advantages, returns, &work.sums[k], &work.summaries[k]);
  });
  if (!std::all_of(work.segments.begin(), work.segments.end(), [](const GaeSegment& s) { return s.is_whole_row; })) {
    const std::vector<double> comes_in = incoming(work, settings.gamma, decay);
    over_segments(work, tokens, threads, [&](std::size_t k) {
      if (work.segments[k].is_whole_row) return;
      loss_kernels().connect(in, work.segments[k], comes_in[k], decay, advantages, returns, &work.sums[k]);
    });
  }
  GaeSums total = {0, 0, 0, {0, 0, 0}, {0, 0, 0}};
  for (const GaeSums& each : work.sums) {
    total.kl += each.kl;
    total.score += each.score;
    total.value += each.value;
    merge(total.advantages, each.advantages);
    merge(total.returns, each.returns);
  }
  return total;
}

double variance(const Moments& moments) { return moments.count > 1 ? moments.squares / (moments.count - 1) : 0; }

void describe(const GaeSums& sums, const GaeSettings& settings, double sequences, double* statistics) {
  const double count = sums.advantages.count, tokens = std::max(1.0, count), rows = std::max(1.0, sequences);
  const double penalty = -static_cast<double>(settings.kl_coef) * sums.kl;
  statistics[kGaeCount] = count;
  statistics[kGaeSequences] = sequences;
  statistics[kGaeKl] = sums.kl / tokens;
  statistics[kGaeKlSum] = sums.kl / rows;
  statistics[kGaeNonScoreReward] = penalty / rows;
  statistics[kGaeScores] = sums.score / rows;
  statistics[kGaeRlhfReward] = (penalty + sums.score) / rows;
  statistics[kGaeAdvantagesMean] = sums.advantages.mean;
  statistics[kGaeAdvantagesVar] = variance(sums.advantages);
  statistics[kGaeReturnsMean] = sums.returns.mean;
  statistics[kGaeReturnsVar] = variance(sums.returns);
  statistics[kGaeValuesMean] = sums.value / tokens;
  statistics[kGaeTooFewToWhiten] = count <= 1 && settings.whiten;
}

void whiten_all(const GaeInputs& in, int threads, float mean, float scale, float* advantages) {
  const std::int64_t count = in.offsets[in.rows];
  parallel_for(count_blocks(count), useful_threads(static_cast<double>(count) * 0.5, threads),
               [&](std::int64_t first, std::int64_t last) {
                 const std::int64_t begin = first * kBlock, end = std::min(count, last * kBlock);
                 loss_kernels().whiten(advantages + begin, in.mask + begin, end - begin, mean, scale);
               });
}

}  // namespace

void kl_shaped_gae(const GaeInputs& inputs, const GaeSettings& settings, int threads, float* advantages,
                   float* returns, float* moments, double* statistics) {
  double sequences;
  Work work = {cut(inputs, &sequences), {}, {}};
  const GaeSums sums = run(inputs, settings, threads, work, advantages, returns);
  describe(sums, settings, sequences, statistics);
  const bool enough = sums.advantages.count > 1;
  moments[0] = enough ? static_cast<float>(sums.advantages.mean) : 0.0f;
  moments[1] = enough ? static_cast<float>(1 / std::sqrt(variance(sums.advantages) + 1e-8)) : 1.0f;
  if (settings.whiten && enough) whiten_all(inputs, threads, moments[0], moments[1], advantages);
}

}  // namespace rlsft
