"""One graph, a regular batch or a ragged run of groups: all become flat rows with int64 offsets, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._checks import require_offsets

Array: TypeAlias = torch.Tensor | np.ndarray
FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Groups:
    """Where each group lies in the flat rows, and the shape in which the caller expects one number a row."""

    offsets: npt.NDArray[np.int64]  # [G + 1]
    shape: tuple[int, ...]  # (n,) one graph, (B, n) a batch, (M,) flat
    single: bool  # one graph without `groups`: per-group results are then 0-d

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    @property
    def rows(self) -> int:
        return int(self.offsets[-1])

    @property
    def block_offsets(self) -> npt.NDArray[np.int64]:
        """Start of each group's m x m block in a flat run of blocks, [G + 1]."""
        return np.concatenate([[0], np.cumsum(self.sizes**2)])

    @property
    def group_of_row(self) -> npt.NDArray[np.int64]:
        return np.repeat(np.arange(len(self)), self.sizes)

    def slices(self) -> Iterator[slice]:
        for begin, end in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            yield slice(int(begin), int(end))

    def place(self, row: int) -> tuple[str, str]:
        """("3, 17", "group 3, row 17") of a flat row: the caller's own index, and the same in words."""
        group = int(self.group_of_row[row])
        inside = row - int(self.offsets[group])
        if self.single:
            return str(inside), f"row {inside}"
        index = f"{group}, {inside}" if len(self.shape) == 2 else str(row)
        return index, f"group {group}, row {inside}"


def group_rows(name: str, shape: tuple[int, ...], groups: Array | None, axes: str) -> Groups:
    """Groups of an input whose leading axes are `shape`: (n,) or (B, n), or (M,) cut by `groups`.

    Raises:
        ValueError: groups with a regular batch, or offsets that do not rise from 0 to the number of rows.
        TypeError: offsets that are not int64.
    """
    if groups is not None:
        if len(shape) != 1:
            raise ValueError(f"groups cuts flat rows: {name} must be {axes} with it, got {len(shape) + 1} axes")
        offsets = offsets_array("groups", groups, shape[0], f"rows of {name}")
        return Groups(offsets, shape, single=False)
    if len(shape) == 1:
        return Groups(np.array([0, shape[0]], dtype=np.int64), shape, single=True)
    batch, n = shape
    return Groups(np.arange(batch + 1, dtype=np.int64) * n, shape, single=False)


def offsets_array(name: str, offsets: Array, total: int | None, what: str) -> npt.NDArray[np.int64]:
    """Checked int64 offsets as a NumPy array; `total` None takes the last offset as the total."""
    if not isinstance(offsets, (torch.Tensor, np.ndarray)):
        raise TypeError(f"{name} must be a torch tensor or a NumPy array of int64, got {type(offsets).__name__}")
    tensor = torch.from_numpy(np.array(offsets)) if isinstance(offsets, np.ndarray) else offsets.cpu()
    if total is None:
        total = int(tensor.reshape(-1)[-1]) if tensor.numel() else 0
    require_offsets(name, tensor, total, what)
    return tensor.contiguous().numpy()


def require_array(name: str, x: Any, dtypes: tuple[str, ...] = FLOATS) -> None:
    """TypeError unless x is a torch tensor or a NumPy array of one of the dtypes."""
    if not isinstance(x, (torch.Tensor, np.ndarray)):
        raise TypeError(f"{name} must be a torch tensor or a NumPy array, got {type(x).__name__}")
    dtype = str(x.dtype).removeprefix("torch.")
    if dtype not in dtypes:
        raise TypeError(f"{name} must be {' or '.join(dtypes)}, got {dtype}; convert it explicitly")


def device_type_of(x: Array) -> str:
    return x.device.type if isinstance(x, torch.Tensor) else "cpu"


def contiguous_numpy(x: Array) -> npt.NDArray[Any]:
    """The values as an aligned C-contiguous NumPy array on the CPU; a copy only where that needs one."""
    array = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x
    return np.require(array, requirements=["C", "A"])


def float64_tensor(x: Array) -> torch.Tensor:
    """The values as a float64 tensor on their own device: what the references compute with."""
    if isinstance(x, torch.Tensor):
        return x.detach().to(torch.float64)
    return torch.from_numpy(np.array(x, dtype=np.float64))


def like(values: Array, pattern: Array, dtype: str) -> Array:
    """values as the kind of array, and on the device, that `pattern` has."""
    if isinstance(pattern, np.ndarray):
        array = values.cpu().numpy() if isinstance(values, torch.Tensor) else values
        return array.astype(dtype, copy=False)
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return tensor.to(device=pattern.device, dtype=getattr(torch, dtype))


def require_finite_rows(name: str, flat: Array, groups: Groups) -> None:
    """ValueError that names the first row of flat [M, d] with NaN or inf."""
    if isinstance(flat, torch.Tensor):
        finite = contiguous_numpy(torch.isfinite(flat).all(dim=-1))
    else:
        finite = np.asarray(np.isfinite(flat).all(axis=-1))
    if finite.all():
        return
    row = int(np.flatnonzero(~finite)[0])
    values = contiguous_numpy(flat[row])
    value = values[~np.isfinite(values)][0]
    index, words = groups.place(row)
    raise ValueError(f"{name}[{index}] contains {value} ({words}); remove the row or encode it again")
