#include "rlsft/rank_and_cluster.hpp"

#include <memory>
#include <vector>

#include "over_groups.hpp"

namespace rlsft {
namespace {

using isodata_detail::GroupClusterer;

// Both jobs of one group after another, sharing the dot products where clustering can use them.
template <typename T>
class Worker {
 public:
  Worker(const IsodataInput<T>& input, const RankInput& rank, const IsodataOptions& options, int threads)
      : input_(input), rank_(rank), threads_(threads), clusterer_(input, options, threads),
        ranker_(rank.map, rank.options) {}

  bool run(std::int64_t group, T* scores, RankOutcome* outcome, std::int32_t* labels, IsodataOutput<T>& out) {
    const std::int64_t first = input_.offsets[group], m = input_.offsets[group + 1] - first;
    const bool shares = clusterer_.suits_gram(m);
    if (shares) {
      if (!gram_.compute(input_.points + first * input_.d, m, input_.d)) {
        outcome[group] = {kBadInput, 0.0};
        return false;
      }
      outcome[group] = ranker_.rank(gram_, m, part(rank_.teleport, first), part(rank_.start, first), scores + first);
    } else {
      const std::int64_t offsets[2] = {0, m};
      textrank_embeddings(input_.points + first * input_.d, input_.d, offsets, 1, rank_.map,
                          part(rank_.teleport, first), part(rank_.start, first), rank_.options, threads_,
                          scores + first, outcome + group);
    }
    if (outcome[group].n_iter < 0) return false;
    tie_breaks_.assign(scores + first, scores + first + m);
    return clusterer_.cluster(group, shares ? &gram_ : nullptr, tie_breaks_.data(), labels + first, out);
  }

 private:
  static const double* part(const double* all, std::int64_t begin) { return all == nullptr ? nullptr : all + begin; }

  const IsodataInput<T>& input_;
  const RankInput& rank_;
  const int threads_;
  GroupGram<T> gram_;
  GroupClusterer<T> clusterer_;
  GramRanker<T> ranker_;
  std::vector<double> tie_breaks_;
};

}  // namespace

template <typename T>
IsodataOutput<T> rank_and_cluster(const IsodataInput<T>& input, const RankInput& rank, const IsodataOptions& options,
                                  int threads, T* scores, RankOutcome* outcome, std::int32_t* labels) {
  return isodata_detail::over_groups(input, options, threads, [&](int inner_threads) {
    auto worker = std::make_unique<Worker<T>>(input, rank, options, inner_threads);
    return [=, worker = std::move(worker)](std::int64_t group, IsodataOutput<T>& out) {
      return worker->run(group, scores, outcome, labels, out);
    };
  });
}

template IsodataOutput<float> rank_and_cluster(const IsodataInput<float>&, const RankInput&, const IsodataOptions&,
                                               int, float*, RankOutcome*, std::int32_t*);
template IsodataOutput<double> rank_and_cluster(const IsodataInput<double>&, const RankInput&, const IsodataOptions&,
                                                int, double*, RankOutcome*, std::int32_t*);

}  // namespace rlsft
