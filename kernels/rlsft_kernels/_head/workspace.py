"""Memory of the logits tile on the CPU, kept between calls.

Fresh memory costs a page fault every 4 KiB: filling a new tile of 64 MiB took as long as a third of its product. One
buffer a thread and dtype stays, as large as the largest tile so far (`tile_bytes` at most).
"""

from __future__ import annotations

import threading

from torch import Tensor

_kept = threading.local()


def workspace(like: Tensor, numel: int) -> Tensor:
    """`numel` uninitialised values of the dtype and device of `like`; the next call of this thread may reuse them."""
    if like.device.type != "cpu":
        return like.new_empty(numel)
    buffers = _kept.__dict__.setdefault("buffers", {})
    if numel > len(buffers.get(like.dtype, ())):
        buffers[like.dtype] = like.new_empty(numel)
    return buffers[like.dtype][:numel]
