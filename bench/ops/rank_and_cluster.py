"""TextRank and ISODATA of 512 small groups in one call, beside what a user would loop over instead.

The peers do less: k-means with k given and fixed, and no scores at all. Ours is timed from embeddings to scores,
clusters, centres and medoids. The data is read once, 4*m*d bytes a group; the upper triangle of the dot products takes
about m^2*d flops.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.measure import Provider
from bench.ops.isodata import K_GROUP, PASSES_GROUP, IsodataCase, grouped_points, sklearn_loop, torch_lloyd
from rlsft_kernels import isodata, rank_and_cluster, textrank

BY_HAND: dict[str, Any] = {
    "n_clusters": K_GROUP,
    "max_std": 3.0,
    "min_distance": 10.0,
    "split_factor": 1.0,
    "max_iter": PASSES_GROUP,
}


def faiss_loop(groups: np.ndarray) -> np.ndarray:
    """faiss.Kmeans, one group after the other."""
    import faiss

    faiss.omp_set_num_threads(1)
    labels = np.empty(groups.shape[:2], np.int64)
    for at, rows in enumerate(groups):
        model = faiss.Kmeans(groups.shape[2], K_GROUP, niter=PASSES_GROUP, min_points_per_centroid=1, verbose=False)
        model.train(rows)
        labels[at] = model.index.search(rows, 1)[1][:, 0]
    return labels


def torch_both(groups: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Batched TextRank (six sweeps, shifted cosine) and batched Lloyd in torch."""
    unit = torch.nn.functional.normalize(groups, dim=-1)
    weights = 0.5 + 0.5 * unit @ unit.mT
    weights.diagonal(dim1=1, dim2=2).zero_()
    transition = weights / weights.sum(-1, keepdim=True)
    scores = torch.full(groups.shape[:2], 1 / groups.shape[1])
    for _ in range(6):
        scores = 0.15 / groups.shape[1] + 0.85 * (scores[:, None] @ transition)[:, 0]
    return torch_lloyd(groups, start, PASSES_GROUP)


def fused(groups: np.ndarray, **cluster: Any) -> Callable[[], Any]:
    """Our op, returning the labels."""
    return lambda: rank_and_cluster(groups, cluster=cluster).clusters.labels


def one_after_the_other(groups: np.ndarray) -> np.ndarray:
    """Our two ops in turn."""
    scores = textrank(embeddings=groups).scores
    return np.asarray(isodata(groups, scores=scores, **BY_HAND).labels)


def cases(*, quick: bool) -> Iterator[IsodataCase]:
    """Groups of 16 answers with up to four clusters."""
    groups, truth = grouped_points(64 if quick else 512)
    tensor = torch.from_numpy(groups)
    start = tensor[:, :: 16 // K_GROUP]
    providers = [
        Provider("rlsft native 1T", fused(groups, **BY_HAND)),
        Provider("rlsft native 2T", fused(groups, **BY_HAND), threads=2),
        Provider("rlsft native 1T, defaults", fused(groups)),
        Provider("rlsft native 1T, variant str", fused(groups, variant="str", var_threshold=0.35)),
        Provider("rlsft native 1T, two calls", partial(one_after_the_other, groups)),
        Provider("scikit-learn KMeans loop", partial(_quietly, sklearn_loop, groups), package="scikit-learn"),
        Provider("torch TextRank + Lloyd 1T", partial(torch_both, tensor, start), package="torch"),
        Provider("torch TextRank + Lloyd 2T", partial(torch_both, tensor, start), threads=2, package="torch"),
    ]
    if _has_faiss():
        providers.append(Provider("faiss Kmeans loop 1T", partial(faiss_loop, groups), package="faiss-cpu"))
    else:
        print("rank_and_cluster: faiss-cpu is not installed, so it is not timed (requirements/bench.txt)")
    note = f"TextRank and ISODATA, K = {K_GROUP}; the peers only run k-means with k given"
    yield IsodataCase(truth, f"{len(groups)}x16x384", note, 0.4, providers)


def _has_faiss() -> bool:
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def _quietly(run: Callable[[np.ndarray], np.ndarray], groups: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(groups)
