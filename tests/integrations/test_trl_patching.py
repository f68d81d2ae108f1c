"""What the patch checks before it replaces anything, and that it takes everything back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import rlsft.integrations.trl as bridge
from rlsft.errors import RunError
from rlsft.integrations.trl import head_function
from rlsft.integrations.trl.head_function import FIELDS, FusedHead

trl = pytest.importorskip("trl")
from trl.trainer import utils  # noqa: E402


def replaced() -> tuple[Any, ...]:
    return utils._ChunkedLogProbFunction, utils._use_triton


@pytest.fixture(autouse=True)
def originals() -> Iterator[tuple[Any, ...]]:
    """TRL's own objects, which every test must leave in place."""
    before = replaced()
    assert not bridge.is_patched()
    yield before
    bridge.unpatch()
    assert all(mine is theirs for mine, theirs in zip(replaced(), before, strict=True))


def test_patch_says_what_it_replaced_once_and_unpatch_restores(
    capsys: pytest.CaptureFixture[str], originals: tuple[Any, ...]
) -> None:
    bridge.patch()
    first = replaced()
    assert all(mine is not theirs for mine, theirs in zip(first, originals, strict=True))
    bridge.patch()
    assert all(mine is theirs for mine, theirs in zip(replaced(), first, strict=True))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for name in (*bridge.TRAINERS, trl.__version__, "trl.trainer.utils._ChunkedLogProbFunction", "linear_logprob"):
        assert name in said
    bridge.unpatch()
    bridge.unpatch()
    assert replaced() == originals
    assert not bridge.is_patched()


def test_only_the_first_rank_speaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    bridge.patch()
    assert capsys.readouterr().err == ""


def test_blocks_nest_and_end_with_the_outermost(originals: tuple[Any, ...]) -> None:
    with bridge.patched(quiet=True, memory_budget=7):
        head = utils._ChunkedLogProbFunction
        with bridge.patched(quiet=True):
            assert utils._ChunkedLogProbFunction is head
            assert head.memory_budget == 7
        assert utils._ChunkedLogProbFunction is head
    assert replaced() == originals
    bridge.patch(quiet=True)
    with bridge.patched(quiet=True):
        pass
    assert bridge.is_patched()


def test_a_block_that_fails_takes_the_patch_back(originals: tuple[Any, ...]) -> None:
    with pytest.raises(KeyError), bridge.patched(quiet=True):
        raise KeyError
    assert replaced() == originals


@pytest.mark.parametrize("version", ["1.14.0", "1.17.0", "2.0", "1.14.0.dev0", "unknown"])
def test_an_unknown_version_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trl, "__version__", version)
    with pytest.raises(RunError, match=rf"knows trl>=1\.15,<1\.17, got trl {version}"):
        bridge.patch()


def test_a_changed_signature_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changed(utils._ChunkedLogProbFunction):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> None: ...

    Changed.__module__ = "trl.kernels.chunked_logprob"
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Changed)
    with pytest.raises(
        RunError, match=r"must take ctx, hidden, weight, bias, targets.* got ctx, hidden, weight, targets"
    ):
        bridge.patch()


def test_somebody_elses_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", FusedHead())
    with pytest.raises(RunError, match="somebody else has replaced it"):
        bridge.patch()


def test_a_forward_that_no_longer_looks_the_function_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "add_fused_lm_head", lambda model: None)
    with pytest.raises(RunError, match="add_fused_lm_head does not call _ChunkedLogProbFunction any more"):
        bridge.patch()


def test_a_trainer_with_a_head_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.trainer import kto_trainer

    monkeypatch.setattr(kto_trainer, "add_fused_lm_head", lambda model: None)
    with pytest.raises(RunError, match="add_fused_lm_head of KTOTrainer is not that of"):
        bridge.patch()


def test_a_missing_trl_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl.trainer.utils", None)
    with pytest.raises(RunError, match=r"needs TRL with its five trainers .* pip install 'trl>=1\.15,<1\.17'"):
        bridge.patch()


@pytest.mark.parametrize("field", ["logprob", "entropy", "log_sum_sq_probs", "mean_logit", "is_top1"])
def test_the_self_test_sees_a_wrong_number(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = head_function.linear_logprob

    def wrong(*args: Any, **options: Any) -> Any:
        scored = op(*args, **options)
        value = getattr(scored, field)
        return scored._replace(**{field: ~value if value.dtype == torch.bool else value * 1.001})

    monkeypatch.setattr(head_function, "linear_logprob", wrong)
    with pytest.raises(RunError, match=r"of the adapter differs from TRL's by .* nothing was replaced"):
        bridge.patch()


def test_the_self_test_sees_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    op = head_function.linear_logprob

    def wrong(hidden: Tensor, weight: Tensor, *args: Any, **options: Any) -> Any:
        return op(hidden, weight + (weight - weight.detach()) * 0.01, *args, **options)

    monkeypatch.setattr(head_function, "linear_logprob", wrong)
    with pytest.raises(RunError, match="gradient of weight of the adapter differs"):
        bridge.patch()


def test_a_function_of_trl_that_cannot_run_vouches_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise OSError("no kernel image")

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", broken)
    with pytest.raises(RunError, match=r"TRL's own function does not run on cpu \(OSError: no kernel image\)"):
        bridge.patch()


def test_unpatch_does_not_undo_what_others_did_since(originals: tuple[Any, ...]) -> None:
    bridge.patch(quiet=True)
    ours = utils._ChunkedLogProbFunction
    utils._ChunkedLogProbFunction = theirs = object()
    with pytest.raises(RunError, match="replaced by somebody else after patch"):
        bridge.unpatch()
    assert utils._ChunkedLogProbFunction is theirs
    utils._ChunkedLogProbFunction = ours


def test_the_import_does_not_load_trl() -> None:
    code = "import sys, rlsft.integrations.trl; print([m for m in ('trl', 'transformers', 'peft') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- the function itself -------------------------------------------------------------------------------------------
def leaves(dtype: torch.dtype = torch.float32, num_tokens: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        for shape in ((num_tokens, 16), (37, 16), (37,))
    ]


def targets(num_tokens: int = 7) -> Tensor:
    return torch.arange(num_tokens) * 5 % 37


TAIL = (0.7, 16, 5.0, 1.5)  # temperature, chunk size, softcap, logit scale


def gradients(function: Any, head: list[Tensor], outputs: tuple[str, ...] = tuple(FIELDS)) -> tuple[Tensor, ...]:
    values = function(*head, targets(), *TAIL, outputs)
    upstream = torch.linspace(-1, 1, 7)
    total = (values[0] * upstream).sum() + (0 if values[1] is None else (values[1] * upstream.flip(0)).sum())
    return torch.autograd.grad(total, head)


def test_five_slots_come_back_in_order_and_what_is_not_asked_for_is_none() -> None:
    theirs = utils._ChunkedLogProbFunction.apply(*leaves(), targets(), *TAIL, ("is_top1", "mean_logits"))
    ours = FusedHead().apply(*leaves(), targets(), *TAIL, ("is_top1", "mean_logits"))
    assert [x is None for x in ours] == [x is None for x in theirs] == [False, True, True, False, False]
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[3], theirs[3])
    assert torch.equal(ours[4], theirs[4])
    assert not ours[3].requires_grad
    assert len(FusedHead().apply(*leaves(), targets(), 1.0, 16)) == 5  # TRL's defaults: everything


def test_the_first_of_equal_logits_is_the_largest() -> None:
    hidden, weight = torch.ones(2, 4), torch.ones(5, 4)
    ours = FusedHead().apply(hidden, weight, None, torch.tensor([0, 1]), 1.0, 16, None, 1.0, ("is_top1",))
    assert ours[4].tolist() == [True, False]


def test_no_tokens_stay_differentiable() -> None:
    head = leaves(num_tokens=0)
    values = FusedHead().apply(*head, targets(0), *TAIL, ("entropy",))
    (values[0].sum() + values[1].sum()).backward()
    assert all(float(x.grad.abs().sum()) == 0 for x in head)


def test_a_head_in_another_dtype_is_computed_in_that_of_the_hidden_states() -> None:
    hidden, weight, bias = leaves()
    head = [hidden, weight.detach().bfloat16().requires_grad_(), bias.detach().bfloat16().requires_grad_()]
    theirs = gradients(utils._ChunkedLogProbFunction.apply, head)
    ours = gradients(FusedHead().apply, head)
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.dtype == wanted.dtype
        torch.testing.assert_close(mine, wanted, rtol=1e-2, atol=1e-4)


def test_autocast_sets_the_dtype_of_the_products() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        theirs = utils._ChunkedLogProbFunction.apply(*leaves(), targets(), *TAIL, ("entropy",))
        ours = FusedHead().apply(*leaves(), targets(), *TAIL, ("entropy",))
    exact = FusedHead().apply(*leaves(), targets(), *TAIL, ("entropy",))
    for mine, wanted, wide in zip(ours[:2], theirs[:2], exact[:2], strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, wanted, rtol=2e-2, atol=2e-2)
        assert not torch.equal(mine, wide)


class Partitioned:
    """A head as ZeRO-3 keeps it: empty outside of a gather, and the gathers are counted."""

    def __init__(self) -> None:
        hidden, weight, bias = leaves()
        self.hidden = hidden
        self.weight, self.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        self.whole = {id(p): p.data for p in (self.weight, self.bias)}
        for number, p in enumerate((self.weight, self.bias)):
            p.ds_id = number  # type: ignore[attr-defined]
        self.gathers = 0
        self._release()

    def _release(self) -> None:
        for p in (self.weight, self.bias):
            p.data = torch.empty(0)

    @contextmanager
    def gather(self, *parameters: Tensor | None) -> Iterator[None]:
        assert {id(p) for p in parameters} == set(self.whole), "the parameters themselves must be gathered"
        self.gathers += 1
        for p in (self.weight, self.bias):
            p.data = self.whole[id(p)]
        yield
        self._release()


class NeedsOfBackward(TorchDispatchMode):
    """Notes which gradients (hidden, weight, bias, ...) the op's backward is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.needs: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.rlsft.linear_logprob_backward.default:
            self.needs.append(list(args[-2]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("outputs", [tuple(FIELDS), ("log_probs",)])
def test_zero3_gathers_the_head_again_in_the_backward(
    outputs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradients(utils._ChunkedLogProbFunction.apply, leaves(), outputs)
    shard = Partitioned()
    monkeypatch.setattr(utils, "maybe_gather_lm_head_ctx", shard.gather)
    head = [shard.hidden, shard.weight, shard.bias]
    with utils.maybe_gather_lm_head_ctx(shard.weight, shard.bias):
        values = FusedHead().apply(*head, targets(), *TAIL, outputs)
    assert shard.weight.numel() == 0
    upstream = torch.linspace(-1, 1, 7)
    total = (values[0] * upstream).sum() + (0 if values[1] is None else (values[1] * upstream.flip(0)).sum())
    found = torch.autograd.grad(total, head)
    assert shard.gathers == 2
    assert shard.weight.numel() == 0
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-6)


def test_zero3_with_a_frozen_head_and_a_logged_entropy_costs_no_weight_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard = Partitioned()
    monkeypatch.setattr(utils, "maybe_gather_lm_head_ctx", shard.gather)
    shard.weight.requires_grad_(False), shard.bias.requires_grad_(False)
    with shard.gather(shard.weight, shard.bias):
        values = FusedHead().apply(shard.hidden, shard.weight, shard.bias, targets(), *TAIL, ("entropy",))
    with NeedsOfBackward() as seen:
        values[0].sum().backward()
    assert seen.needs == [[True, False, False, False, False]]
    assert shard.hidden.grad is not None
    assert shard.weight.grad is None
