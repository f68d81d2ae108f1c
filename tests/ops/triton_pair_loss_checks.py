"""The launcher of pair_loss on CPU tensors, which test_triton_losses.py runs with TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlsft_kernels.pair_loss.reference import KINDS, STATS, pair_loss_reference
from rlsft_kernels.pair_loss.torch_path import PairTerms
from rlsft_kernels.pair_loss.triton_kernel import pair_loss_fwd
from tests.support.closeness import assert_as_accurate_as_eager

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def pairs(count: int, dtype: torch.dtype, spread: float = 4.0) -> tuple[Tensor, Tensor, Tensor]:
    """Deltas whose sums do not cancel, and a mask that hides NaN."""
    real, generated = torch.randn(2, count) * spread
    mask = torch.rand(count) > 0.3
    real, generated = (torch.where(mask, x, torch.nan).to(dtype) for x in (real + 2, generated - 1))
    return real, generated, mask


def of_reference(
    real: Tensor,
    generated: Tensor,
    mask: Tensor | None,
    normalizer: Tensor | None,
    terms: PairTerms,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """0-d results in one vector, and both gradients."""
    real, generated = (x.to(dtype).requires_grad_() for x in (real, generated))
    loss, stats = pair_loss_reference(
        real, generated, beta=terms.beta, kind=terms.kind, offset=terms.offset, label_smoothing=terms.label_smoothing,
        mask=mask, normalizer=normalizer,
    )  # fmt: skip
    gradients = torch.autograd.grad(loss, [real, generated])
    return torch.stack((loss.detach(), *(stats[name] for name in STATS))), *gradients


def check(real: Tensor, generated: Tensor, mask: Tensor | None, normalizer: Tensor | None, terms: PairTerms) -> None:
    loss, stats, *gradients = pair_loss_fwd(real, generated, mask, normalizer, terms)
    eager, truth = (of_reference(real, generated, mask, normalizer, terms, t) for t in (torch.float32, torch.float64))
    units = torch.where(truth[0] == 0, 1, truth[0].abs())
    scalars = [x.double() / units for x in (torch.cat((loss[None], stats)), eager[0], truth[0])]
    assert_as_accurate_as_eager(scalars[0].float(), scalars[1].float(), scalars[2], name=f"{terms}: loss and stats")
    for name, x, e, t in zip(("real", "generated"), gradients, eager[1:], truth[1:], strict=True):
        assert_as_accurate_as_eager(x, e, t, name=f"{terms}: gradient by {name}")
        if mask is not None:
            assert (x[~mask] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3, 1024, 1025, 2049])
def test_pair_loss_equals_the_reference(kind: str, count: int) -> None:
    for dtype in DTYPES if count == 1025 else DTYPES[:1]:
        real, generated, mask = pairs(count, dtype)
        terms = PairTerms(kind, 0.5, 0.25, 0.0)
        check(real, generated, mask, None, terms)
        check(real, generated, mask, torch.tensor(77.0), terms)
        check(real.nan_to_num(1.0), generated.nan_to_num(0.5), None, None, terms)


def test_pair_loss_smooths_labels() -> None:
    real, generated, mask = pairs(300, torch.float32)
    check(real, generated, mask, None, PairTerms("logistic", 0.3, 0.0, 0.1))


@pytest.mark.parametrize("kind", KINDS)
def test_pair_loss_far_out(kind: str) -> None:
    real, generated, mask = pairs(200, torch.float32, spread=60.0)
    check(real, generated, mask, None, PairTerms(kind, 1.0, 0.1, 0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_pair_loss_of_no_pairs(kind: str) -> None:
    for count in (0, 5):
        nothing = torch.full((count,), torch.nan)
        results = pair_loss_fwd(nothing, nothing, torch.zeros(count).bool(), None, PairTerms(kind, 1.0, 0.0, 0.0))
        assert all((x == 0).all() for x in results)


@pytest.mark.parametrize("kind", KINDS)
def test_pair_loss_passes_nan_on_and_repeats_bitwise(kind: str) -> None:
    real, generated, mask = pairs(1500, torch.float32)
    terms = PairTerms(kind, 0.5, 0.0, 0.0)
    first, again = (pair_loss_fwd(real, generated, mask, None, terms) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert pair_loss_fwd(real, generated, None, None, terms)[0].isnan()
