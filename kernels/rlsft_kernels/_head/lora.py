"""A LoRA adapter on the head, without merging it."""

from __future__ import annotations

from torch import Tensor

from rlsft_kernels._checks import require_float_tensor, require_number, require_shape


def lora_factors(
    hidden_NH: Tensor, weight: Tensor, lora: tuple[Tensor, Tensor, float] | None
) -> tuple[Tensor | None, Tensor | None]:
    """The second product of the head, `(scale * hidden @ A.T) [N, r]` and `B [V, r]`; both None without an adapter.

    The first is made here, under autograd: the op gives its gradient, and A's follows from it.
    """
    if lora is None:
        return None, None
    if not isinstance(lora, tuple) or len(lora) != 3:
        raise TypeError(f"lora must be (A [r, H], B [V, r], scale), got {type(lora).__name__}")
    lora_a, lora_b, scale = lora
    for name, x in (("lora A", lora_a), ("lora B", lora_b)):
        require_float_tensor(name, x)
        if x.device != weight.device:
            raise ValueError(f"{name} must be on {weight.device} like weight, got {x.device}")
    if lora_a.ndim != 2:
        raise ValueError(f"lora A must be [r, H], got {list(lora_a.shape)}")
    require_shape("lora A", lora_a, "rH", (lora_a.shape[0], weight.shape[1]))
    require_shape("lora B", lora_b, "Vr", (weight.shape[0], lora_a.shape[0]))
    require_number("lora scale", scale)
    # adapters are often float32 beside a half-precision model: its dtype is that of the products
    lora_hidden = (hidden_NH @ lora_a.to(weight.dtype).t()) * scale
    return lora_hidden, lora_b.to(weight.dtype)
