#pragma once

namespace rlsft::losses_detail::RLSFT_ISA {
namespace {

using PolicySums = Sums<kRatioCenteredSquare>;  // all but the last two, which are no sums

// max(-A r, -A clip(r)), bounded by -A * dual_clip where A < 0. Where both branches are equal the unclipped one gives
// the slope; beyond the clamp of the log-ratio there is none.
struct Policy {
  Floats loss, slope, log_ratio, ratio, expm1;
  Ints is_clipped, is_bounded;
};
inline Policy policy_of(Floats logp, Floats old, Floats advantage, const PolicyValueSettings& s) {
  Policy p;
  const Floats difference = logp - old;
  p.log_ratio = clamp(difference, -kMaxLogRatio, kMaxLogRatio);
  const vm::Exponentials e = vm::exp_and_expm1(p.log_ratio);
  p.ratio = e.exp;
  p.expm1 = e.expm1;
  const Floats unclipped = -advantage * p.ratio;
  const Floats clipped = -advantage * clamp(p.ratio, 1.0f - s.clip_low, 1.0f + s.clip_high);
  p.is_clipped = clipped > unclipped;
  p.loss = p.is_clipped ? clipped : unclipped;
  p.is_bounded = Ints{};
  if (s.has_dual_clip) {
    const Floats bound = -advantage * s.dual_clip;
    p.is_bounded = (advantage < 0) & (p.loss > bound);
    p.loss = p.is_bounded ? bound : p.loss;
  }
  const Ints flat = p.is_clipped | p.is_bounded | (difference > kMaxLogRatio) | (difference < -kMaxLogRatio);
  p.slope = flat ? Floats{} : unclipped;
  return p;
}

// max((v - R)^2, (clip(v, old +- eps) - R)^2) / 2
struct Value {
  Floats loss, slope;
  Ints is_clipped;
};
inline Value value_of(Floats value, Floats old, Floats target, const PolicyValueSettings& s) {
  const Floats error = value - target;
  if (!s.has_value_clip) return {error * error * 0.5f, error, Ints{}};
  const Floats move = value - old;
  const Floats capped = old + clamp(move, -s.value_clip, s.value_clip) - target;
  const Ints is_clipped = capped * capped > error * error;
  const Ints is_inside = (move <= s.value_clip) & (move >= -s.value_clip);
  const Floats kept = is_clipped ? capped : error;
  return {kept * kept * 0.5f, is_clipped ? only(is_inside, capped) : error, is_clipped};
}

struct PolicyColumns {
  const float *logp, *old, *advantage, *value, *old_value, *target, *entropy, *ref;
  const std::uint8_t* mask;
  float *ratio, *grad_logp, *grad_value, *grad_entropy;
};

inline void policy_register(const PolicyColumns& c, std::int64_t i, const PolicyValueSettings& s, PolicySums& sums,
                            Floats& ratio_max) {
  const Ints mask = lanes_of(c.mask + i);
  const Floats advantage = (load(c.advantage + i) - s.advantage_mean) * s.advantage_scale;
  const Policy p = policy_of(load(c.logp + i), load(c.old + i), advantage, s);
  sums.chunk[kTokens] += ones(mask);
  sums.chunk[kPolicyLoss] += only(mask, p.loss);
  sums.chunk[kApproxKl1] -= only(mask, p.log_ratio);
  sums.chunk[kApproxKl2] += only(mask, p.log_ratio * p.log_ratio * 0.5f);
  sums.chunk[kApproxKl3] += only(mask, p.expm1 - p.log_ratio);
  sums.chunk[kClipped] += ones(mask & p.is_clipped);
  sums.chunk[kClippedLower] += ones(mask & p.is_bounded);
  sums.chunk[kRatio] += only(mask, p.ratio);
  ratio_max = larger(ratio_max, only(mask, p.ratio));
  store(c.ratio + i, p.ratio);
  Floats slope = p.slope;
  if (c.ref != nullptr) {
    const Kl kl = kl_of(load(c.logp + i) - load(c.ref + i), s.kl_estimator);
    sums.chunk[kKlRef] += only(mask, kl.estimate);
    slope = slope + s.kl_coef * kl.slope;
  }
  store(c.grad_logp + i, only(mask, slope));
  if (c.value != nullptr) {
    const Value v = value_of(load(c.value + i), load(c.old_value + i), load(c.target + i), s);
    sums.chunk[kValueLoss] += only(mask, v.loss);
    sums.chunk[kValueClipped] += ones(mask & v.is_clipped);
    store(c.grad_value + i, only(mask, s.vf_coef * v.slope));
  }
  if (c.entropy != nullptr) {
    sums.chunk[kEntropy] += only(mask, load(c.entropy + i));
    store(c.grad_entropy + i, only(mask, all(-s.entropy_coef)));
  }
}

void policy_value(const PolicyValueInputs& in, const PolicyValueSettings& settings, std::int64_t begin,
                  std::int64_t end, const PolicyValueGradients& out, double* result) {
  Reader logp, old, advantage, value, old_value, target, entropy, ref;
  MaskReader mask;
  Writer grad_logp, grad_value, grad_entropy;
  alignas(64) float ratio[kChunk];
  PolicySums sums;
  Floats ratio_max = {};
  Moments ratios = {0, 0, 0};
  for (std::int64_t at = begin; at < end; at += kChunk) {
    const Chunk chunk = {at, end - at < kChunk ? end - at : kChunk};
    const PolicyColumns columns = {
        logp(in.logprobs, chunk), old(in.old_logprobs, chunk), advantage(in.advantages, chunk),
        value(in.values, chunk), old_value(in.old_values, chunk), target(in.returns, chunk),
        entropy(in.entropy, chunk), ref(in.ref_logprobs, chunk), mask(in.mask, chunk), ratio,
        grad_logp.open(out.logprobs, chunk), grad_value.open(out.values, chunk),
        grad_entropy.open(out.entropy, chunk)};
    for (std::int64_t i = 0; i < chunk.size; i += kLanes) policy_register(columns, i, settings, sums, ratio_max);
    merge(ratios, moments_of(ratio, columns.mask, (chunk.size + kLanes - 1) / kLanes * kLanes));
    sums.end_chunk();
    grad_logp.close();
    grad_value.close();
    grad_entropy.close();
  }
  for (int k = 0; k < kRatioCenteredSquare; ++k) result[k] = sums.total(k);
  result[kRatioCenteredSquare] = ratios.squares;
  float lanes[kLanes];
  store(lanes, ratio_max);
  result[kRatioMax] = 0;
  for (int i = 0; i < kLanes; ++i) {
    if (lanes[i] > result[kRatioMax] || lanes[i] != lanes[i]) result[kRatioMax] = lanes[i];
  }
}

}  // namespace
}  // namespace rlsft::losses_detail::RLSFT_ISA
