"""ISODATA as a scikit-learn estimator, without needing scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlsft.ranking.estimator_inputs import (
    Floats,
    check_columns,
    checked_rows,
    checked_weight,
    column_names,
    order_by_content,
    seed_of,
    threads_of,
)
from rlsft.ranking.estimator_protocol import ClusterTransformer

if TYPE_CHECKING:
    from typing import Self

    from rlsft_kernels.isodata import IsodataResult

_OP_PARAMETERS = (
    "variant", "n_clusters", "init", "n_init_clusters", "min_samples", "max_std", "split_criterion", "min_distance",
    "max_merges", "max_iter", "split_factor", "dispersion", "geometry", "discard_as_noise", "tol", "min_size",
    "max_size", "var_threshold", "variance_kind",
)  # fmt: skip


class ISODATA(ClusterTransformer):
    """Clustering that splits wide clusters and merges close ones, so that their number follows the data.

    Ball and Hall's ISODATA (1965) or the variant of STR (arXiv 2402.18284), as `rlsft_kernels.isodata`, with the
    interface of scikit-learn's clusterers and transformers. The number of clusters stays near `n_clusters` (about half
    to twice) while the thresholds allow it. Automatic thresholds follow the spread of the data and suit embeddings;
    data without structure is still cut, and many clusters in few dimensions need numbers.

    The draws of `init` follow an order of the rows by their content, so that the result does not depend on how the rows
    are sorted and, for "k-means++", an integer `sample_weight` gives what repeated rows give.

    Args:
        n_clusters: K, the number of clusters wanted; at most the number of rows that have weight is used.
        init: "k-means++", "random" (distinct rows) or starting centres [k, d].
        n_init_clusters: starting clusters. Default: n_clusters.
        min_samples: theta_N. Smaller clusters are dropped; compared with the sum of weights when there are any.
        max_std: theta_S. A cluster that deviates more may be split. "auto": 0.6 times the root of the mean variance.
        split_criterion: "max" (largest coordinate; default for a number) or "rms" (default for "auto").
        min_distance: theta_C. Closer centres may be merged. "auto": 0.75 times the root of the total variance.
        max_merges: L, pairs merged a pass at most.
        max_iter: I, passes at most.
        split_factor: gamma in (0, 1]. The halves start at centre +- gamma * sigma along the widest coordinate.
        dispersion: a cluster is wide for its mean "distance" to the centre or its root mean "squared" distance.
        geometry: "euclidean", or "cosine": rows (and Ball and Hall's centres) are scaled to unit length.
        discard_as_noise: rows of a dropped cluster get label -1.
        variant: "ball_hall" or "str"; the next four belong to "str".
        min_size: clusters of at most this size are merged into the nearest.
        max_size: clusters of at least this size are split. None: no bound.
        var_threshold: wider clusters are split, wider unions not made.
        variance_kind: "trace", "max_component_variance" or "max_component_std".
        n_init: runs from different seeds. Inertia alone would prefer more clusters, so the run with the lowest Bayesian
            information criterion of k spherical Gaussians of one variance is kept (as X-means, Pelleg and Moore 2000);
            among equals the first. Starting centres given by `init` are run once.
        tol: stop when, over two passes that changed no cluster, the squared moves of the centres sum to at most tol
            times the mean variance of a coordinate. 0: off.
        random_state: seed of `init`: None, an integer, a RandomState or a Generator.
        n_jobs: threads; -1 is every core. None: torch.get_num_threads(). The result does not depend on it.

    Attributes:
        labels_: int32 [n], cluster of each row, -1 for noise.
        cluster_centers_: [k, d], dtype of the rows. medoids_: int64 [k], the row nearest each centre.
        n_clusters_, n_iter_, n_splits_, n_merges_, n_discarded_: counts.
        inertia_: weighted sum of squared distances to the centres, without noise.
        history_: int64 [n_iter_, 4]: splits, merges, drops, clusters left of every pass.
        stop_reason_: "stable", "cycle", "tol" or "max_iter".
        n_features_in_; feature_names_in_ when the table has string column names.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init_clusters: int | None = None,
        min_samples: float = 1,
        max_std: float | Literal["auto"] = "auto",
        split_criterion: Literal["rms", "max"] | None = None,
        min_distance: float | Literal["auto"] = "auto",
        max_merges: int = 2,
        max_iter: int = 20,
        split_factor: float = 0.5,
        dispersion: Literal["distance", "squared"] = "distance",
        geometry: Literal["euclidean", "cosine"] = "euclidean",
        discard_as_noise: bool = False,
        variant: Literal["ball_hall", "str"] = "ball_hall",
        min_size: int = 0,
        max_size: int | None = None,
        var_threshold: float = 0.05,
        variance_kind: Literal["trace", "max_component_variance", "max_component_std"] = "trace",
        n_init: int = 1,
        tol: float = 0.0,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init_clusters = n_init_clusters
        self.min_samples = min_samples
        self.max_std = max_std
        self.split_criterion = split_criterion
        self.min_distance = min_distance
        self.max_merges = max_merges
        self.max_iter = max_iter
        self.split_factor = split_factor
        self.dispersion = dispersion
        self.geometry = geometry
        self.discard_as_noise = discard_as_noise
        self.variant = variant
        self.min_size = min_size
        self.max_size = max_size
        self.var_threshold = var_threshold
        self.variance_kind = variance_kind
        self.n_init = n_init
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Cluster the rows of X [n, d]; y is ignored.

        Raises:
            TypeError: sparse input, or a parameter of the wrong kind.
            ValueError: NaN, infinity, a wrong shape, or a parameter out of range.
        """
        names = column_names(X)
        rows = checked_rows(X, type(self).__name__)
        weight = checked_weight(sample_weight, len(rows))
        result, order = self._best_run(rows, weight)
        self.n_features_in_ = rows.shape[1]
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self._keep(result, order)
        squared = _squared_lengths(self._geometry_rows(rows), self.cluster_centers_, self.labels_)
        counted = (self.labels_ >= 0) * (1.0 if weight is None else weight)
        self.inertia_ = float(squared @ counted)
        return self

    def _best_run(self, rows: Floats, weight: NDArray[np.float64] | None) -> tuple[IsodataResult, NDArray[np.int64]]:
        from rlsft_kernels import isodata

        settings: dict[str, Any] = {name: getattr(self, name) for name in _OP_PARAMETERS}
        is_drawn = isinstance(self.init, str)
        if not is_drawn:
            settings["init"] = np.asarray(self.init, dtype=np.float64)
        if isinstance(self.n_init, bool) or not hasattr(self.n_init, "__index__") or self.n_init < 1:
            raise ValueError(f"n_init must be an integer >= 1, got {self.n_init!r}")
        order = order_by_content(rows) if is_drawn else np.arange(len(rows))
        if is_drawn:
            rows, weight = rows[order], None if weight is None else weight[order]
        seed, threads = seed_of(self.random_state), threads_of(self.n_jobs)
        best: tuple[float, IsodataResult] | None = None
        for run in range(self.n_init if is_drawn else 1):
            result = isodata(
                rows, sample_weight=weight, seed=(seed + run * 0x9E3779B97F4A7C15) % 2**64 if run else seed,
                threads=threads, **settings,
            )  # fmt: skip
            cost = self._information_cost(rows, weight, result) if self.n_init > 1 else 0.0
            if best is None or cost < best[0]:
                best = cost, result
        assert best is not None
        return best[1], order

    def _information_cost(self, rows: Floats, weight: NDArray[np.float64] | None, result: IsodataResult) -> float:
        """Half the Bayesian information criterion of k spherical Gaussians of one variance, up to a constant."""
        from rlsft_kernels.isodata.nearest import nearest_centers

        centers, d, counted = (
            np.asarray(result.centers),
            rows.shape[1],
            np.ones(len(rows)) if weight is None else weight,
        )
        labels = nearest_centers(rows, centers, geometry=self.geometry)  # noise too, or a run would gain by discarding
        rows = self._geometry_rows(rows)
        sizes = np.bincount(labels, weights=counted, minlength=len(centers))
        total = float(sizes.sum())
        # the spread of all rows sets what counts as no variance at all
        spread = _squared_lengths(rows, (counted @ rows / total)[None])
        floor = 1e-12 * float(spread @ counted) / total + 1e-300
        variance = max(float(_squared_lengths(rows, centers, labels) @ counted) / total, floor) / d
        sizes = sizes[sizes > 0]
        fit = total * d / 2 * np.log(variance) - float(sizes @ np.log(sizes / total))
        return float(fit + len(centers) * (d + 1) / 2 * np.log(max(total, 2.0)))

    def _keep(self, result: IsodataResult, order: NDArray[np.int64]) -> None:
        self.labels_ = np.empty(len(order), np.int32)
        self.labels_[order] = result.labels
        self.cluster_centers_ = np.asarray(result.centers)
        self.medoids_ = order[np.asarray(result.medoids)]
        self.n_clusters_ = len(self.cluster_centers_)
        self.n_iter_ = int(result.n_iter)
        self.n_splits_, self.n_merges_, self.n_discarded_ = map(int, result.history.totals()[0])
        self.history_ = result.history.steps
        self.stop_reason_ = str(result.stop_reason)

    def _geometry_rows(self, rows: Floats) -> Floats:
        from rlsft_kernels.isodata.nearest import geometry_rows

        return geometry_rows(rows, self.geometry)

    def _rows_like_fitted(self, X: Any) -> Floats:
        self._require_fitted()
        column_names(X)
        rows = checked_rows(X, type(self).__name__)
        check_columns(X, rows.shape[1], self)
        return rows

    def predict(self, X: Any) -> NDArray[np.int32]:
        """[n]: the nearest centre of each row; equal distances go to the lowest number, as in `fit`."""
        from rlsft_kernels.isodata.nearest import nearest_centers

        rows = self._rows_like_fitted(X)
        threads = threads_of(self.n_jobs)
        return nearest_centers(rows, self.cluster_centers_, geometry=self.geometry, threads=threads)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> NDArray[np.int32]:
        """`fit`, then `labels_`."""
        return self.fit(X, y, sample_weight).labels_

    def transform(self, X: Any) -> Any:
        """[n, k]: the distance of each row to each centre, in the dtype of X; a data frame if `set_output` says so."""
        from rlsft_kernels.isodata.nearest import center_distances

        rows = self._rows_like_fitted(X)
        distances = center_distances(rows, self.cluster_centers_, geometry=self.geometry)
        return self._in_container(distances.astype(rows.dtype), X)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """`fit`, then `transform`."""
        return self.fit(X, y, sample_weight).transform(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Minus the weighted sum of squared distances to the nearest centre: larger is better."""
        from rlsft_kernels.isodata.nearest import center_distances

        rows = self._rows_like_fitted(X)
        weight = checked_weight(sample_weight, len(rows))
        squared = center_distances(rows, self.cluster_centers_, geometry=self.geometry).min(axis=1) ** 2
        return -float(squared.sum() if weight is None else squared @ weight)


def _squared_lengths(rows: Floats, centers: Floats, labels: NDArray[np.int32] | None = None) -> NDArray[np.float64]:
    """[n]: |row - center|^2 in float64; the one centre, or each row's own."""
    out = np.empty(len(rows))
    for begin in range(0, len(rows), 4096):
        part = slice(begin, begin + 4096)
        difference = rows[part].astype(np.float64) - (centers if labels is None else centers[labels[part]])
        out[part] = np.einsum("ij,ij->i", difference, difference)
    return out
