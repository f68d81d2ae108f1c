"""Puts our head under TRL's trainers, and takes it out again."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rlsft.errors import RunError
from rlsft.integrations.trl.gate import HOOK, check_equal, check_trl
from rlsft.integrations.trl.head_function import FusedHead

TRAINERS = ("SFTTrainer", "DPOTrainer", "KTOTrainer", "GRPOTrainer", "RLOOTrainer")
_MODULES = {name: f"trl.trainer.{name.removesuffix('Trainer').lower()}_trainer" for name in TRAINERS}


class _Patch:
    """The attributes that were replaced, with what stood there before."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any, Any]] = []  # module, name, before, ours

    def replace(self, module: Any, name: str, ours: Any) -> None:
        self._replaced.append((module, name, getattr(module, name), ours))
        setattr(module, name, ours)

    def restore(self) -> None:
        """Put everything back.

        Raises:
            RunError: somebody else has replaced one since; then nothing is touched.
        """
        for module, name, _, ours in self._replaced:
            if getattr(module, name) is not ours:
                raise RunError(
                    f"{module.__name__}.{name} was replaced by somebody else after patch(), so unpatch() would undo "
                    "that too; undo theirs first"
                )
        for module, name, before, _ in reversed(self._replaced):
            setattr(module, name, before)

    @property
    def names(self) -> list[str]:
        return [f"{module.__name__}.{name}" for module, name, _, _ in self._replaced]


_lock = threading.RLock()
_active: _Patch | None = None


def is_patched() -> bool:
    """Whether TRL's trainers run on our head now."""
    return _active is not None


def patch(*, memory_budget: int = 0, quiet: bool = False) -> None:
    """Run the LM head of TRL's SFT, DPO, KTO, GRPO and RLOO trainers on `rlsft_kernels.linear_logprob`.

    Version and signatures are checked, and one batch is computed by both, before anything is replaced; then one line
    on stderr names what was. Trainers made before use our head too, since TRL looks it up in each forward. A second
    call changes nothing.

    Args:
        memory_budget: bytes of logits that a forward may keep so that its backward need not compute them again; 0 =
            least memory.
        quiet: print no line.

    Raises:
        RunError: TRL is missing, of an unknown version or signature, or computes something else; nothing was replaced.
    """
    global _active
    with _lock:
        if _active is not None:
            return
        utils, trainers = _import_trl()
        signature = check_trl(utils, trainers)
        head = FusedHead(memory_budget)
        check_equal(signature.version, getattr(utils, HOOK).apply, head)
        made = _Patch()
        made.replace(utils, HOOK, head)
        if signature.scores_masked_on_cpu:
            made.replace(utils, "_use_triton", _only_labelled(utils._use_triton))
        _active = made
    if not quiet and os.environ.get("RANK", "0") == "0":
        print(
            f"rlsft: {', '.join(TRAINERS)} of trl {signature.version} run on rlsft_kernels.linear_logprob "
            f"(replaced {', '.join(made.names)})",
            file=sys.stderr,
        )


def unpatch() -> None:
    """Put TRL's own objects back; does nothing where nothing is patched.

    Raises:
        RunError: somebody else has replaced one of them since.
    """
    global _active
    with _lock:
        if _active is not None:
            _active.restore()
            _active = None


@contextmanager
def patched(*, memory_budget: int = 0, quiet: bool = False) -> Iterator[None]:
    """`patch()` for the block; inside another patch the outer one, with its settings, stays in place to its own end."""
    is_outermost = not is_patched()
    patch(memory_budget=memory_budget, quiet=quiet)
    try:
        yield
    finally:
        if is_outermost:
            unpatch()


def _import_trl() -> tuple[Any, dict[str, Any]]:
    try:
        utils = importlib.import_module("trl.trainer.utils")
        return utils, {name: importlib.import_module(module) for name, module in _MODULES.items()}
    except ImportError as error:
        raise RunError(
            f"rlsft.integrations.trl needs TRL with its five trainers ({error}); pip install 'trl>=1.15,<1.17'"
        ) from error


def _only_labelled(use_triton: Any) -> Any:
    """TRL's question whether only labelled positions go to the head: yes on the CPU too.

    TRL keeps all positions there because devices that compile by shape would compile anew for each batch. A CPU does
    not, and the prompts and padding of DPO, KTO, GRPO and RLOO are most of a batch.
    """

    def only_labelled(device: torch.device) -> bool:
        return device.type == "cpu" or bool(use_triton(device))

    return only_labelled
