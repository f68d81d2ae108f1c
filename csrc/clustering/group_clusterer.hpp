// Clusters one group after another, reusing its memory. One for each thread.
#pragma once

#include <vector>

#include "gram_space.hpp"
#include "isodata_common.hpp"
#include "rlsft/similarity.hpp"

namespace rlsft::isodata_detail {

template <typename T>
class GroupClusterer {
 public:
  // `threads` share the rows of a group that is clustered by coordinates.
  GroupClusterer(const IsodataInput<T>& input, const IsodataOptions& options, int threads)
      : input_(input), options_(options), threads_(threads) {}

  // Whether a group of n rows can be clustered by its Gram matrix.
  bool suits_gram(std::int64_t n) const;

  // Appends the group's clusters to `out` and writes its labels; false, with neither done, when a value of the group
  // is NaN, infinite or too large. `gram`: of this group, when somebody has computed it already.
  // scores [n]: tie-break of the medoids, or null.
  bool cluster(std::int64_t group, const GroupGram<T>* gram, const double* scores, std::int32_t* labels,
               IsodataOutput<T>& out);

 private:
  const T* points(std::int64_t group) const { return input_.points + input_.offsets[group] * input_.d; }
  std::int64_t size(std::int64_t group) const { return input_.offsets[group + 1] - input_.offsets[group]; }
  bool by_double_gram(std::int64_t group, const double* scores, std::int32_t* labels, IsodataOutput<T>& out);
  template <typename G>
  bool by_gram(std::int64_t group, const GroupGram<G>& gram, const double* scores, std::int32_t* labels,
               IsodataOutput<T>& out);
  void by_coordinates(std::int64_t group, const double* scores, std::int32_t* labels, IsodataOutput<T>& out);

  const IsodataInput<T>& input_;
  const IsodataOptions& options_;
  const int threads_;
  Decider decider_;
  GroupGram<T> own_gram_;
  GroupGram<double> double_gram_;
  std::vector<double> wide_rows_;
  GramSpace<T> gram_space_;
  BallHall<GramSpace<T>> gram_loop_;
};

}  // namespace rlsft::isodata_detail
