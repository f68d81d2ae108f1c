"""linear_logprob with the vocabulary split over the ranks of a process group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlsft_kernels._backend import Backend, choose_backend
from rlsft_kernels._checks import require_choice, require_positive_int
from rlsft_kernels._head.gradients import Needs, scatter_rows
from rlsft_kernels._head.head import (
    Head,
    Tokens,
    check_transform,
    checked_head,
    labelled_tokens,
    spread_rows,
    statistics_dtype,
)
from rlsft_kernels._head.passes import fold_logits, gradients_by_columns, live_rows, row_gradients
from rlsft_kernels._head.rows import FoldState, finish_fold
from rlsft_kernels._head.select import SUPPORTED, row_kernels
from rlsft_kernels._head.temperature import flat_temperature
from rlsft_kernels._head.tiling import DEFAULT_TILE_BYTES
from rlsft_kernels.linear_logprob.reference import LogprobOutput
from rlsft_kernels.linear_logprob.tiled import UpstreamGradients, origin_of

_STATE = tuple(field.name for field in fields(FoldState))
_OUTPUTS = ("logprob", "entropy", "lse", "log_sum_sq_probs", "mean_logit", "is_top1")


def vocab_parallel_linear_logprob(
    hidden: Tensor,  # [..., H], the same on every rank
    weight: Tensor,  # [V_rank, H], this rank's rows of the head
    targets: Tensor,  # [...] int64, ids in the whole vocabulary, the same on every rank
    *,
    group: dist.ProcessGroup | None,
    vocab_start: int,
    vocab_size: int,
    bias: Tensor | None = None,  # [V_rank]
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    outputs: Sequence[str] = ("logprob",),
    ignore_index: int = -100,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    backend: Backend = "auto",
) -> LogprobOutput:
    """`linear_logprob` of a head whose rows are split over the ranks of a group; every rank gets the same result.

    Each rank folds the logits of its own columns; one all-gather of their sums, at most seven numbers a token, and a
    merge in rank order give the statistics of the whole row. The backward is local but for one all-reduce of the
    gradient by `hidden`.

    Args:
        hidden: last hidden states.
        weight: the rank's share of the output embedding: columns `vocab_start` to `vocab_start + V_rank`.
        targets: token ids, or `ignore_index`.
        group: the ranks that share the vocabulary; None is the default group.
        vocab_start: first token id of this rank.
        vocab_size: tokens of all ranks together.
        bias: the rank's share of the bias.
        temperature: a positive number, or one per token.
        softcap: cap of the final logits.
        logit_scale: factor on the logits.
        outputs: names of the fields of `LogprobOutput` to compute.
        ignore_index: target value of rows to leave out.
        tile_bytes: memory of the logits tile, an upper limit.
        backend: which implementation runs; "auto" picks by device and dtype.

    Raises:
        RuntimeError: torch.distributed is not initialised.
        TypeError: a dtype does not fit.
        ValueError: a shape, device or value does not fit; on the CPU also a target outside the vocabulary.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError("vocab_parallel_linear_logprob needs torch.distributed; call init_process_group first")
    hidden, weight, bias = checked_head(hidden, weight, targets, bias)
    check_transform(softcap, logit_scale)
    for name in outputs:
        require_choice("outputs", name, LogprobOutput._fields)
    require_positive_int("tile_bytes", tile_bytes)
    require_positive_int("vocab_size", vocab_size)
    if vocab_start < 0 or vocab_start + len(weight) > vocab_size:
        raise ValueError(
            f"vocab_start must put this rank's {len(weight)} rows inside vocab_size={vocab_size}, got {vocab_start}"
        )
    temperature_N, temperature_one = flat_temperature(temperature, targets)
    device_type, dtype = hidden.device.type, hidden.dtype
    op = "vocab_parallel_linear_logprob"
    chosen = choose_backend(op, backend, device_type=device_type, dtype=dtype, supported=SUPPORTED)
    spread = temperature_one if temperature_N is None else temperature_N.to(statistics_dtype(dtype))
    settings = (spread, softcap, logit_scale, ignore_index, tile_bytes, chosen, group, vocab_start, vocab_size)
    found = _VocabParallel.apply(
        hidden.reshape(-1, hidden.shape[-1]), weight, bias, targets.reshape(-1), frozenset(outputs), settings
    )
    named = zip(_OUTPUTS, found, strict=True)
    return LogprobOutput(**{name: x.view(targets.shape) for name, x in named if name in outputs})


class _VocabParallel(torch.autograd.Function):
    """An autograd function and no custom op: a process group cannot be an operator's argument."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        wanted: frozenset[str],
        settings: tuple[Any, ...],
    ) -> tuple[Tensor | None, ...]:
        spread, softcap, logit_scale, ignore_index, tile_bytes, chosen, group, vocab_start, vocab_size = settings
        head, kernels = Head((weight,), bias, softcap, logit_scale), row_kernels(chosen)
        tokens, rows_L = labelled_tokens((hidden,), targets, spread, ignore_index, vocab_size)
        local = Tokens(tokens.hiddens, tokens.targets - vocab_start, tokens.temperature)
        asked = wanted | {"logprob", "row_max", "log_sum"}
        state = merge_states(_gather(fold_logits(head, kernels, local, asked, tile_bytes), vocab_start, group))
        values = finish_fold(state, tokens.targets, vocab_size, asked, statistics_dtype(head.dtype))
        ctx.head, ctx.kernels, ctx.local, ctx.rows_L, ctx.group = head, kernels, local, rows_L, group
        ctx.values, ctx.tile_bytes, ctx.labelled_N = values, tile_bytes, targets != ignore_index
        ctx.set_materialize_grads(False)
        out = tuple(spread_rows(values[name], rows_L, ctx.labelled_N) if name in wanted else None for name in _OUTPUTS)
        ctx.mark_non_differentiable(*(x for x in out[3:] if x is not None))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        num_rows, wide = len(ctx.labelled_N), statistics_dtype(ctx.head.dtype)
        by = UpstreamGradients(*grads[:3]).of(ctx.rows_L, wide)
        if ctx.rows_L is None:
            by_logprob, by_entropy, by_lse = (None if x is None else torch.where(ctx.labelled_N, x, 0) for x in by)
            by = (by_logprob, by_entropy, by_lse)
        gradients = row_gradients(ctx.local.targets, ctx.local.temperature, ctx.values, *by)
        live_A = live_rows(*by)
        found = gradients_by_columns(
            ctx.head, ctx.kernels, ctx.local, gradients, live_A, Needs((needs_hidden,), (needs_weight,), needs_bias),
            ctx.tile_bytes, weight_dtype=ctx.head.dtype,
        )  # fmt: skip
        grad_hidden = scatter_rows(found.hiddens[0], origin_of(ctx.rows_L, live_A), num_rows)
        if grad_hidden is not None:  # each rank has the part that comes from its own columns
            total = grad_hidden.to(wide)
            dist.all_reduce(total, group=ctx.group)
            grad_hidden = total.to(grad_hidden.dtype)
        bias = ctx.head.bias
        grad_bias = found.bias if found.bias is None or bias is None else found.bias.to(bias.dtype)
        return grad_hidden, found.weights[0], grad_bias, None, None, None


def merge_states(states: list[FoldState]) -> FoldState:
    """The sums over all columns from those of parts, in the order of the parts: the same bits on every rank."""
    row_max = torch.stack([state.row_max for state in states]).amax(dim=0)

    def shrink(state: FoldState) -> Tensor:
        # a part that saw only -inf has sums of 0, and 0 * (-inf - -inf) would be NaN
        return torch.where(state.sum_exp == 0, 0, state.row_max - row_max)

    def add(name: str, terms: list[Tensor]) -> Tensor | None:
        return None if getattr(states[0], name) is None else torch.stack(terms).sum(dim=0)

    steps = [shrink(state) for state in states]
    shifted, squares, logits = [], [], []
    first: Tensor | None = None
    for state, step in zip(states, steps, strict=True):
        if state.sum_exp_shifted is not None:
            shifted.append(step.exp() * (state.sum_exp_shifted + step * state.sum_exp))
        if state.sum_exp_sq is not None:
            squares.append((2 * step).exp() * state.sum_exp_sq)
        if state.sum_logit is not None:
            logits.append(state.sum_logit)
        if state.first_largest is not None:  # the first part whose maximum is the row's
            here = torch.where(state.row_max == row_max, state.first_largest, -1)
            first = here if first is None else torch.where(first < 0, here, first)
    sum_exp = torch.stack([step.exp() * state.sum_exp for state, step in zip(states, steps, strict=True)]).sum(dim=0)
    target_logit = torch.stack([state.target_logit for state in states]).sum(dim=0)  # 0 but on the target's own rank
    return FoldState(
        row_max, sum_exp, target_logit, add("sum_exp_shifted", shifted), add("sum_exp_sq", squares),
        add("sum_logit", logits), first,
    )  # fmt: skip


def _gather(state: FoldState, vocab_start: int, group: dist.ProcessGroup | None) -> list[FoldState]:
    """Every rank's sums, in one packed all-gather."""
    present = [name for name in _STATE if getattr(state, name) is not None]
    first = state.first_largest
    if first is not None:
        state = replace(state, first_largest=torch.where(first < 0, first, first + vocab_start))
    columns: list[Tensor] = [getattr(state, name) for name in present]
    packed = torch.stack([x.to(state.sum_exp.dtype) for x in columns])  # token ids are exact below 2^24 even in float32
    parts = [torch.empty_like(packed) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, packed, group=group)
    return [_unpack(part, present) for part in parts]


def _unpack(part: Tensor, present: list[str]) -> FoldState:
    named: dict[str, Tensor | None] = dict.fromkeys(_STATE)
    named |= dict(zip(present, part.unbind(), strict=True))
    first = named["first_largest"]
    named["first_largest"] = None if first is None else first.long()
    return FoldState(**named)  # type: ignore[arg-type]
