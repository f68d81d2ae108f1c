"""ISODATA on batches of small groups and on one large set, beside k-means loops that are told the number of clusters;
and the assignment step of one large set alone, beside one iteration of Lloyd's.

The peers do less: Lloyd's iteration with k fixed neither splits nor merges, computes no deviations and finds no
medoids. No peer implements ISODATA, so this is the nearest thing a user could call instead. A pass over a group reads
4*m*d bytes and takes 3*m*k*d flops for the assignment.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from sklearn.cluster import KMeans
from sklearn.cluster._k_means_lloyd import lloyd_iter_chunked_dense
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from bench.measure import Provider
from rlsft_kernels import isodata

HAS_FAISS = importlib.util.find_spec("faiss") is not None
STEPS = 8  # of the assignment in one timed call
K_GROUP, PASSES_GROUP = 4, 10
K_SET, PASSES_SET = 16, 20
REFERENCE_GROUPS = 64  # of 512: the NumPy loop takes seconds for all of them, and its time is linear in their number


def sklearn_loop(groups: np.ndarray) -> np.ndarray:
    """scikit-learn's KMeans, one group after the other."""
    model = KMeans(K_GROUP, n_init=1, max_iter=PASSES_GROUP, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # groups with fewer distinct clusters than k
        return np.stack([model.fit(rows).labels_ for rows in groups])


def scipy_loop(groups: np.ndarray) -> np.ndarray:
    """scipy's kmeans2, one group after the other."""
    run = partial(kmeans2, k=K_GROUP, iter=PASSES_GROUP, minit="++", missing="warn", rng=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty clusters
        return np.stack([run(rows)[1] for rows in groups])


def torch_lloyd(groups: torch.Tensor, start: torch.Tensor, passes: int) -> torch.Tensor:
    """Lloyd's iteration on a whole batch [B, n, d] from centres [B, k, d]; an empty cluster keeps its centre."""
    centers = start
    for _ in range(passes):
        # |x|^2 is the same for every centre
        distances = centers.square().sum(2)[:, None] - 2 * (groups @ centers.mT)
        member = torch.nn.functional.one_hot(distances.argmin(2), centers.shape[1]).to(groups.dtype)
        sizes = member.sum(1)[:, :, None]
        centers = torch.where(sizes > 0, member.mT @ groups / sizes.clamp(min=1), centers)
    return (centers.square().sum(2)[:, None] - 2 * (groups @ centers.mT)).argmin(2)


@dataclass
class IsodataCase:
    """Groups or one set, with the clusters they were drawn from."""

    truth: np.ndarray  # [G, m]
    shape: str
    note: str
    at_least: float  # mean adjusted Rand index that a provider must reach to be timed
    providers: list[Provider]
    dtype: str = "float32"
    baseline: str = "rlsft native 1T"

    def check(self, provider: Provider) -> str:
        """The mean adjusted Rand index against the clusters the points were drawn from."""
        labels = np.asarray(provider.run()).reshape(-1, self.truth.shape[1])
        pairs = zip(self.truth[: len(labels)], labels, strict=True)
        agreement = float(np.mean([adjusted_rand_score(truth, found) for truth, found in pairs]))
        if agreement < self.at_least:
            raise AssertionError(f"{provider.name} reaches ARI {agreement:.3f} on {self.shape}; not timed")
        return f"ARI {agreement:.3f}"


def cases(*, quick: bool) -> Iterator[IsodataCase | StepCase]:
    """512 groups of 16 answers, one set of 100 000 rows, and the assignment step of that set."""
    yield group_case(64 if quick else 512)
    yield set_case(5000 if quick else 100_000)
    yield step_case(5000 if quick else 100_000)


def group_case(count: int) -> IsodataCase:
    """Up to four clusters in each group of 16 rows of 384 numbers."""
    g = np.random.default_rng(0)
    centers = 2 * g.standard_normal((count, 4, 384))
    truth = g.integers(0, 4, (count, 16))
    noise = g.standard_normal((count, 16, 384))
    groups = (np.take_along_axis(centers, truth[:, :, None], 1) + noise).astype(np.float32)
    tensor, few = torch.from_numpy(groups), groups[:REFERENCE_GROUPS]
    start = tensor[:, :: 16 // K_GROUP]
    by_hand: dict[str, Any] = {
        "n_clusters": K_GROUP,
        "max_std": 3.0,
        "min_distance": 10.0,
        "split_factor": 1.0,
        "max_iter": PASSES_GROUP,
    }
    providers = [
        Provider("rlsft native 1T", ours(groups, **by_hand)),
        Provider("rlsft native 2T", ours(groups, **by_hand), threads=2),
        Provider("rlsft native 1T, defaults", ours(groups)),
        Provider("rlsft native 1T, variant str", ours(groups, variant="str", var_threshold=0.35)),
        Provider("rlsft reference", ours(few, backend="reference", **by_hand), scale=len(groups) / len(few)),
        Provider("scikit-learn KMeans loop", partial(sklearn_loop, groups), package="scikit-learn"),
        Provider("scipy kmeans2 loop", partial(scipy_loop, groups), package="scipy"),
        Provider("torch batched Lloyd 1T", partial(torch_lloyd, tensor, start, PASSES_GROUP), package="torch"),
        Provider(
            "torch batched Lloyd 2T", partial(torch_lloyd, tensor, start, PASSES_GROUP), threads=2, package="torch"
        ),
    ]
    note = f"K = {K_GROUP}, at most {PASSES_GROUP} passes; the peers are told k and keep it: less work"
    return IsodataCase(truth, f"{count}x16x384", note, 0.4, providers)


def set_case(rows: int) -> IsodataCase:
    """Sixteen clusters in one set, every provider from the same sixteen rows."""
    points, truth = make_blobs(rows, 64, centers=K_SET, cluster_std=6.0, random_state=0)
    points = points.astype(np.float32)
    start = points[np.random.default_rng(1).choice(rows, K_SET, replace=False)]
    settings: dict[str, Any] = {
        "init": start,
        "n_clusters": K_SET,
        "min_samples": 10,
        "max_std": 7.5,
        "min_distance": 20.0,
        "max_iter": PASSES_SET,
        "stop_early": False,
    }
    tensor, start_tensor = torch.from_numpy(points)[None], torch.from_numpy(start)[None]
    providers = [
        Provider("rlsft native 1T", ours(points, **settings)),
        Provider("rlsft native 2T", ours(points, **settings), threads=2),
        Provider("scikit-learn KMeans 1T", partial(sklearn_set, points, start), package="scikit-learn"),
        Provider("scikit-learn KMeans 2T", partial(sklearn_set, points, start), threads=2, package="scikit-learn"),
        Provider("scipy kmeans2", partial(scipy_set, points, start), package="scipy"),
        Provider("torch Lloyd 1T", partial(torch_lloyd, tensor, start_tensor, PASSES_SET), package="torch"),
    ]
    note = f"{PASSES_SET} passes (scikit-learn may stop earlier); the peers keep k = {K_SET}: less work, lower ARI"
    return IsodataCase(truth[None], f"{rows}x64", note, 0.4, providers)


@dataclass
class StepCase:
    """The assignment step: rows and centres in, labels and the sums for the next centres out."""

    truth: np.ndarray  # [n] labels of float64 distances
    shape: str
    note: str
    providers: list[Provider]
    dtype: str = "float32"
    baseline: str = "rlsft native 1T"

    def check(self, provider: Provider) -> str:
        """How many labels differ from those of float64: none of ours, one in a thousand of a float32 peer's."""
        if provider.name.startswith("floor"):
            provider.run()
            return "no labels: a limit"
        wrong = int((np.asarray(provider.run()).reshape(-1) != self.truth).sum())
        if wrong > (0 if provider.name.startswith("rlsft") else len(self.truth) // 1000):
            raise AssertionError(f"{provider.name} gives {wrong} wrong labels on {self.shape}; not timed")
        return f"{wrong} of {len(self.truth)} labels differ"


def step_case(rows: int) -> StepCase:
    """Eight assignment steps a call, everybody from the same sixteen centres, which stay where they are."""
    points, _ = make_blobs(rows, 64, centers=K_SET, cluster_std=6.0, random_state=0)
    points = points.astype(np.float32)
    centers = points[np.random.default_rng(1).choice(rows, K_SET, replace=False)].copy()
    truth = np.stack([np.square(points - center.astype(np.float64)).sum(1) for center in centers], 1).argmin(1)
    tensors = torch.from_numpy(points), torch.from_numpy(centers)
    providers = []
    for threads in (1, 2):
        steps: list[tuple[str, Callable[[], Any], str | None]] = [
            ("rlsft native", partial(our_steps, points, centers, with_squares=False), None),
            ("rlsft native + squares", partial(our_steps, points, centers, with_squares=True), None),
            ("scikit-learn Lloyd iteration", partial(sklearn_steps, points, centers), "scikit-learn"),
            ("torch", partial(torch_steps, *tensors), "torch"),
            ("floor: one read of the rows", partial(read_only_steps, tensors[0]), None),
            ("floor: one product with centres", partial(product_steps, *tensors), None),
        ]
        if HAS_FAISS:
            steps.append(
                (
                    "faiss Kmeans iteration",
                    partial(faiss_iterations, points, centers, _search(points, centers)),
                    "faiss-cpu",
                )
            )
            steps.append(("faiss search, labels only", partial(faiss_searches, points, centers), "faiss-cpu"))
        providers += [Provider(f"{name} {threads}T", run, threads, package=package) for name, run, package in steps]
    flops, bytes_read = 2 * rows * K_SET * 64, 4 * rows * 64
    note = (
        f"{STEPS} steps a call, {flops / 1e6:.0f} MFLOP and {bytes_read / 1e6:.1f} MB each: labels and sums; ours "
        "with float64 sums and its preparation in the time"
    )
    return StepCase(truth, f"step {rows}x64", note + ("" if HAS_FAISS else "; faiss is not installed"), providers)


def our_steps(points: np.ndarray, centers: np.ndarray, *, with_squares: bool) -> np.ndarray:
    """The native step alone: labels as float64 decides and float64 sums around the centres."""
    from rlsft_kernels import _C

    labels, sums = np.empty(len(points), np.int32), np.empty((len(centers), 2, points.shape[1]))
    _C.isodata_assign(points, centers.astype(np.float64), torch.get_num_threads(), STEPS, with_squares, labels, sums)
    return labels


def sklearn_steps(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """scikit-learn's inner function, called as its KMeans calls it: labels and new centres, no preparation."""
    labels, new = np.full(len(points), -1, np.int32), np.zeros_like(centers)
    weights = np.ones(len(points), np.float32)
    in_clusters, shift = np.zeros(len(centers), np.float32), np.zeros(len(centers), np.float32)
    with threadpool_limits(1, user_api="blas"):
        for _ in range(STEPS):
            lloyd_iter_chunked_dense(points, weights, centers, new, in_clusters, labels, shift, torch.get_num_threads())
    return labels


def torch_steps(points: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """One product, one argmin and one scattered sum a step."""
    for _ in range(STEPS):
        labels = torch.addmm(centers.square().sum(1), points, centers.T, alpha=-2).argmin(1)
        torch.zeros_like(centers).index_add_(0, labels, points)
    return labels


def read_only_steps(points: torch.Tensor) -> None:
    """The memory's limit: every row read once a step."""
    for _ in range(STEPS):
        points.sum()


def product_steps(points: torch.Tensor, centers: torch.Tensor) -> None:
    """The arithmetic's limit, as far as the BLAS reaches it: the products alone."""
    out = points.new_empty(len(points), len(centers))
    for _ in range(STEPS):
        torch.mm(points, centers.T, out=out)


def faiss_iterations(points: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """faiss' k-means, eight iterations on all rows. It returns no labels: `labels` of a search stand for them."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    sizes = {"max_points_per_centroid": len(points), "min_points_per_centroid": 1}
    faiss.Kmeans(points.shape[1], len(centers), niter=STEPS, nredo=1, **sizes).train(points, init_centroids=centers)
    return labels


def _search(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    import faiss

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(centers)
    return index.search(points, 1)[1]


def faiss_searches(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """faiss' exact search: labels only, no sums."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    for _ in range(STEPS):
        labels = _search(points, centers)
    return labels


def sklearn_set(points: np.ndarray, start: np.ndarray) -> np.ndarray:
    """scikit-learn's Lloyd on one set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return KMeans(K_SET, init=start, n_init=1, max_iter=PASSES_SET, tol=0).fit(points).labels_


def scipy_set(points: np.ndarray, start: np.ndarray) -> np.ndarray:
    """scipy's kmeans2 on one set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kmeans2(points, start, iter=PASSES_SET, minit="matrix")[1]


def ours(points: np.ndarray, *, backend: Any = "native", **settings: Any) -> Callable[[], np.ndarray]:
    """The public op; `threads` follows torch, which the harness sets."""
    return lambda: isodata(points, backend=backend, **settings).labels  # type: ignore[return-value]
