// Clusters one group after another, reusing its memory. One for each thread.
#pragma once

#include <vector>

#include "gram_space.hpp"
#include "isodata_common.hpp"
#include "rlsft/similarity.hpp"
#include "str_gram.hpp"
#include "str_loop.hpp"

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
  // False: undecided, and nothing was written.
  bool by_gram(std::int64_t group, const GroupGram<T>& gram, const double* scores, std::int32_t* labels,
               IsodataOutput<T>& out);
  template <typename X, typename G>
  bool by_dots(std::int64_t group, const X* rows, const GroupGram<G>& gram, const double* scores,
               std::int32_t* labels, IsodataOutput<T>& out);
  void by_coordinates(std::int64_t group, const double* scores, std::int32_t* labels, IsodataOutput<T>& out);
  void widen(std::int64_t group);

  // What both variants need of rows of type X.
  template <typename X>
  struct Workspace {
    GramSpace<X> ball_hall;
    BallHall<GramSpace<X>> ball_hall_loop;
    StrGram<X> str;
    StrLoop<StrGram<X>> str_loop;
  };
  Workspace<float>& workspace(const float*) { return float_workspace_; }
  Workspace<double>& workspace(const double*) { return double_workspace_; }

  const IsodataInput<T>& input_;
  const IsodataOptions& options_;
  const int threads_;
  Decider decider_;
  GroupGram<T> own_gram_;
  GroupGram<double> wide_gram_;
  std::vector<double> wide_rows_;  // a copy in float64, of unit length in cosine geometry
  Workspace<float> float_workspace_;
  Workspace<double> double_workspace_;
};

}  // namespace rlsft::isodata_detail
