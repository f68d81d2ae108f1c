#include "fuzz_input.hpp"
#include "rlsft/rank_and_cluster.hpp"

namespace {

using namespace rlsft_fuzz;
using rlsft::EdgeMap;
using rlsft::IsodataOptions;
using rlsft::IsodataOutput;
using rlsft::IsodataVariant;

IsodataOptions cluster_options(Input& in) {
  IsodataOptions o;
  o.variant = in.flag() ? IsodataVariant::str : IsodataVariant::ball_hall;
  o.n_clusters = in.between(0, 9);
  o.cosine = in.flag();
  o.seed = in.byte();
  o.max_iter = static_cast<int>(in.pick<std::int64_t>({8, 1, 20}));
  o.var_threshold = in.pick({0.05, 0.0, 0.5});
  o.min_samples = static_cast<double>(in.between(1, 3));
  o.max_std = in.pick({-1.0, 0.1, 1.0});
  o.split_by_largest = in.flag();
  o.discard_as_noise = in.flag();
  return o;
}

template <typename T>
void run(Input& in) {
  Reals kind;
  const std::uint8_t shape = in.byte();
  kind.wide = (shape & 1) != 0;
  kind.bad = (shape & 6) == 6;
  const std::int64_t d = in.between(1, 24);
  const std::vector<std::int64_t> offsets = in.offsets(3, 20);
  const std::int64_t groups = static_cast<std::int64_t>(offsets.size()) - 1, rows = offsets.back();
  const EdgeMap map = in.pick({EdgeMap::shifted_cosine, EdgeMap::relu_cosine});
  const IsodataOptions options = cluster_options(in);
  const std::vector<double> teleport = in.flag() ? in.distribution(offsets) : std::vector<double>();
  const int threads = 1 + in.byte() % 3;
  const std::vector<T> points = in.rows<T>(rows, d, kind);

  rlsft::RankInput rank{map, teleport.empty() ? nullptr : teleport.data(), nullptr, {}};
  rlsft::IsodataInput<T> input{points.data(), d, offsets.data(), groups};
  const std::size_t size = static_cast<std::size_t>(rows);
  std::vector<T> scores(size, T(-7)), scores_alone(size, T(-7));
  std::vector<std::int32_t> labels(size, -7), labels_alone(size, -7);
  std::vector<rlsft::RankOutcome> outcome(offsets.size()), outcome_alone(offsets.size());
  const IsodataOutput<T> both = rlsft::rank_and_cluster<T>(input, rank, options, threads, scores.data(), outcome.data(),
                                                           labels.data());
  rlsft::textrank_embeddings<T>(points.data(), d, offsets.data(), groups, map, rank.teleport, nullptr, rank.options, 1,
                                scores_alone.data(), outcome_alone.data());
  const std::vector<double> tie_breaks(scores_alone.begin(), scores_alone.end());
  input.scores = tie_breaks.data();
  const IsodataOutput<T> alone = rlsft::isodata<T>(input, options, 1, labels_alone.data());
  bool is_bad = alone.bad_group >= 0;
  for (std::int64_t g = 0; g < groups; ++g) is_bad |= outcome_alone[g].n_iter < 0;
  REQUIRE((both.bad_group >= 0) == is_bad);
  if (is_bad) return;
  REQUIRE(same_bits(scores, scores_alone) && labels == labels_alone);
  REQUIRE(same_bits(both.centers, alone.centers) && both.medoids == alone.medoids && both.stops == alone.stops);
  REQUIRE(both.center_offsets == alone.center_offsets && both.step_offsets == alone.step_offsets);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  in.flag() ? run<double>(in) : run<float>(in);
  return 0;
}
