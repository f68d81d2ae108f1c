"""What the CUDA paths share: device arrays cross to the core as addresses, and work is queued on torch's stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._groups import Groups


def address(tensor: torch.Tensor | None) -> int:
    """Where a contiguous tensor lies on its device; 0 for None."""
    if tensor is None:
        return 0
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def stream_of(device: torch.device) -> int:
    """The handle of torch's current stream; 0, the default stream, for a device that has none."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def to_device(values: npt.NDArray[Any] | None, device: torch.device) -> torch.Tensor | None:
    """A host array as a tensor on the device."""
    return None if values is None else torch.from_numpy(np.require(values, requirements=["C", "W"])).to(device)


@dataclass(frozen=True)
class DeviceGroups:
    """The offsets of the groups, and of their m x m blocks, on the device."""

    offsets: torch.Tensor  # [G + 1] int64
    block_offsets: torch.Tensor  # [G + 1] int64
    count: int
    largest: int  # rows
    blocks: int  # entries of all m x m blocks

    @classmethod
    def of(cls, layout: Groups, device: torch.device) -> DeviceGroups:
        both = torch.from_numpy(np.stack([layout.offsets, layout.block_offsets])).to(device)
        sizes = layout.sizes
        largest = int(sizes.max()) if len(sizes) else 0
        return cls(both[0], both[1], len(layout), largest, int(layout.block_offsets[-1]))
