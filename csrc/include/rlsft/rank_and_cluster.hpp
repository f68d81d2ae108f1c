// TextRank and ISODATA of the same embeddings in one pass over the data.
#pragma once

#include <cstdint>

#include "rlsft/edges.hpp"
#include "rlsft/isodata.hpp"
#include "rlsft/textrank.hpp"

namespace rlsft {

struct RankInput {
  EdgeMap map;
  const double* teleport = nullptr;  // as in textrank_embeddings()
  const double* start = nullptr;
  RankOptions options;
};

// What textrank_embeddings() and then isodata() with those scores give, bit for bit; small groups compute their dot
// products once and are read from memory once. `input.scores` is ignored. A group whose `outcome` says that nothing was
// computed, or that bad_group of the result names, ends the call early: the rest of the outputs is useless then.
template <typename T>
IsodataOutput<T> rank_and_cluster(const IsodataInput<T>& input, const RankInput& rank, const IsodataOptions& options,
                                  int threads,
                                  T* scores,             // [offsets[num_groups]], out
                                  RankOutcome* outcome,  // [num_groups], out
                                  std::int32_t* labels);  // [offsets[num_groups]], out

}  // namespace rlsft
