"""Inputs on which every op that starts from hidden states and a language-model head is tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class HeadCase:
    """A shape and the transforms of its head; the name says what the case is there for."""

    name: str
    num_rows: int
    width: int
    vocab: int
    with_bias: bool = False
    softcap: float | None = None
    logit_scale: float = 1.0
    temperature: str = "one"  # "one", "number" or "per token"
    sharpness: float = 1.0

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """hidden, weight, bias (or none) and targets with every third row ignored; the floats require grad."""
        hidden_NH = torch.randn(self.num_rows, self.width)
        weight_VH = torch.randn(self.vocab, self.width) * self.sharpness / self.width**0.5
        made = {"hidden": hidden_NH, "weight": weight_VH}
        if self.with_bias:
            made["bias"] = torch.randn(self.vocab)
        made = {name: x.to(dtype).requires_grad_() for name, x in made.items()}
        targets_N = torch.randint(0, self.vocab, (self.num_rows,))
        if self.num_rows > 2:
            targets_N[0], targets_N[-1] = self.vocab - 1, 0  # both edges of the vocabulary
            targets_N[1::3] = -100
        return made | {"targets": targets_N}

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of the head, without the temperature."""
        return {"softcap": self.softcap, "logit_scale": self.logit_scale}

    def temperature_for(self, targets: Tensor, dtype: torch.dtype) -> float | Tensor:
        """1, a number, or one value a token."""
        if self.temperature == "per token":
            return (0.5 + torch.rand(targets.shape)).to(torch.float64 if dtype == torch.float64 else torch.float32)
        return 0.7 if self.temperature == "number" else 1.0

    def small_tile(self, dtype: torch.dtype) -> int:
        """A byte budget of three rows, so that several tiles and a ragged last one are met."""
        return 3 * self.vocab * dtype.itemsize


CASES = [
    HeadCase("one row", 1, 8, 16),
    HeadCase("one-token vocabulary", 4, 5, 1),
    HeadCase("odd sizes", 7, 5, 31),
    HeadCase("tiny tokenizer", 33, 24, 400, with_bias=True),
    HeadCase("gpt-2 vocabulary", 8, 17, 50257),
    HeadCase("softcap", 11, 9, 97, softcap=1.5, sharpness=3.0),
    HeadCase("logit scale", 11, 9, 97, logit_scale=0.25, sharpness=3.0),
    HeadCase("temperature", 11, 9, 97, temperature="number"),
    HeadCase("temperature a token", 11, 9, 97, temperature="per token"),
    HeadCase("everything", 13, 9, 97, True, 2.0, 1.5, "per token", 2.0),
    HeadCase("nearly certain", 12, 16, 40, sharpness=30.0),
]
SMALL = HeadCase("small enough for gradcheck", 5, 3, 7, True, 2.0, 1.5, "per token", 2.0)
ROUNDED = [torch.float32, torch.bfloat16, torch.float16]  # float64 is the truth, not held to a multiple of itself
DTYPES = [*ROUNDED, torch.float64]
# what runs where on a CPU: (dtype, backend)
ON_CPU = [
    (torch.float32, "native"), (torch.bfloat16, "native"), *((dtype, "reference") for dtype in ROUNDED)
]  # fmt: skip


class OpWatch(TorchDispatchMode):
    """Sees every torch operation, inside our custom ops too: the largest float tensor made and the matrix products.

    Views of `given` are not made.
    """

    def __init__(self, given: Tensor | None = None) -> None:
        super().__init__()
        self._given = None if given is None else given.untyped_storage().data_ptr()
        self.largest = 0
        self.matmuls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "rlsft":
            from torch._library.custom_ops import OPDEFS

            with self:  # a mode is off inside its own handler; the body of the op is what it is here to see
                out = OPDEFS[func.name()]._init_fn(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        self.matmuls += func.overloadpacket.__name__ in {"mm", "addmm", "addmm_", "bmm", "matmul"}
        for x in out if isinstance(out, (tuple, list)) else (out,):
            made = isinstance(x, Tensor) and x.is_floating_point()
            if made and x.untyped_storage().data_ptr() != self._given:
                self.largest = max(self.largest, x.numel())
        return out
