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

// Every row in pieces of at most kBlock tokens, left to right.
std::vector<GaeSegment> cut(const GaeInputs& in, double* sequences) {
  std::vector<GaeSegment> segments;
  segments.reserve(static_cast<std::size_t>(in.rows + in.offsets[in.rows] / kBlock));
  *sequences = 0;
  for (std::int64_t row = 0; row < in.rows; ++row) {
    const std::int64_t last = last_token(in.mask, in.offsets[row], in.offsets[row + 1]);
    *sequences += last >= 0;
    for (std::int64_t at = in.offsets[row]; at < in.offsets[row + 1]; at += kBlock) {
      segments.push_back({row, at, std::min(in.offsets[row + 1], at + kBlock), last, 0, 0});
    }
  }
  return segments;
}

float bootstrap(const GaeInputs& in, std::int64_t row) {
  if (in.bootstrap_values.data == nullptr) return 0;
  return static_cast<const float*>(in.bootstrap_values.data)[row];
}

bool same_row(const std::vector<GaeSegment>& segments, std::size_t left, std::size_t right) {
  return right < segments.size() && segments[left].row == segments[right].row;
}

// What each segment passes on when nothing comes in: needed of all but the leftmost of each row.
std::vector<GaeSummary> summarise(const GaeInputs& in, const GaeSettings& settings, int threads,
                                  const std::vector<GaeSegment>& segments) {
  std::vector<GaeSummary> summaries(segments.size());
  std::vector<std::size_t> inner;
  for (std::size_t k = 1; k < segments.size(); ++k) {
    if (same_row(segments, k - 1, k)) inner.push_back(k);
  }
  const int useful = useful_threads(static_cast<double>(inner.size()) * kBlock * kNsPerToken, threads);
  parallel_for(static_cast<std::int64_t>(inner.size()), useful, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::size_t k = inner[static_cast<std::size_t>(i)];
      loss_kernels().gae(in, settings, segments[k], nullptr, nullptr, nullptr, &summaries[k]);
    }
  });
  return summaries;
}

// Right to left: n tokens that count turn (A_in, V_in) into A + decay^n A_in + gamma decay^(n - 1) V_in and V.
void connect(const GaeInputs& in, const GaeSettings& settings, const std::vector<GaeSummary>& summaries,
             std::vector<GaeSegment>& segments) {
  const double decay = settings.gamma * settings.lam;
  for (std::size_t k = segments.size(); k-- > 0;) {
    GaeSegment& here = segments[k];
    if (!same_row(segments, k, k + 1)) {
      here.next_value = static_cast<double>(bootstrap(in, here.row));
      continue;
    }
    const GaeSegment& right = segments[k + 1];
    const GaeSummary& summary = summaries[k + 1];
    here.next_advantage = right.next_advantage;
    here.next_value = right.next_value;
    if (summary.tokens == 0) continue;
    const double fade = std::pow(decay, static_cast<double>(summary.tokens - 1));
    here.next_advantage =
        summary.advantage + fade * (decay * right.next_advantage + settings.gamma * right.next_value);
    here.next_value = summary.value;
  }
}

GaeSums run(const GaeInputs& in, const GaeSettings& settings, int threads, const std::vector<GaeSegment>& segments,
            float* advantages, float* returns) {
  std::vector<GaeSums> sums(segments.size());
  const int useful = useful_threads(static_cast<double>(in.offsets[in.rows]) * kNsPerToken, threads);
  parallel_for(static_cast<std::int64_t>(segments.size()), useful, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::size_t k = static_cast<std::size_t>(i);
      loss_kernels().gae(in, settings, segments[k], advantages, returns, &sums[k], nullptr);
    }
  });
  GaeSums total = {0, 0, 0, {0, 0, 0}, {0, 0, 0}};
  for (const GaeSums& each : sums) {
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
  std::vector<GaeSegment> segments = cut(inputs, &sequences);
  if (inputs.has_token_scores) {
    for (GaeSegment& segment : segments) segment.score_at = -1;
  }
  connect(inputs, settings, summarise(inputs, settings, threads, segments), segments);
  const GaeSums sums = run(inputs, settings, threads, segments, advantages, returns);
  describe(sums, settings, sequences, statistics);
  const bool enough = sums.advantages.count > 1;
  moments[0] = enough ? static_cast<float>(sums.advantages.mean) : 0.0f;
  moments[1] = enough ? static_cast<float>(1 / std::sqrt(variance(sums.advantages) + 1e-8)) : 1.0f;
  if (settings.whiten && enough) whiten_all(inputs, threads, moments[0], moments[1], advantages);
}

}  // namespace rlsft
