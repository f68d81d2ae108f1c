"""The ops that start from hidden states and a head, over vocabularies of real tokenizers and numbers of tokens.

Each is held to the tolerance rule, values and gradients. A shape keeps its rows small here; FULL=1 gives every large
vocabulary 64 rows and many rows a large vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import linear_cross_entropy, linear_logprob, linear_policy_loss
from rlsft_kernels.linear_cross_entropy.reference import linear_cross_entropy_reference
from rlsft_kernels.linear_logprob.reference import linear_logprob_reference
from rlsft_kernels.linear_policy_loss.reference import linear_policy_loss_reference
from tests.support.closeness import assert_as_accurate_as_eager

IS_FULL = os.environ.get("FULL") == "1"
SHAPES = [(64, 1), (33, 2), (64, 1000), (15, 32001), (10, 49152), (9, 50257), (4, 129920), (4, 151936)]  # (N, V)
MANY_ROWS = [(1, 1), (1, 4096), (2047, 255), (8192, 61)]
if IS_FULL:
    SHAPES = [(64, vocab) for _, vocab in SHAPES]
    MANY_ROWS += [(8191, 4095), (8192, 4096)]
NO_ROWS = [1, 2, 1000, 4096, 151936]  # V
WIDTH = 16
DTYPES = [torch.float32, torch.bfloat16]
LOGPROB = ("logprob", "entropy", "lse", "log_sum_sq_probs")

Results = dict[str, Tensor]
Op = Callable[..., Results]


def batch(num_rows: int, vocab: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """hidden, weight, targets, one in four of them left out, and what a policy loss is given."""
    torch.manual_seed(num_rows + vocab)
    hidden_NH, weight_VH = torch.randn(num_rows, WIDTH), torch.randn(vocab, WIDTH) * 1.5 / WIDTH**0.5
    targets_N = torch.randint(0, vocab, (num_rows,))
    targets_N[:1], targets_N[-1:] = vocab - 1, 0  # both edges of the vocabulary
    mask_N = torch.arange(num_rows) % 4 != 2
    logprob_N = torch.log_softmax(hidden_NH.double() @ weight_VH.double().T, -1).gather(-1, targets_N[:, None])[:, 0]
    # ratios far from the edges of the clip range: on which side a token falls must not be a matter of rounding
    log_ratio_N = torch.tensor([0.05, -0.6, 0.6, -0.05]).repeat(num_rows // 4 + 1)[:num_rows]
    return {
        "hidden": hidden_NH.to(dtype).requires_grad_(),
        "weight": weight_VH.to(dtype).requires_grad_(),
        "targets": targets_N,
        "mask": mask_N,
        "old_logprobs": (logprob_N - log_ratio_N).float(),
        "ref_logprobs": (logprob_N + 0.1 * torch.randn(num_rows)).float(),
        "advantages": torch.randn(num_rows),
        "upstream": torch.randn(3, num_rows),
    }


def _logprob(function: Any, x: dict[str, Tensor], **settings: Any) -> tuple[Results, Tensor]:
    out = function(x["hidden"], x["weight"], x["targets"].where(x["mask"], -100), **settings)
    loss = (x["upstream"] * torch.stack([out.logprob, out.entropy, out.lse])).sum()
    return {name: getattr(out, name) for name in LOGPROB}, loss


def _cross_entropy(function: Any, x: dict[str, Tensor], **settings: Any) -> tuple[Results, Tensor]:
    loss, stats = function(x["hidden"], x["weight"], x["targets"].where(x["mask"], -100), **settings)
    return {"loss": loss, "entropy": stats["entropy"]}, loss


def _policy(function: Any, x: dict[str, Tensor], **settings: Any) -> tuple[Results, Tensor]:
    names = ("hidden", "weight", "targets", "advantages", "old_logprobs", "ref_logprobs", "mask")
    loss, stats = function(**{n: x[n] for n in names}, loss_kind="ppo", kl_coef=0.2, entropy_coef=0.05, **settings)
    return {"loss": loss, "entropy": stats["entropy"], "kl_ref": stats["kl_ref"]}, loss


OPS = {
    "linear_logprob": (_logprob, linear_logprob, linear_logprob_reference, {"outputs": LOGPROB}),
    "linear_cross_entropy": (_cross_entropy, linear_cross_entropy, linear_cross_entropy_reference, {}),
    "linear_policy_loss": (_policy, linear_policy_loss, linear_policy_loss_reference, {}),
}


def with_gradients(call: Any, function: Any, x: dict[str, Tensor], **settings: Any) -> Results:
    results, loss = call(function, x, **settings)
    leaves = ("hidden", "weight")
    grads = torch.autograd.grad(loss, [x[name] for name in leaves])
    return {**results, **{f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)}}


def as_double(x: dict[str, Tensor]) -> dict[str, Tensor]:
    def widen(value: Tensor) -> Tensor:
        return value.detach().double().requires_grad_(value.requires_grad) if value.is_floating_point() else value

    return {name: widen(value) for name, value in x.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_rows", "vocab"), [*SHAPES, *MANY_ROWS])
@pytest.mark.parametrize("op", OPS)
def test_as_accurate_as_eager(op: str, num_rows: int, vocab: int, dtype: torch.dtype) -> None:
    call, native, reference, settings = OPS[op]
    x = batch(num_rows, vocab, dtype)
    # Many rows in three tiles, the last one shorter. Few stay in one: torch adds up the product of five rows by 32,001
    # columns in another order than that of fifteen, with three times the error.
    rows_per_tile = -(-num_rows // 3) if num_rows > 64 else num_rows
    tile_bytes = rows_per_tile * vocab * dtype.itemsize
    actual = with_gradients(call, native, x, **settings, tile_bytes=tile_bytes, backend="native")
    eager = with_gradients(call, reference, x)
    truth = with_gradients(call, reference, as_double(x))
    for name, value in actual.items():
        assert_as_accurate_as_eager(value, eager[name], truth[name], name=name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", NO_ROWS)
@pytest.mark.parametrize("op", OPS)
def test_no_rows_are_no_loss_and_no_gradient(op: str, vocab: int, dtype: torch.dtype) -> None:
    call, native, _, settings = OPS[op]
    found = with_gradients(call, native, batch(0, vocab, dtype), **settings, backend="native")
    assert found["grad hidden"].shape == (0, WIDTH)
    assert torch.equal(found["grad weight"], torch.zeros(vocab, WIDTH, dtype=dtype))
    assert all((value == 0).all() for value in found.values())
