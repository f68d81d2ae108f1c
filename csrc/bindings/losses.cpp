#include <algorithm>

#include "bindings.hpp"
#include "rlsft/gae.hpp"
#include "rlsft/pair_losses.hpp"
#include "rlsft/policy_value_loss.hpp"

namespace rlsft::bindings {
namespace {

using Values = py::array;  // float32, float16, or uint16 that holds bfloat16
using OptionalValues = std::optional<Values>;
using Mask = Array<std::uint8_t>;

Column column_of(const Values& values, std::int64_t count, const char* name) {
  require((values.flags() & py::array::c_style) != 0, std::string(name) + " must be contiguous");
  require(values.size() == count, std::string(name) + " has the wrong number of values");
  switch (values.dtype().num()) {
    case py::detail::npy_api::NPY_FLOAT_: return {values.data(), FloatType::float32};
    case py::detail::npy_api::NPY_USHORT_: return {values.data(), FloatType::bfloat16};
    default: break;
  }
  require(values.dtype().kind() == 'f' && values.itemsize() == 2,
          std::string(name) + " must be float32, float16 or uint16 that holds bfloat16");
  return {values.data(), FloatType::float16};
}

Column column_of(const OptionalValues& values, std::int64_t count, const char* name) {
  return values ? column_of(*values, count, name) : Column{nullptr, FloatType::float32};
}

float* output_of(Optional<float>& values, std::int64_t count) {
  if (!values) return nullptr;
  require(values->size() == count, "a gradient has the wrong number of values");
  return values->mutable_data();
}

const std::uint8_t* mask_of(const Optional<std::uint8_t>& mask, std::int64_t count) {
  require(!mask || mask->size() == count, "mask has the wrong number of values");
  return pointer_or_null(mask);
}

KlEstimator estimator_of(int kind) {
  require(kind >= 0 && kind <= 2, "kl_estimator must be 0 to 2");
  return static_cast<KlEstimator>(kind);
}

// Sums leave in float32, like everything else.
void write(const double* from, int count, Array<float>& to) {
  require(to.size() == count, "the statistics have the wrong number of values");
  float* out = to.mutable_data();
  for (int k = 0; k < count; ++k) out[k] = static_cast<float>(from[k]);
}

float policy_value(const Values& logprobs, const Values& old_logprobs, const Values& advantages,
                   const OptionalValues& values, const OptionalValues& old_values, const OptionalValues& returns,
                   const OptionalValues& entropy, const OptionalValues& ref_logprobs, const Mask& mask,
                   float advantage_mean, float advantage_scale, float clip_low, float clip_high,
                   std::optional<float> dual_clip, std::optional<float> value_clip, float vf_coef, float entropy_coef,
                   float kl_coef, int kl_estimator, int threads, Array<float>& grad_logprobs,
                   Optional<float>& grad_values, Optional<float>& grad_entropy, Array<float>& statistics) {
  const std::int64_t n = logprobs.size();
  const PolicyValueInputs in = {column_of(logprobs, n, "logprobs"),
                                column_of(old_logprobs, n, "old_logprobs"),
                                column_of(advantages, n, "advantages"),
                                column_of(values, n, "values"),
                                column_of(old_values, n, "old_values"),
                                column_of(returns, n, "returns"),
                                column_of(entropy, n, "entropy"),
                                column_of(ref_logprobs, n, "ref_logprobs"),
                                mask.data(),
                                n};
  require(mask.size() == n && grad_logprobs.size() == n, "mask and gradient must have one value a token");
  require(values.has_value() == old_values.has_value() && values.has_value() == returns.has_value() &&
              values.has_value() == grad_values.has_value() && entropy.has_value() == grad_entropy.has_value(),
          "values, old_values, returns and their gradient come together, entropy and its gradient too");
  const PolicyValueSettings settings = {clip_low,      clip_high,
                                        dual_clip.has_value(), value_clip.has_value(),
                                        dual_clip.value_or(0), value_clip.value_or(0),
                                        vf_coef,       entropy_coef,
                                        kl_coef,       estimator_of(kl_estimator),
                                        advantage_mean, advantage_scale};
  const PolicyValueGradients out = {grad_logprobs.mutable_data(), output_of(grad_values, n),
                                    output_of(grad_entropy, n)};
  double sums[kPolicyValueSums], total;
  {
    py::gil_scoped_release release;
    total = policy_value_loss(in, settings, threads, out, sums);
  }
  write(sums, kPolicyValueSums, statistics);
  return static_cast<float>(total);
}

void gae(const Values& scores, const OptionalValues& logprobs, const OptionalValues& ref_logprobs,
         const Values& values, const Mask& mask, const Optional<float>& bootstrap_values, const Offsets& offsets,
         bool has_token_scores, float kl_coef, int kl_estimator, double gamma, double lam, bool whiten, int threads,
         Array<float>& advantages, Array<float>& returns, Array<float>& moments, Array<float>& statistics) {
  const std::int64_t n = values.size(), rows = count_groups(offsets, n);
  require(logprobs.has_value() || !ref_logprobs.has_value(), "ref_logprobs need logprobs");
  require(!bootstrap_values || bootstrap_values->size() == rows, "bootstrap_values must have one value a row");
  require(mask.size() == n && advantages.size() == n && returns.size() == n, "outputs must have one value a token");
  require(moments.size() == 2, "moments must have two values");
  const GaeInputs in = {column_of(scores, has_token_scores ? n : rows, "scores"),
                        has_token_scores,
                        column_of(logprobs, n, "logprobs"),
                        column_of(ref_logprobs, n, "ref_logprobs"),
                        column_of(values, n, "values"),
                        mask.data(),
                        {pointer_or_null(bootstrap_values), FloatType::float32},
                        offsets.data(),
                        rows};
  const GaeSettings settings = {kl_coef, estimator_of(kl_estimator), gamma, lam, whiten};
  float *advantages_out = advantages.mutable_data(), *returns_out = returns.mutable_data();
  float* moments_out = moments.mutable_data();
  double numbers[kGaeStatistics];
  {
    py::gil_scoped_release release;
    kl_shaped_gae(in, settings, threads, advantages_out, returns_out, moments_out, numbers);
  }
  write(numbers, kGaeStatistics, statistics);
}

// Turns sums over the pairs that count, their number first, into means.
void write_means(double* sums, int count, Array<float>& statistics) {
  for (int k = 1; k < count; ++k) sums[k] /= std::max(1.0, sums[0]);
  write(sums, count, statistics);
}

double count_pairs(const std::uint8_t* mask, std::int64_t n) {
  if (mask == nullptr) return static_cast<double>(n);
  return static_cast<double>(n - std::count(mask, mask + n, std::uint8_t{0}));
}

float reward_pairs(const Values& chosen, const Values& rejected, const OptionalValues& margin, float center_coef,
                   int threads, Array<float>& grad_chosen, Array<float>& grad_rejected, Array<float>& statistics) {
  const std::int64_t n = chosen.size();
  const PairInputs in = {column_of(chosen, n, "chosen"), column_of(rejected, n, "rejected"),
                         column_of(margin, n, "margin"), nullptr, n};
  require(grad_chosen.size() == n && grad_rejected.size() == n, "gradients must have one value a pair");
  const double normalizer = std::max(1.0, count_pairs(nullptr, n));
  const PairGradients out = {grad_chosen.mutable_data(), grad_rejected.mutable_data(),
                             static_cast<float>(1 / normalizer)};
  double sums[kRewardPairSums], total;
  {
    py::gil_scoped_release release;
    total = pairwise_reward_loss(in, center_coef, threads, out, sums);
  }
  write_means(sums, kRewardPairSums, statistics);
  return static_cast<float>(total / normalizer);
}

float pairs(const Values& delta_real, const Values& delta_generated, const Optional<std::uint8_t>& mask,
            std::optional<double> normalizer, int kind, float beta, float offset, float label_smoothing, int threads, Array<float>& grad_real,
            Array<float>& grad_generated, Array<float>& statistics) {
  const std::int64_t n = delta_real.size();
  const PairInputs in = {column_of(delta_real, n, "delta_real"), column_of(delta_generated, n, "delta_generated"),
                         Column{nullptr, FloatType::float32}, mask_of(mask, n), n};
  require(kind >= 0 && kind <= static_cast<int>(PairKind::kliep), "kind must be 0 to 4");
  require(grad_real.size() == n && grad_generated.size() == n, "gradients must have one value a pair");
  const PairSettings settings = {static_cast<PairKind>(kind), beta, offset, label_smoothing};
  const double divisor = normalizer.value_or(std::max(1.0, count_pairs(in.mask, n)));
  const PairGradients out = {grad_real.mutable_data(), grad_generated.mutable_data(), static_cast<float>(1 / divisor)};
  double sums[kPairSums], total;
  {
    py::gil_scoped_release release;
    total = pair_loss(in, settings, threads, out, sums);
  }
  write_means(sums, kPairSums, statistics);
  return static_cast<float>(total / divisor);
}

}  // namespace

void bind_losses(py::module_& m) {
  m.def("policy_value_loss", &policy_value, py::arg("logprobs"), py::arg("old_logprobs"), py::arg("advantages"),
        py::arg("values"), py::arg("old_values"), py::arg("returns"), py::arg("entropy"), py::arg("ref_logprobs"),
        py::arg("mask").noconvert(), py::arg("advantage_mean"), py::arg("advantage_scale"), py::arg("clip_low"),
        py::arg("clip_high"), py::arg("dual_clip"), py::arg("value_clip"), py::arg("vf_coef"),
        py::arg("entropy_coef"), py::arg("kl_coef"), py::arg("kl_estimator"), py::arg("threads"),
        py::arg("grad_logprobs").noconvert(), py::arg("grad_values").noconvert(),
        py::arg("grad_entropy").noconvert(), py::arg("statistics").noconvert());
  m.def("kl_shaped_gae", &gae, py::arg("scores"), py::arg("logprobs"), py::arg("ref_logprobs"), py::arg("values"),
        py::arg("mask").noconvert(), py::arg("bootstrap_values").noconvert(), py::arg("offsets").noconvert(),
        py::arg("has_token_scores"), py::arg("kl_coef"), py::arg("kl_estimator"), py::arg("gamma"), py::arg("lam"),
        py::arg("whiten"), py::arg("threads"), py::arg("advantages").noconvert(), py::arg("returns").noconvert(),
        py::arg("moments").noconvert(), py::arg("statistics").noconvert());
  m.def("pairwise_reward_loss", &reward_pairs, py::arg("chosen"), py::arg("rejected"), py::arg("margin"),
        py::arg("center_coef"), py::arg("threads"), py::arg("grad_chosen").noconvert(),
        py::arg("grad_rejected").noconvert(), py::arg("statistics").noconvert());
  m.def("pair_loss", &pairs, py::arg("delta_real"), py::arg("delta_generated"), py::arg("mask").noconvert(),
        py::arg("normalizer"), py::arg("kind"), py::arg("beta"), py::arg("offset"), py::arg("label_smoothing"), py::arg("threads"),
        py::arg("grad_real").noconvert(), py::arg("grad_generated").noconvert(), py::arg("statistics").noconvert());
}

}  // namespace rlsft::bindings
