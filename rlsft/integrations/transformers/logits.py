"""Logits of a model output that are made when somebody asks for them, and never otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# What data parallelism, accelerate and the Trainer look at in every output; answered without making anything.
_METADATA = {
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "grad_fn", "is_leaf", "grad")
} | {Tensor.size, Tensor.dim, Tensor.is_floating_point, Tensor.__len__}


class LogitsOnDemand(Tensor):
    """Stands where a model's output holds `logits [B, T, V]`; the first use makes them, whatever that use is.

    A tensor for everybody who asks, without storage until its numbers are used. Gradients, autocast and `no_grad` are
    those of the forward pass it came from. Shape, dtype and device are known before, and a cast to another dtype
    stays on demand: accelerate casts the output of every forward pass in half precision.
    """

    _make: Callable[[], Tensor]
    _made: Tensor | None
    _grad_enabled: bool
    _autocast: torch.dtype | None

    @staticmethod
    def __new__(cls, make: Callable[[], Tensor], shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Any:
        """A stand-in for what `make()` returns; remembers the autograd and autocast of this moment."""
        self = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
        self._make = make
        self._made = None
        self._grad_enabled = torch.is_grad_enabled()
        enabled = torch.is_autocast_enabled(device.type)
        self._autocast = torch.get_autocast_dtype(device.type) if enabled else None
        return self

    def tensor(self) -> Tensor:
        """The logits, made by the first call and kept: `[B, T, V]`."""
        if self._made is None:
            with torch.set_grad_enabled(self._grad_enabled), self._autocast_of_the_forward():
                self._made = self._make()
        return self._made

    @property
    def is_made(self) -> bool:
        """Whether somebody has asked for them."""
        return self._made is not None

    def _autocast_of_the_forward(self) -> contextlib.AbstractContextManager[Any]:
        enabled = self._autocast is not None
        return torch.autocast(self.device.type, dtype=self._autocast if enabled else None, enabled=enabled)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        dtype = _cast_to(func, args[1:], kwargs)
        if dtype is not None and isinstance(args[0], LogitsOnDemand) and not args[0].is_made:
            logits = args[0]
            return LogitsOnDemand(lambda: logits.tensor().to(dtype), logits.shape, dtype, logits.device)
        args, kwargs = pytree.tree_map_only(LogitsOnDemand, LogitsOnDemand.tensor, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Operations that C++ starts without asking Python first."""
        args, kwargs = pytree.tree_map_only(LogitsOnDemand, LogitsOnDemand.tensor, (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self, **_options: Any) -> str:  # type: ignore[override]
        return f"LogitsOnDemand(shape={tuple(self.shape)}, made={self.is_made})"


def _cast_to(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.dtype | None:
    """The dtype that a call does nothing but cast to; None for every other call."""
    if func is Tensor.float and not args and not kwargs:
        return torch.float32
    dtype = [*args, *kwargs.values()]
    return dtype[0] if func is Tensor.to and len(dtype) == 1 and isinstance(dtype[0], torch.dtype) else None
