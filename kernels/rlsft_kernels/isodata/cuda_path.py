"""isodata of groups whose points lie on a CUDA device: they stay there; what comes to the host is the history."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._cuda import address, stream_of, to_device
from rlsft_kernels._groups import Groups, contiguous_numpy
from rlsft_kernels.isodata.inputs import require_usable
from rlsft_kernels.isodata.result import STOP_REASONS, IsodataHistory
from rlsft_kernels.isodata.run import Floats, Found, core_options
from rlsft_kernels.isodata.settings import IsodataSettings

MOST_ROWS, MOST_CLUSTERS = 256, 512  # kMostRows and kMostClusters in csrc
MOST_BLOCKS = 4096
WORKSPACE_BYTES = 256 * 2**20  # groups are clustered in turn where more would be needed


def fits(layout: Groups, settings: IsodataSettings, start: Floats | None, d: int) -> bool:
    """Whether the CUDA kernels cluster such groups: at most 256 rows and 512 clusters."""
    rows = int(layout.sizes.max()) if len(layout) else 0
    return rows <= MOST_ROWS and _workspace(rows, settings, start, d)[0] <= MOST_CLUSTERS


def _workspace(rows: int, settings: IsodataSettings, start: Floats | None, d: int) -> tuple[int, int]:
    """(most clusters at a time, doubles a block works in)"""
    from rlsft_kernels import _C

    starts = 0 if start is None else start.shape[1]
    return _C.cuda_isodata_workspace(rows=rows, starts=starts, d=d, options=core_options(settings))


def run_on_device(
    rows: torch.Tensor,  # [N, d]
    layout: Groups,
    settings: IsodataSettings,
    start: Floats | None,  # [groups, k, d]
    scores: Floats | None,  # [N]
    weight: Floats | None,  # [N]
) -> Found:
    """The CUDA kernel, all groups in one call."""
    from rlsft_kernels import _C

    device, points, groups = rows.device, rows.detach().contiguous(), len(layout)
    largest, d = (int(layout.sizes.max()) if groups else 0), rows.shape[1]
    doubles = _workspace(largest, settings, start, d)[1]
    blocks = max(1, min(groups, MOST_BLOCKS, WORKSPACE_BYTES // (8 * doubles)))
    workspace = torch.empty((blocks, doubles), dtype=torch.float64, device=device)
    labels = torch.empty(layout.rows, dtype=torch.int32, device=device)
    medoids = torch.empty(layout.rows, dtype=torch.int64, device=device)
    centers = torch.empty_like(points)
    record = torch.zeros((3 + 4 * settings.max_iter, groups), dtype=torch.int32, device=device)
    offsets, starts = to_device(layout.offsets, device), to_device(start, device)
    scores_N, weight_N = to_device(scores, device), to_device(weight, device)
    _C.cuda_isodata(
        is_double=points.dtype == torch.float64,
        points=address(points),
        offsets=address(offsets),
        groups=groups,
        d=d,
        rows=largest,
        start=address(starts),
        starts=0 if start is None else start.shape[1],
        scores=address(scores_N),
        weight=address(weight_N),
        options=core_options(settings),
        workspace=address(workspace),
        blocks=blocks,
        labels=address(labels),
        centers=address(centers),
        medoids=address(medoids),
        counts=address(record[0]),
        n_steps=address(record[1]),
        stops=address(record[2]),
        steps=address(record[3:]),
        stream=stream_of(device),
    )
    counts, history = _history(record.cpu().numpy(), settings.max_iter)  # waits for the device
    if history is None:
        require_usable(contiguous_numpy(points), layout)
        raise AssertionError("a value that the kernel refused and the host did not")
    at = to_device(np.repeat(layout.offsets[:-1] - history.center_offsets[:-1], counts), device)
    assert at is not None
    at += torch.arange(len(at), device=device)
    return Found(labels, centers[at], medoids[at], history)


def _history(record: npt.NDArray[np.int32], max_iter: int) -> tuple[npt.NDArray[np.int64], IsodataHistory | None]:
    """Centres of each group, and the history; None for a group with values that cannot be used."""
    counts, n_steps, stops = record[:3].astype(np.int64)
    if (n_steps < 0).any():
        return counts, None
    steps: Any = record[3:].reshape(-1, max_iter, 4)
    taken = steps[np.arange(max_iter) < n_steps[:, None]].astype(np.int64)
    offsets = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in (n_steps, counts)]
    return counts, IsodataHistory(taken, offsets[0], offsets[1], tuple(STOP_REASONS[stop] for stop in stops.tolist()))
