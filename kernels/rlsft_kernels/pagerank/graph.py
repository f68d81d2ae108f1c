"""One graph, whatever the caller holds it in, as the arrays that the sweeps read: networkx, SciPy, torch, NumPy."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._groups import Array, contiguous_numpy, like

ORDERS = ("csr", "csc", "coo")  # in the order of EdgeOrder in csrc
FAULTS = ("none", "pointers", "starts", "ends", "weights")  # in the order of GraphFault in csrc
KINDS = (
    "a networkx graph, a SciPy sparse array, a torch sparse tensor, a square NumPy array or torch tensor, "
    "or a tuple (indptr, indices, weights or None)"
)
Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Edges:
    """The edges of a graph of n nodes. csr: pointers cut `ends` (targets) by source; csc: `ends` (sources) by target;
    coo: edge e runs from starts[e] to ends[e]. Repeated edges add up."""

    n: int
    order: str
    pointers: npt.NDArray[np.int64] | None  # [n + 1]
    starts: Ids | None  # [E]
    ends: Ids  # [E]
    weights: npt.NDArray[Any] | None  # [E] float32 or float64; None is 1 everywhere
    nodes: Sequence[Hashable] | None = None  # a networkx graph's nodes, in the order of the ids
    pattern: Array | None = None  # scores come back as this kind of array; None with nodes
    dtype: str = "float64"  # of the scores

    def edge(self, position: int) -> tuple[Any, Any]:
        """Source and target of an entry of `ends`, as the caller knows them."""
        other = int(self.ends[position])
        if self.order == "coo":
            assert self.starts is not None
            pair = int(self.starts[position]), other
        else:
            assert self.pointers is not None
            row = int(np.searchsorted(self.pointers, position, side="right")) - 1
            pair = (row, other) if self.order == "csr" else (other, row)
        if self.nodes is None:
            return pair
        return self.nodes[pair[0]], self.nodes[pair[1]]

    def coordinates(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Source and target of every edge."""
        ends = self.ends.astype(np.int64)
        if self.order == "coo":
            assert self.starts is not None
            return self.starts.astype(np.int64), ends
        assert self.pointers is not None
        rows = np.repeat(np.arange(self.n), np.diff(self.pointers))
        return (rows, ends) if self.order == "csr" else (ends, rows)


def read_graph(graph: Any, weight: str | None) -> Edges:
    """The edges of any supported graph; arrays are borrowed wherever their types allow it.

    Raises:
        TypeError: not a graph of a supported kind, or weights of another dtype. ValueError: not square.
    """
    if isinstance(graph, torch.Tensor):
        return _from_torch(graph)
    if isinstance(graph, np.ndarray):
        return _from_dense(graph, graph)
    if is_scipy_sparse(graph):
        return _from_scipy(graph)
    if isinstance(graph, tuple):
        return _from_tuple(graph)
    if all(callable(getattr(graph, name, None)) for name in ("is_directed", "edges", "nodes")):
        return _from_networkx(graph, weight)
    raise TypeError(f"graph must be {KINDS}, got {type(graph).__name__}")


def is_scipy_sparse(graph: Any) -> bool:
    """Whether this is a sparse array or matrix of SciPy, without importing SciPy."""
    scipy_sparse = sys.modules.get("scipy.sparse")
    return scipy_sparse is not None and bool(scipy_sparse.issparse(graph))


def is_torch_sparse(graph: Any) -> bool:
    """Whether this is a tensor of a sparse layout."""
    return isinstance(graph, torch.Tensor) and graph.layout is not torch.strided


def _from_scipy(graph: Any) -> Edges:
    _require_square(graph.shape)
    if graph.format not in ORDERS:
        graph = graph.tocsr()
    weights, dtype = _weights("graph.data", graph.data)
    pattern = np.empty(0)
    if graph.format == "coo":
        row, col = graph.row, graph.col
        return Edges(
            graph.shape[0], "coo", None, _ids("graph.row", row), _ids("graph.col", col), weights, None, pattern, dtype
        )
    pointers, ends = _pointers("graph.indptr", graph.indptr), _ids("graph.indices", graph.indices)
    return Edges(graph.shape[0], graph.format, pointers, None, ends, weights, None, pattern, dtype)


def _from_torch(graph: torch.Tensor) -> Edges:
    if graph.layout is torch.strided:
        return _from_dense(contiguous_numpy(graph), graph)
    _require_square(tuple(graph.shape))
    plain = graph.detach()
    values = plain._values() if plain.layout is torch.sparse_coo else plain.values()
    if values.ndim != 1:
        raise ValueError(f"graph must have one weight an edge, got values of shape {list(values.shape)}")
    weights, dtype = _weights("graph.values()", values)
    pattern = values.new_empty(0)
    if plain.layout is torch.sparse_coo:
        indices = plain._indices()
        both = [_ids(f"graph.indices()[{axis}]", indices[axis]) for axis in (0, 1)]
        return Edges(plain.shape[0], "coo", None, both[0], both[1], weights, None, pattern, dtype)
    if plain.layout is torch.sparse_csr:
        order, pointers, ends = "csr", plain.crow_indices(), plain.col_indices()
    elif plain.layout is torch.sparse_csc:
        order, pointers, ends = "csc", plain.ccol_indices(), plain.row_indices()
    else:
        raise TypeError(f"graph must be a sparse CSR, CSC or COO tensor, got {plain.layout}; use graph.to_sparse_csr()")
    pointer_array, end_array = _pointers("graph pointers", pointers), _ids("graph indices", ends)
    return Edges(plain.shape[0], order, pointer_array, None, end_array, weights, None, pattern, dtype)


def _from_dense(values: npt.NDArray[Any], pattern: Array) -> Edges:
    _require_square(values.shape)
    rows, ends = np.nonzero(values)  # NaN is not zero, and is refused later by its place
    pointers = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=len(values)), out=pointers[1:])
    weights, dtype = _weights("graph", values[rows, ends])
    return Edges(len(values), "csr", pointers, None, _ids("graph", ends), weights, None, pattern, dtype)


def _from_tuple(graph: tuple[Any, ...]) -> Edges:
    if len(graph) not in (2, 3):
        raise ValueError(f"graph must be (indptr, indices, weights or None), got a tuple of {len(graph)}")
    indptr, indices = graph[:2]
    given = graph[2] if len(graph) == 3 else None
    for name, array in (("indptr", indptr), ("indices", indices)):
        if not isinstance(array, (np.ndarray, torch.Tensor)):
            raise TypeError(f"graph's {name} must be a NumPy array or torch tensor, got {type(array).__name__}")
    pointers, ends = _pointers("indptr", indptr), _ids("indices", indices)
    weights, dtype = (None, "float64") if given is None else _weights("weights", given)
    if weights is not None and len(weights) != len(ends):
        raise ValueError(f"weights must have one entry for each of the {len(ends)} indices, got {len(weights)}")
    pattern = torch.empty(0, device=indices.device) if isinstance(indices, torch.Tensor) else np.empty(0)
    return Edges(len(pointers) - 1, "csr", pointers, None, ends, weights, None, pattern, dtype)


def _from_networkx(graph: Any, weight: str | None) -> Edges:
    nodes = list(graph)
    index = {node: i for i, node in enumerate(nodes)}
    rows = list(graph.edges(data=weight, default=1)) if weight is not None else [(*e[:2], 1) for e in graph.edges()]
    starts = np.fromiter((index[u] for u, _, _ in rows), dtype=np.int64, count=len(rows))
    ends = np.fromiter((index[v] for _, v, _ in rows), dtype=np.int64, count=len(rows))
    weights = np.empty(len(rows))
    for e, (u, v, value) in enumerate(rows):
        try:
            weights[e] = value
        except (TypeError, ValueError):
            raise TypeError(f"graph edge {u!r} -> {v!r}: {weight!r} must be a number, got {value!r}") from None
    if not graph.is_directed():
        both = starts != ends  # a self loop is one edge, as networkx has it
        starts, ends = np.concatenate([starts, ends[both]]), np.concatenate([ends, starts[both]])
        weights = np.concatenate([weights, weights[both]])
    return Edges(len(nodes), "coo", None, starts, ends, weights, nodes)


def _require_square(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"graph must be square [n, n], got shape {list(shape)}")


def _weights(name: str, values: Any) -> tuple[npt.NDArray[Any], str]:
    """Weights as float32 or float64, and the dtype of the scores. Integers and booleans mean what they say: float64."""
    if not isinstance(values, (np.ndarray, torch.Tensor)):
        raise TypeError(f"{name} must be a NumPy array or torch tensor, got {type(values).__name__}")
    dtype = str(values.dtype).removeprefix("torch.")
    if dtype in ("float32", "float64"):
        return contiguous_numpy(values.reshape(-1)), dtype
    if dtype == "bool" or dtype.startswith(("int", "uint")):
        return contiguous_numpy(values.reshape(-1)).astype(np.float64), "float64"
    raise TypeError(f"{name} must be float32, float64, integer or bool, got {dtype}; convert it explicitly")


def _ids(name: str, values: Any) -> Ids:
    """Node ids as they are when they are int32 or int64."""
    array = contiguous_numpy(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be one-dimensional integers, got {array.dtype} of shape {list(array.shape)}")
    if array.dtype in (np.int32, np.int64) and array.dtype.isnative:
        return array
    return array.astype(np.int64)


def _pointers(name: str, values: Any) -> npt.NDArray[np.int64]:
    array = _ids(name, values).astype(np.int64, copy=False)
    if len(array) == 0:
        raise ValueError(f"{name} must be [n + 1] and start with 0, got an empty array")
    return array


def raise_fault(edges: Edges, fault: str, position: int) -> NoReturn:
    """The error for what the check of the edges found."""
    count = len(edges.ends)
    if fault == "pointers":
        assert edges.pointers is not None
        before = f", after {edges.pointers[position - 1]}" if position else ""
        raise ValueError(
            f"graph: indptr[{position}] is {edges.pointers[position]}{before}; "
            f"indptr must rise from 0 to the {count} indices, one step for each of the {edges.n} nodes"
        )
    if fault in ("starts", "ends"):
        ids = edges.starts if fault == "starts" else edges.ends
        assert ids is not None
        row = (
            "" if edges.order == "coo" else f" ({'row' if edges.order == 'csr' else 'column'} {_row(edges, position)})"
        )
        raise ValueError(
            f"graph: index {ids[position]} of entry {position}{row} is out of range; node ids must be in [0, {edges.n})"
        )
    assert edges.weights is not None
    source, target = edges.edge(position)
    raise ValueError(
        f"graph: the weight of edge {source!r} -> {target!r} (entry {position}) is {edges.weights[position]}; "
        "weights must be finite and not negative"
    )


def _row(edges: Edges, position: int) -> int:
    assert edges.pointers is not None
    return int(np.searchsorted(edges.pointers, position, side="right")) - 1


def find_fault(edges: Edges) -> tuple[str, int]:
    """("none", -1), or what is wrong and the first place of it: what check_graph in csrc says."""
    if edges.pointers is not None:
        rises = np.concatenate([[edges.pointers[0] == 0], np.diff(edges.pointers) >= 0])
        rises &= edges.pointers <= len(edges.ends)
        rises[-1] &= edges.pointers[-1] == len(edges.ends)
        if not rises.all():
            return "pointers", int(np.argmin(rises))
    for name, ids in (("starts", edges.starts), ("ends", edges.ends)):
        if ids is not None:
            good = (ids >= 0) & (ids < edges.n)
            if not good.all():
                return name, int(np.argmin(good))
    if edges.weights is not None:
        good = np.isfinite(edges.weights) & (edges.weights >= 0)
        if not good.all():
            return "weights", int(np.argmin(good))
    return "none", -1


def node_distribution(name: str, values: Any, edges: Edges) -> npt.NDArray[np.float64] | None:
    """A weight for each node, scaled to sum 1. A mapping gives nodes their weights and all others 0, as in networkx.

    Raises:
        TypeError: not numbers. ValueError: wrong shape, NaN, inf, a negative entry, or all zero.
    """
    if values is None:
        return None
    array = _node_values(name, values, edges)
    if array.shape != (edges.n,):
        raise ValueError(f"{name} must have one entry a node, [{edges.n}], got shape {list(array.shape)}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(bad):
        node = edges.nodes[bad[0]] if edges.nodes is not None else int(bad[0])
        raise ValueError(f"{name}[{node!r}] is {array[bad[0]]}; entries must be finite and not negative")
    if edges.n == 0:
        return array
    if array.max() == 0:
        raise ValueError(f"{name} sums to 0; at least one node must have a positive entry")
    scaled = array / array.max()  # the largest entry first: a sum of huge entries would overflow
    return scaled / scaled.sum()


def _node_values(name: str, values: Any, edges: Edges) -> npt.NDArray[np.float64]:
    if isinstance(values, Mapping):
        nodes = edges.nodes if edges.nodes is not None else range(edges.n)
        values = [values.get(node, 0.0) for node in nodes]
    array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    if array.dtype.kind not in "fiu" and array.size:
        raise TypeError(f"{name} must be numbers, got dtype {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float64)


def give_back(scores: npt.NDArray[np.float64], edges: Edges) -> Any:
    """Scores as the kind of thing that the graph was."""
    if edges.nodes is not None:
        return dict(zip(edges.nodes, scores.tolist(), strict=True))
    assert edges.pattern is not None
    return like(scores, edges.pattern, edges.dtype)
