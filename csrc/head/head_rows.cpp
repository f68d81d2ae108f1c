#include "rlsft/head_rows.hpp"

#include "head_kernels.hpp"
#include "rlsft/cpu.hpp"
#include "rlsft/parallel.hpp"
#include "rlsft/torch_team.hpp"

namespace rlsft {
namespace head_detail {

template <typename T>
const HeadKernels<T>& head_kernels() {
  return RLSFT_OF_ACTIVE_ISA(head_kernels<T>());
}

namespace {

// A logit costs about this much on one thread, fold or gradient: only decides whether threads are worth waking.
constexpr double kNsPerLogit = 0.6;

int threads_for(std::int64_t rows, std::int64_t columns, int threads) {
  return useful_threads(kNsPerLogit * static_cast<double>(rows) * static_cast<double>(columns), threads);
}

RowTransform transform_of(const HeadTransform& t, std::int64_t row) {
  return {t.bias, t.logit_scale, t.softcap, t.temperatures ? t.temperatures[row] : t.temperature};
}

RowFold read(const FoldState& state, std::int64_t i) {
  RowFold fold{state.row_max[i], state.sum_exp[i], state.target_logit[i], 0, 0, 0, -1,
               state.sum_exp_shifted != nullptr, state.sum_exp_sq != nullptr, state.sum_logit != nullptr,
               state.first_largest != nullptr};
  if (fold.want_shifted) fold.sum_exp_shifted = state.sum_exp_shifted[i];
  if (fold.want_sq) fold.sum_exp_sq = state.sum_exp_sq[i];
  if (fold.want_sum) fold.sum_logit = state.sum_logit[i];
  if (fold.want_first) fold.first_largest = state.first_largest[i];
  return fold;
}

void write(const RowFold& fold, const FoldState& state, std::int64_t i) {
  state.row_max[i] = fold.row_max;
  state.sum_exp[i] = fold.sum_exp;
  state.target_logit[i] = fold.target_logit;
  if (fold.want_shifted) state.sum_exp_shifted[i] = fold.sum_exp_shifted;
  if (fold.want_sq) state.sum_exp_sq[i] = fold.sum_exp_sq;
  if (fold.want_sum) state.sum_logit[i] = fold.sum_logit;
  if (fold.want_first) state.first_largest[i] = fold.first_largest;
}

template <typename T>
void fold_typed(const Tile& tile, const std::int64_t* targets, const HeadTransform& transform, const FoldState& state,
                int threads) {
  const HeadKernels<T>& kernels = head_kernels<T>();
  const T* values = static_cast<const T*>(tile.values);
  const auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      RowFold fold = read(state, i);
      kernels.fold(values + i * tile.row_stride, tile.columns, tile.column_start, targets[i],
                   transform_of(transform, i), fold);
      write(fold, state, i);
    }
  };
  parallel_for_beside_torch(tile.rows, threads_for(tile.rows, tile.columns, threads), body);
}

RowGradient gradient_of(const RowGradients& g, std::int64_t i, std::int64_t column_start) {
  return {g.targets[i] - column_start, g.row_max[i], g.log_sum[i], g.logprob[i],
          g.by_entropy ? g.entropy[i] : 0.0f, g.by_logprob ? g.by_logprob[i] : 0.0f,
          g.by_entropy ? g.by_entropy[i] : 0.0f, g.by_lse ? g.by_lse[i] : 0.0f, g.by_entropy != nullptr};
}

template <typename T>
void gradient_typed(const Tile& tile, const HeadTransform& transform, const RowGradients& gradients,
                    const std::int64_t* order, std::int64_t rows_out, void* out, std::int64_t out_stride, int threads) {
  const HeadKernels<T>& kernels = head_kernels<T>();
  const T* values = static_cast<const T*>(tile.values);
  T* results = static_cast<T*>(out);
  const auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t from = order ? order[i] : i;
      kernels.gradient(values + from * tile.row_stride, tile.columns, transform_of(transform, from),
                       gradient_of(gradients, from, tile.column_start), results + i * out_stride);
    }
  };
  parallel_for_beside_torch(rows_out, threads_for(rows_out, tile.columns, threads), body);
}

}  // namespace
}  // namespace head_detail

void fold_rows(const Tile& tile, const std::int64_t* targets, const HeadTransform& transform, const FoldState& state,
               int threads) {
  if (tile.type == TileType::float32) head_detail::fold_typed<float>(tile, targets, transform, state, threads);
  else head_detail::fold_typed<std::uint16_t>(tile, targets, transform, state, threads);
}

void gradient_rows(const Tile& tile, const HeadTransform& transform, const RowGradients& gradients,
                   const std::int64_t* order, std::int64_t rows_out, void* out, std::int64_t out_stride, int threads) {
  const auto typed = tile.type == TileType::float32 ? &head_detail::gradient_typed<float>
                                                    : &head_detail::gradient_typed<std::uint16_t>;
  typed(tile, transform, gradients, order, rows_out, out, out_stride, threads);
}

}  // namespace rlsft
