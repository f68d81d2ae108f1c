"""pagerank of a graph whose edges lie on a CUDA device: they stay there, and so do the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from rlsft_kernels._cuda import address, stream_of
from rlsft_kernels.pagerank.graph import Edges, find_fault, is_torch_sparse, raise_fault, read_graph
from rlsft_kernels.pagerank.run import Options

SEGMENT_EDGES = 256  # kSegmentEdges in csrc
UPDATE_THREADS = 256  # kUpdateThreads
SWEEPS_A_LOOK = 8  # queued between two looks at the progress; later ones of a finished run do nothing


@dataclass(frozen=True)
class DeviceEdges:
    """Edge e runs from starts[e] to ends[e]; on the device."""

    n: int
    starts: torch.Tensor  # [E] int64
    ends: torch.Tensor  # [E] int64
    weights: torch.Tensor | None  # [E] float32 or float64; None is 1 everywhere
    dtype: str  # of the scores

    def nodes_only(self) -> Edges:
        """The graph without its edges, for the checks of what has one entry a node."""
        nowhere = np.empty(0, np.int64)
        return Edges(self.n, "coo", None, nowhere, nowhere, None, None, self.ends.new_empty(0), self.dtype)


def lies_on(graph: Any, device_type: str) -> bool:
    """Whether this is a tensor, or a tuple of tensors, on such a device."""
    tensors = graph if isinstance(graph, tuple) else (graph,)
    return any(isinstance(t, torch.Tensor) and t.device.type == device_type for t in tensors)


def read_on_device(graph: Any) -> DeviceEdges:
    """The edges of a graph that lies on a device, without a copy to the host.

    Raises:
        TypeError, ValueError: what `read_graph` says of the same graph on the host, values included.
    """
    try:
        edges = _read(graph)
        _need(_is_sound(edges))
    except _UnreadableError:
        _explain(graph)
    return edges


class _UnreadableError(Exception):
    """Something about the graph is wrong; the host's checks will find the words."""


def _need(condition: bool) -> None:
    if not condition:
        raise _UnreadableError


def _explain(graph: Any) -> NoReturn:
    """Raises what the host's checks find: reading the graph to the host is for errors alone."""
    on_host = read_graph(graph, None)
    fault, position = find_fault(on_host)
    if fault != "none":
        raise_fault(on_host, fault, position)
    raise ValueError("graph must have int32 or int64 ids on one device; move all of its tensors there")


def _read(graph: Any) -> DeviceEdges:
    if isinstance(graph, tuple):
        _need(len(graph) in (2, 3) and all(isinstance(t, torch.Tensor) for t in graph[:2]))
        weights = graph[2] if len(graph) == 3 else None
        return _from_pointers(graph[0], graph[1], weights, by_target=False)
    plain = graph.detach()
    _need(plain.ndim == 2 and plain.shape[0] == plain.shape[1])
    n = plain.shape[0]
    if not is_torch_sparse(plain):
        starts, ends = plain.nonzero(as_tuple=True)  # NaN is not zero, and is refused by its place
        return DeviceEdges(n, starts, ends, *_weights(plain[starts, ends], len(ends)))
    if plain.layout is torch.sparse_coo:
        starts, ends = plain._indices()
        return DeviceEdges(n, starts, ends, *_weights(plain._values(), len(ends)))
    if plain.layout is torch.sparse_csc:
        return _from_pointers(plain.ccol_indices(), plain.row_indices(), plain.values(), by_target=True)
    _need(plain.layout is torch.sparse_csr)
    return _from_pointers(plain.crow_indices(), plain.col_indices(), plain.values(), by_target=False)


def _from_pointers(
    pointers: torch.Tensor, others: torch.Tensor, weights: torch.Tensor | None, *, by_target: bool
) -> DeviceEdges:
    for ids in (pointers, others):
        _need(ids.ndim == 1 and ids.dtype in (torch.int32, torch.int64) and ids.device == others.device)
    _need(len(pointers) >= 1)
    degrees, n = pointers.long().diff(), len(pointers) - 1
    _need(int(pointers[0]) == 0 and int(pointers[-1]) == len(others) and not bool((degrees < 0).any()))
    own = torch.repeat_interleave(torch.arange(n, device=others.device), degrees, output_size=len(others))
    starts, ends = (others.long(), own) if by_target else (own, others.long())
    return DeviceEdges(n, starts, ends, *_weights(weights, len(others)))


def _weights(values: torch.Tensor | None, count: int) -> tuple[torch.Tensor | None, str]:
    if values is None:
        return None, "float64"
    _need(isinstance(values, torch.Tensor) and values.ndim == 1 and len(values) == count)
    _need(not values.is_complex() and values.dtype not in (torch.float16, torch.bfloat16))
    if values.dtype == torch.float32:
        return values.contiguous(), "float32"
    return values.to(torch.float64).contiguous(), "float64"


def _is_sound(edges: DeviceEdges) -> bool:
    good = ((edges.starts >= 0) & (edges.starts < edges.n) & (edges.ends >= 0) & (edges.ends < edges.n)).all()
    if edges.weights is not None:
        good &= (torch.isfinite(edges.weights) & (edges.weights >= 0)).all()
    return bool(good)


def rank_on_device(edges: DeviceEdges, options: Options) -> tuple[torch.Tensor, int, float]:
    """Scores [n] float64 on the device, sweeps, and L1 step of the last one, by Jacobi sweeps."""
    if edges.n == 0:
        return torch.zeros(0, dtype=torch.float64, device=edges.ends.device), 0, 0.0
    run = _Run(edges, options)
    run.queue(sweeps=0)
    while not run.is_done():
        run.queue(sweeps=SWEEPS_A_LOOK)
    step, _, total = run.masses.tolist()
    return run.x / total, int(run.progress[0]), step


class _Run:
    """Arrays of one run, and the launches over them."""

    def __init__(self, edges: DeviceEdges, options: Options) -> None:
        self.n, self.options, self.device = edges.n, options, edges.ends.device
        weights = _scaled(edges)
        self.inverse = self._inverse_strengths(edges, weights)
        self._sort_by_target(edges, weights)
        self.teleport = self._distribution(options.teleport)
        self.dangling = self.teleport if options.dangling is None else self._distribution(options.dangling)
        self.x = self._start(edges)
        self.u, self.partial = torch.empty_like(self.x), self._floats(self.segments)
        self.sums = self._floats(3 * -(-self.n // UPDATE_THREADS))
        self.masses = self._floats(3)
        self.progress = torch.zeros(2, dtype=torch.int64, device=self.device)

    def _floats(self, count: int) -> torch.Tensor:
        return torch.empty(count, dtype=torch.float64, device=self.device)

    def _distribution(self, values: Any) -> torch.Tensor:
        if values is None:
            return torch.full((self.n,), 1 / self.n, dtype=torch.float64, device=self.device)
        return torch.from_numpy(values).to(self.device)

    def _start(self, edges: DeviceEdges) -> torch.Tensor:
        if self.options.start is not None:
            return self._distribution(self.options.start).clone()
        if not len(edges.ends):
            return self.teleport.clone()
        # nearly what a first sweep would make of a uniform start, for nothing
        a, degrees = self.options.damping, self.pointers.diff().to(torch.float64)
        return (1 - a) * self.teleport + a * (degrees / len(edges.ends))

    def _inverse_strengths(self, edges: DeviceEdges, weights: torch.Tensor | None) -> torch.Tensor:
        order = torch.argsort(edges.starts, stable=True)
        pointers = _pointers(edges.starts[order], self.n)
        if weights is None:
            sums = pointers.diff().to(torch.float64)
        else:
            from rlsft_kernels import _C

            sums, by_source = self._floats(self.n), weights[order]
            _C.cuda_pagerank_strengths(
                n=self.n,
                pointers=address(pointers),
                **_weight_addresses(by_source),
                sums=address(sums),
                stream=stream_of(self.device),
            )
        return torch.where(sums > 0, 1 / sums, torch.zeros_like(sums))

    def _sort_by_target(self, edges: DeviceEdges, weights: torch.Tensor | None) -> None:
        order = torch.argsort(edges.ends, stable=True)
        self.sources = edges.starts[order].to(torch.int32)
        self.weights = None if weights is None else weights[order]
        self.pointers = _pointers(edges.ends[order], self.n)
        counts = (self.pointers.diff() + SEGMENT_EDGES - 1) // SEGMENT_EDGES
        self.row_segments = torch.zeros(self.n + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(counts, 0, out=self.row_segments[1:])
        self.segments = int(self.row_segments[-1])
        rows = torch.repeat_interleave(torch.arange(self.n, device=self.device), counts, output_size=self.segments)
        place = torch.arange(self.segments, device=self.device) - self.row_segments[rows]
        begin = self.pointers[rows] + SEGMENT_EDGES * place
        self.segment_begin = torch.cat([begin, self.pointers[-1:]])

    def queue(self, *, sweeps: int) -> None:
        """So many sweeps; 0 begins."""
        from rlsft_kernels import _C

        _C.cuda_pagerank_sweeps(
            n=self.n,
            segments=self.segments,
            row_segments=address(self.row_segments),
            segment_begin=address(self.segment_begin),
            sources=address(self.sources),
            **_weight_addresses(self.weights),
            inverse=address(self.inverse),
            teleport=address(self.teleport),
            dangling=address(self.dangling),
            x=address(self.x),
            u=address(self.u),
            partial=address(self.partial),
            sums=address(self.sums),
            masses=address(self.masses),
            progress=address(self.progress),
            damping=self.options.damping,
            tol=self.options.tol,
            max_iter=self.options.max_iter,
            sweeps=sweeps,
            stream=stream_of(self.device),
        )

    def is_done(self) -> bool:
        """Waits for the device: a stopping rule has to be looked at."""
        return bool(self.progress[1])


def _weight_addresses(weights: torch.Tensor | None) -> dict[str, int]:
    is_double = weights is not None and weights.dtype == torch.float64
    return {"weights32": 0 if is_double else address(weights), "weights64": address(weights) if is_double else 0}


def _pointers(sorted_ids: torch.Tensor, n: int) -> torch.Tensor:
    """[n + 1]: where each id begins."""
    return torch.searchsorted(sorted_ids, torch.arange(n + 1, device=sorted_ids.device))


def _scaled(edges: DeviceEdges) -> torch.Tensor | None:
    """float64 weights times a power of two for each source, so that their sums and 1 / sum stay in range."""
    weights = edges.weights
    if weights is None or weights.dtype == torch.float32:
        return weights
    largest = torch.zeros(edges.n, dtype=torch.float64, device=weights.device)
    largest.scatter_reduce_(0, edges.starts, weights, "amax")
    exponents = torch.frexp(largest).exponent[edges.starts]
    half = -exponents // 2  # twice: one factor alone may lie outside of double's range
    return torch.ldexp(torch.ldexp(weights, half), -exponents - half)
