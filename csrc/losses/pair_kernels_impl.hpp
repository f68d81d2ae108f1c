#pragma once

namespace rlsft::losses_detail::RLSFT_ISA {
namespace {

// softplus(-x) = -log sigmoid(x), and sigmoid(-x), of one exponential: neither overflows for any x.
struct Logistic {
  Floats loss, pull;
};
inline Logistic logistic(Floats x) {
  const Ints is_positive = x > 0;
  const Floats e = vm::exp(is_positive ? -x : x);  // NaN stays
  const Floats share = 1.0f / (1.0f + e);
  return {(is_positive ? Floats{} : -x) + vm::log1p(e), is_positive ? e * share : share};
}

struct PairColumns {
  const float *first, *second, *margin;
  const std::uint8_t* mask;
  float *grad_first, *grad_second;
  float scale;
};

inline void reward_register(const PairColumns& c, std::int64_t i, float center_coef, Sums<kRewardPairSums>& sums) {
  const Ints mask = lanes_of(c.mask + i);
  const Floats chosen = load(c.first + i), rejected = load(c.second + i);
  const Floats difference = chosen - rejected, center = chosen + rejected;
  const Logistic ranking = logistic(c.margin == nullptr ? difference : difference - load(c.margin + i));
  sums.chunk[kRewardPairs] += ones(mask);
  sums.chunk[kRanking] += only(mask, ranking.loss);
  sums.chunk[kCentering] += only(mask, center * center);
  sums.chunk[kCorrect] += ones(mask & (difference > 0));
  sums.chunk[kDifference] += only(mask, difference);
  sums.chunk[kChosen] += only(mask, chosen);
  sums.chunk[kRejected] += only(mask, rejected);
  const Floats push = center_coef == 0 ? Floats{} : (2.0f * center_coef) * center;  // 0 * inf is NaN
  store(c.grad_first + i, only(mask, c.scale * (push - ranking.pull)));
  store(c.grad_second + i, only(mask, c.scale * (push + ranking.pull)));
}

// Loss of a pair, its slopes by both sides, and whether little pull is left.
struct Pair {
  Floats loss, real, generated;
  Ints is_saturated;
};
inline Pair pair_of(Floats real, Floats generated, const PairSettings& s) {
  const Floats beta = all(s.beta);
  const Floats x = s.beta * (real - generated);
  const Floats rho_real = s.beta * real + s.offset, rho_generated = s.beta * generated + s.offset;
  switch (s.kind) {
    case PairKind::logistic: {
      const Logistic l = logistic(x);
      if (s.label_smoothing == 0) return {l.loss, -beta * l.pull, beta * l.pull, l.pull < kSaturatedPull};
      const Floats slope = beta * (s.label_smoothing - l.pull);
      return {l.loss + s.label_smoothing * x, slope, -slope, l.pull < kSaturatedPull};
    }
    case PairKind::linear: return {-x, -beta, beta, Ints{}};
    case PairKind::hinge: {
      const Ints is_far = x >= 1;
      return {is_far ? Floats{} : 1.0f - x, is_far ? Floats{} : -beta, is_far ? Floats{} : beta, is_far};
    }
    case PairKind::bernoulli: {
      const Logistic r = logistic(rho_real), g = logistic(-rho_generated);
      return {r.loss + g.loss, -beta * r.pull, beta * g.pull, (r.pull < kSaturatedPull) & (g.pull < kSaturatedPull)};
    }
    case PairKind::kliep: break;
  }
  const Ints is_clamped = rho_generated > kMaxPairExponent;
  const Floats weight = vm::exp(vm::at_most(rho_generated, all(kMaxPairExponent)));
  return {weight - rho_real, -beta, is_clamped ? Floats{} : beta * weight, is_clamped};
}

inline void pair_register(const PairColumns& c, std::int64_t i, const PairSettings& s, Sums<kPairSums>& sums) {
  const Ints mask = lanes_of(c.mask + i);
  const Floats real = load(c.first + i), generated = load(c.second + i);
  const Pair p = pair_of(real, generated, s);
  sums.chunk[kPairs] += ones(mask);
  sums.chunk[kPairLoss] += only(mask, p.loss);
  sums.chunk[kPairCorrect] += ones(mask & (real > generated));
  sums.chunk[kRewardReal] += only(mask, s.beta * real);
  sums.chunk[kRewardGenerated] += only(mask, s.beta * generated);
  sums.chunk[kMargin] += only(mask, s.beta * (real - generated));
  sums.chunk[kSaturated] += ones(mask & p.is_saturated);
  store(c.grad_first + i, only(mask, c.scale * p.real));
  store(c.grad_second + i, only(mask, c.scale * p.generated));
}

template <int kCount, typename Register>
void over_pairs(const PairInputs& in, std::int64_t begin, std::int64_t end, const PairGradients& out, double* result,
                Register body) {
  Reader first, second, margin;
  MaskReader mask;
  Writer grad_first, grad_second;
  Sums<kCount> sums;
  for (std::int64_t at = begin; at < end; at += kChunk) {
    const Chunk chunk = {at, end - at < kChunk ? end - at : kChunk};
    const PairColumns columns = {first(in.first, chunk), second(in.second, chunk), margin(in.margin, chunk),
                                 mask(in.mask, chunk), grad_first.open(out.first, chunk),
                                 grad_second.open(out.second, chunk), out.scale};
    for (std::int64_t i = 0; i < chunk.size; i += kLanes) body(columns, i, sums);
    sums.end_chunk();
    grad_first.close();
    grad_second.close();
  }
  for (int k = 0; k < kCount; ++k) result[k] = sums.total(k);
}

void reward_pairs(const PairInputs& in, float center_coef, std::int64_t begin, std::int64_t end,
                  const PairGradients& out, double* result) {
  over_pairs<kRewardPairSums>(in, begin, end, out, result,
                              [center_coef](const PairColumns& c, std::int64_t i, Sums<kRewardPairSums>& sums) {
                                reward_register(c, i, center_coef, sums);
                              });
}

void pairs(const PairInputs& in, const PairSettings& settings, std::int64_t begin, std::int64_t end,
           const PairGradients& out, double* result) {
  over_pairs<kPairSums>(in, begin, end, out, result,
                        [&settings](const PairColumns& c, std::int64_t i, Sums<kPairSums>& sums) {
                          pair_register(c, i, settings, sums);
                        });
}

}  // namespace
}  // namespace rlsft::losses_detail::RLSFT_ISA
