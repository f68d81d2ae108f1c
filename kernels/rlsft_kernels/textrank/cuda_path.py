"""textrank of groups whose numbers lie on a CUDA device: they stay there, and so do the scores."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._cuda import DeviceGroups, address, stream_of, to_device
from rlsft_kernels._groups import Groups
from rlsft_kernels.similarity.op import EMBEDDING_EDGES
from rlsft_kernels.textrank.inputs import FORMS, METHODS

MOST_ROWS = 256  # kMaxGroup in csrc: a block of threads ranks a group
SHARED_ROWS = 64  # kSmallGroup: up to here the edges need no workspace


class RankOptions(Protocol):
    """What a run needs beside the graphs."""

    @property
    def damping(self) -> float: ...
    @property
    def tol(self) -> float: ...
    @property
    def max_iter(self) -> int: ...
    @property
    def form(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def teleport(self) -> npt.NDArray[np.float64] | None: ...  # [M]
    @property
    def start(self) -> npt.NDArray[np.float64] | None: ...  # [M]


def fits(layout: Groups) -> bool:
    """Whether every group is small enough."""
    return not len(layout) or int(layout.sizes.max()) <= MOST_ROWS


def require_fitting(layout: Groups) -> None:
    """ValueError that names the remedy, for a group of too many rows."""
    if not fits(layout):
        raise ValueError(
            f"textrank: backend='native' on a CUDA device takes groups of up to {MOST_ROWS} rows, got "
            f"{int(layout.sizes.max())}; use backend='reference', or move the input to the CPU for the C++ core"
        )


def rank_on_device(
    flat: torch.Tensor,  # [M, d] embeddings, or [sum of m^2] weights
    layout: Groups,
    edge: str | None,  # None: weights
    options: RankOptions,
) -> tuple[torch.Tensor, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Scores [M] on the device; n_iter and residual [G], in the one copy that comes back to the host."""
    from rlsft_kernels import _C

    device, values = flat.device, flat.detach().contiguous()
    groups = DeviceGroups.of(layout, device)
    teleport, start = to_device(options.teleport, device), to_device(options.start, device)
    scores = torch.empty(layout.rows, dtype=flat.dtype, device=device)
    outcome = torch.empty((2, len(layout)), dtype=torch.int64, device=device)  # n_iter; the bits of the residual
    needs_edges, needs_matrix = groups.largest > SHARED_ROWS, options.form == "eigenvector"
    edges = torch.empty(groups.blocks if needs_edges else 0, dtype=flat.dtype, device=device)
    matrix = torch.empty(groups.blocks if needs_matrix else 0, dtype=torch.float64, device=device)
    _C.cuda_textrank(
        is_double=flat.dtype == torch.float64,
        values=address(values),
        d=0 if edge is None else flat.shape[1],
        offsets=address(groups.offsets),
        block_offsets=address(groups.block_offsets),
        groups=groups.count,
        largest=groups.largest,
        edge=0 if edge is None else EMBEDDING_EDGES.index(edge),
        teleport=address(teleport),
        start=address(start),
        damping=options.damping,
        tol=options.tol,
        max_iter=options.max_iter,
        form=FORMS.index(options.form),
        method=METHODS.index(options.method),
        edges=address(edges),
        matrix=address(matrix),
        scores=address(scores),
        n_iter=address(outcome[0]),
        residual=address(outcome[1]),
        stream=stream_of(device),
    )
    host = outcome.cpu().numpy()  # waits: whether a group failed or did not converge is known only now
    return scores, host[0], host[1].view(np.float64)
