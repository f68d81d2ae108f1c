"""What each rank of tests/ops/test_vocab_parallel.py runs: its share of a head, results to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlsft_kernels import LogprobOutput, linear_logprob, vocab_parallel_linear_logprob

OUTPUTS = ("logprob", "entropy", "lse", "log_sum_sq_probs", "mean_logit", "is_top1")
SIZES = {1: (50,), 2: (30, 20), 3: (1, 32, 17)}  # uneven shares of the vocabulary


# with impossible tokens the mean logit is -inf whatever it is divided by: one problem does without
PROBLEMS = ((torch.float32, True), (torch.bfloat16, True), (torch.float64, True), (torch.float32, False))


def problem(dtype: torch.dtype, impossible: bool) -> dict[str, Any]:
    """Targets in every share and at its edges, ignored rows, and tokens that the bias makes impossible."""
    torch.manual_seed(0)
    targets = torch.randint(0, 50, (23,))
    targets[:6] = torch.tensor([0, 1, 29, 30, 49, -100])
    bias = torch.randn(50)
    if impossible:
        bias[31:35] = -torch.inf
    targets[(targets > 30) & (targets < 35)] = 3
    tensors = {"hidden": torch.randn(23, 8), "weight": torch.randn(50, 8), "bias": bias}
    made: dict[str, Any] = {name: x.to(dtype).requires_grad_() for name, x in tensors.items()}
    return made | {"targets": targets, "temperature": torch.rand(23) + 0.5, "logit_scale": 0.9}


def loss_of(out: LogprobOutput) -> Tensor:
    """A gradient for every differentiable output and row."""
    torch.manual_seed(1)
    assert out.logprob is not None
    weights = torch.randn(3, 23, dtype=torch.float64).to(out.logprob.dtype)
    return (weights * torch.stack(tuple(out[:3]))).sum()  # type: ignore[arg-type]


def whole(dtype: torch.dtype, impossible: bool, backend: Any) -> tuple[LogprobOutput, list[Tensor]]:
    """The same without a group."""
    given = problem(dtype, impossible)
    out = linear_logprob(**given, outputs=OUTPUTS, backend=backend)
    return out, list(torch.autograd.grad(loss_of(out), [given[name] for name in ("hidden", "weight", "bias")]))


def main(folder: Path, rank: int, world: int, backend: Any) -> None:
    """One rank."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    start = sum(SIZES[world][:rank])
    share = slice(start, start + SIZES[world][rank])
    results = {}
    for dtype, impossible in PROBLEMS:
        if dtype == torch.float64 and backend == "native":
            continue
        given = problem(dtype, impossible)
        for name in ("weight", "bias"):
            given[name] = given[name][share].detach().requires_grad_()
        gathers = count_gathers()
        out = vocab_parallel_linear_logprob(
            **given, group=None, vocab_start=start, vocab_size=50, outputs=OUTPUTS, tile_bytes=1000, backend=backend
        )
        grads = torch.autograd.grad(loss_of(out), [given[name] for name in ("hidden", "weight", "bias")])
        results[dtype, impossible] = {
            "out": tuple(x.detach() for x in out),
            "grads": list(grads),
            "gathers": gathers[0],
        }  # type: ignore[union-attr]
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def count_gathers() -> list[int]:
    """Counts the all-gathers from here on."""
    counted, gather = [0], dist.all_gather

    def counting(*args: Any, **kwargs: Any) -> Any:
        counted[0] += 1
        return gather(*args, **kwargs)

    from rlsft_kernels.linear_logprob import vocab_parallel

    vocab_parallel.dist.all_gather = counting  # type: ignore[attr-defined]
    return counted


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
