"""What must hold before anything of TRL is replaced: its version, its signatures, and equal numbers on one batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor

from rlsft.errors import RunError
from rlsft.integrations.trl.head_function import FIELDS, FusedHead

HOOK = "_ChunkedLogProbFunction"  # the global of trl.trainer.utils that every fused forward looks up
OLDEST, BEYOND = (1, 15), (1, 17)  # versions whose source was read
PARAMETERS = (
    "ctx", "hidden", "weight", "bias", "targets", "temperature", "chunk_size", "final_logit_softcapping", "logit_scale",
    "outputs",
)  # fmt: skip
_REMEDY = "update rlsft, install trl>=1.15,<1.17, or train without the patch"


@dataclass(frozen=True)
class Signature:
    """What the gate found."""

    version: str
    scores_masked_on_cpu: bool  # TRL >= 1.16 takes every position where it does not use triton


def check_trl(utils: Any, trainers: dict[str, Any]) -> Signature:
    """Version and signatures of TRL, as the adapter was written for them.

    Args:
        utils: `trl.trainer.utils`.
        trainers: the modules of its trainers by name.

    Raises:
        RunError: something is not as expected; nothing was replaced.
    """
    import trl

    version = trl.__version__
    if not OLDEST <= _numbers(version) < BEYOND:
        raise RunError(f"rlsft.integrations.trl knows trl>=1.15,<1.17, got trl {version}; {_REMEDY}")
    hook = getattr(utils, HOOK, None)
    if hook is None or not str(getattr(hook, "__module__", "")).startswith("trl."):
        raise RunError(
            f"trl {version}: trl.trainer.utils.{HOOK} must be TRL's own function, got {hook!r}; somebody else has "
            f"replaced it, or triton is missing (trl 1.15 needs it). Undo that, or {_REMEDY}"
        )
    _require_signature(version, f"{HOOK}.forward", tuple(inspect.signature(hook.forward).parameters), PARAMETERS)
    fused = utils.add_fused_lm_head
    if HOOK not in _names_in(fused.__code__):
        raise RunError(f"trl {version}: add_fused_lm_head does not call {HOOK} any more; {_REMEDY}")
    strangers = [name for name, module in trainers.items() if getattr(module, "add_fused_lm_head", None) is not fused]
    if strangers:
        raise RunError(
            f"trl {version}: add_fused_lm_head of {', '.join(strangers)} is not that of trl.trainer.utils; {_REMEDY}"
        )
    return Signature(version, "_use_triton" in _names_in(fused.__code__) and hasattr(utils, "_use_triton"))


def check_equal(version: str, theirs: Callable[..., Any], ours: FusedHead, device: torch.device | None = None) -> None:
    """One small batch through both functions: values, and gradients by log-probability and entropy.

    Raises:
        RunError: a number differs by more than rounding, or TRL's function cannot run on the device.
    """
    device = device or (torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu"))
    try:
        expected = _results(theirs, device)
    except Exception as cause:  # a kernel that does not compile can raise anything
        raise RunError(
            f"trl {version}: TRL's own function does not run on {device} ({type(cause).__name__}: {cause}), so nothing "
            f"vouches for the adapter there; {_REMEDY}"
        ) from cause
    actual = _results(ours.apply, device)
    for name, wanted in expected.items():
        found = actual[name]
        error = (found.double() - wanted.double()).abs().max().item()
        allowed = 1e-4 * max(1.0, wanted.abs().max().item())  # of float32, on any device; TF32 included
        if found.shape != wanted.shape or not error <= allowed:
            raise RunError(
                f"trl {version}: {name} of the adapter differs from TRL's by {error:.3g} on the self-test batch; "
                f"nothing was replaced. {_REMEDY}"
            )


def _results(function: Callable[..., Any], device: torch.device) -> dict[str, Tensor]:
    """All outputs and gradients for seven tokens, with bias, temperature, cap and scale."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in ((7, 16), (37, 16), (37,))
    )
    targets = torch.randint(0, 37, (7,), generator=generator).to(device)
    values = function(hidden, weight, bias, targets, 0.7, 16, 5.0, 1.5, tuple(FIELDS))
    upstream = [torch.randn(7, generator=generator).to(device) for _ in range(2)]
    grads = torch.autograd.grad(values[:2], (hidden, weight, bias), upstream)
    names = (*FIELDS, "gradient of hidden", "gradient of weight", "gradient of bias")
    return {name: x.detach().float() for name, x in zip(names, (*values, *grads), strict=True)}


def _require_signature(version: str, what: str, found: tuple[str, ...], expected: tuple[str, ...]) -> None:
    if found != expected:
        raise RunError(f"trl {version}: {what} must take {', '.join(expected)}, got {', '.join(found)}; {_REMEDY}")


def _names_in(code: CodeType) -> set[str]:
    """Globals and attributes that a function and those inside it look up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def _numbers(version: str) -> tuple[int, ...]:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version).release
    except InvalidVersion:
        return ()
