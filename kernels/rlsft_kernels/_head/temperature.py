"""A temperature for all tokens, or one for each."""

from __future__ import annotations

from torch import Tensor

from rlsft_kernels._checks import require_number


def flat_temperature(temperature: float | Tensor, targets: Tensor) -> tuple[Tensor | None, float]:
    """(one per token [N] or None, the number for all of them).

    Raises:
        TypeError: neither a number nor a tensor.
        ValueError: not positive, or not shaped like targets, or expecting a gradient.
    """
    if not isinstance(temperature, Tensor):
        require_number("temperature", temperature, above=0)
        return None, float(temperature)
    if temperature.shape != targets.shape:
        raise ValueError(
            f"temperature must be a number or shaped like targets {list(targets.shape)}, got {list(temperature.shape)}"
        )
    if temperature.requires_grad:
        raise ValueError("temperature gets no gradient; pass temperature.detach()")
    return temperature.reshape(-1), 1.0
