"""The estimator ISODATA: scikit-learn's own checks, the protocol without scikit-learn, and what it adds to the op."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone, is_clusterer
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from rlsft.ranking import ISODATA
from rlsft_kernels import isodata

ROOT = Path(__file__).parents[2]


def blobs(rows: int = 300, *, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    points, truth = make_blobs(rows, 5, centers=4, cluster_std=0.8, random_state=2)
    return points.astype(dtype), truth


def checks(estimator: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "does not inherit from BaseEstimator": on purpose
        return list(estimator_checks_generator(estimator, legacy=True, expected_failed_checks=None, mark=None))


ESTIMATORS = (
    ISODATA(),
    ISODATA(n_clusters=3, init="random", geometry="cosine", dispersion="squared", n_init=2),
    ISODATA(variant="str", var_threshold=3.0),
)


@pytest.mark.filterwarnings("ignore:Estimator ISODATA does not inherit")
@pytest.mark.parametrize("number", range(len(ESTIMATORS)))
def test_every_check_of_scikit_learn_passes(number: int) -> None:
    run = 0
    for estimator, check in checks(ESTIMATORS[number]):
        name = check.func.__name__
        if number > 0 and "sample_weight" in name:
            continue  # equal draws for repeated rows are a promise of "k-means++"; STR takes no weights
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                check(estimator)
            except Exception as error:
                if type(error).__name__ == "SkipTest":  # optional packages
                    continue
                raise AssertionError(f"{name}: {error}") from error
        run += 1
    assert run > (45 if number == 0 else 35)


def test_it_is_a_clusterer_that_can_be_cloned_pickled_and_searched() -> None:
    points, truth = blobs()
    model = ISODATA(4, random_state=0, max_std=1.2, min_distance=2.0)
    assert is_clusterer(model)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy.fit(points) and model, "labels_")
    again = pickle.loads(pickle.dumps(copy))
    np.testing.assert_array_equal(again.predict(points), copy.labels_)
    assert adjusted_rand_score(truth, copy.labels_) == 1
    pipeline = make_pipeline(StandardScaler(), ISODATA(4, random_state=0))
    assert pipeline.fit_predict(points).shape == (300,)
    search = GridSearchCV(ISODATA(random_state=0, max_std=9.0, max_merges=0), {"n_clusters": [2, 4]}, cv=2).fit(points)
    assert search.best_params_ == {"n_clusters": 4}


def test_it_gives_what_the_op_gives() -> None:
    points, _ = blobs()
    settings: dict[str, Any] = {"n_clusters": 6, "min_samples": 3, "max_std": 1.0, "min_distance": 2.0}
    model = ISODATA(init=points[:5], **settings).fit(points)
    result = isodata(points, init=points[:5], **settings)
    np.testing.assert_array_equal(model.labels_, result.labels)
    np.testing.assert_array_equal(model.cluster_centers_, result.centers)
    np.testing.assert_array_equal(model.medoids_, result.medoids)
    np.testing.assert_array_equal(model.history_, result.history.steps)
    counts = [model.n_clusters_, model.n_splits_, model.n_merges_, model.n_discarded_, model.n_iter_]
    assert counts == [result.n_clusters, result.n_splits, result.n_merges, result.n_discarded, result.n_iter]
    assert model.stop_reason_ == result.stop_reason
    squared = np.square(points - result.centers[result.labels]).sum()
    assert model.inertia_ == pytest.approx(squared, rel=1e-12)
    assert model.score(points) == pytest.approx(-squared, rel=1e-12)
    distances = np.linalg.norm(points[:, None] - result.centers, axis=2)
    np.testing.assert_allclose(model.transform(points), distances, rtol=1e-12)


def test_medoids_are_rows_of_the_table_although_draws_follow_another_order() -> None:
    points, _ = blobs()
    model = ISODATA(4, random_state=3).fit(points)
    assert model.labels_[model.medoids_].tolist() == list(range(model.n_clusters_))
    squared = np.square(points - model.cluster_centers_[model.labels_]).sum(1)
    for k, medoid in enumerate(model.medoids_):
        assert squared[medoid] == squared[model.labels_ == k].min()


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_order_of_the_rows_does_not_matter(init: str, dtype: Any) -> None:
    points, _ = blobs(dtype=dtype)
    points[::7, 0] = 0.0
    shuffled = np.random.default_rng(0).permutation(300)
    mixed = points[shuffled].copy()
    mixed[mixed == 0] = -0.0
    plain, other = (ISODATA(5, init=init, random_state=1).fit(rows) for rows in (points, mixed))
    np.testing.assert_array_equal(plain.labels_[shuffled], other.labels_)
    np.testing.assert_allclose(
        plain.cluster_centers_, other.cluster_centers_, rtol=1e-5 if dtype == np.float32 else 1e-12
    )


def test_weights_are_repeated_rows() -> None:
    points, _ = blobs()
    weight = np.random.default_rng(0).integers(0, 4, 300)
    of_row = np.repeat(np.arange(300), weight)
    weighted = ISODATA(5, random_state=0).fit(points, sample_weight=weight)
    repeated = ISODATA(5, random_state=0).fit(points[of_row])
    np.testing.assert_array_equal(weighted.labels_[of_row], repeated.labels_)
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-12)
    assert weighted.inertia_ == pytest.approx(repeated.inertia_)
    assert weighted.score(points, sample_weight=weight) == pytest.approx(-weighted.inertia_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float32_stays_float32(dtype: Any) -> None:
    points, _ = blobs(dtype=dtype)
    model = ISODATA(4, random_state=0).fit(points)
    assert model.cluster_centers_.dtype == model.transform(points).dtype == dtype
    assert model.labels_.dtype == model.predict(points).dtype == np.int32
    assert ISODATA(2).fit(np.arange(12).reshape(6, 2)).cluster_centers_.dtype == np.float64


def test_read_only_and_strided_tables() -> None:
    points, _ = blobs()
    expected = ISODATA(4, random_state=0).fit(points).labels_
    wide = np.zeros((600, 10))
    wide[::2, ::2] = points
    frozen = points.copy()
    frozen.flags.writeable = False
    for same in (wide[::2, ::2], np.asfortranarray(points), frozen, points.tolist()):
        model = ISODATA(4, random_state=0).fit(same)
        np.testing.assert_array_equal(model.labels_, expected)
        np.testing.assert_array_equal(model.predict(same), expected)


def test_columns_of_a_data_frame() -> None:
    points, _ = blobs()
    frame = pd.DataFrame(points, columns=list("abcde"), index=np.arange(300) + 7)
    model = ISODATA(4, random_state=0).fit(frame)
    assert model.feature_names_in_.tolist() == list("abcde")
    np.testing.assert_array_equal(model.predict(frame), model.labels_)
    with pytest.raises(ValueError, match="must be in the same order"):
        model.predict(frame[list("bacde")])
    with pytest.raises(ValueError, match="unseen at fit time:\n- z"):
        model.predict(frame.rename(columns={"a": "z"}))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(points)
    plain = model.set_output(transform="pandas").transform(frame)
    assert (
        plain.columns.tolist()
        == model.get_feature_names_out().tolist()
        == [f"isodata{k}" for k in range(model.n_clusters_)]
    )
    assert plain.index.tolist() == frame.index.tolist()
    assert isinstance(clone(model).fit_transform(frame), pd.DataFrame)
    assert isinstance(model.set_output(transform="default").transform(frame), np.ndarray)
    assert not hasattr(model.fit(points), "feature_names_in_")
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(ISODATA(4).fit_transform(frame), pd.DataFrame)
    with pytest.raises(TypeError, match="Feature names are only supported"):
        ISODATA().fit(frame.rename(columns={"a": 1}))


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.coo_array])
def test_sparse_tables_are_refused(container: Any) -> None:
    table = container(np.eye(5))
    with pytest.raises(TypeError, match=r"Sparse data was passed for X, but ISODATA requires dense data"):
        ISODATA().fit(table)
    with pytest.raises(TypeError, match="Sparse data was passed"):
        ISODATA(2).fit(np.eye(5)).predict(table)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (np.array([[1.0], [np.nan]]), ValueError, r"Input X contains NaN \(first in row 1\)"),
        (np.array([[np.inf], [1.0]]), ValueError, r"Input X contains infinity \(first in row 0\)"),
        (np.array([[1.0 + 1j]]), ValueError, "Complex data not supported"),
        (np.zeros(3), ValueError, "Expected 2D array, got 1D array"),
        (np.zeros((0, 2)), ValueError, r"0 sample\(s\)"),
        (np.zeros((2, 0)), ValueError, r"0 feature\(s\)"),
        (np.array([["a"]]), ValueError, "could not convert"),
    ],
)
def test_tables_that_cannot_be_clustered(points: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ISODATA().fit(points)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"n_clusters": 0}, ValueError, "n_clusters must be >= 1"),
        ({"n_init": 0}, ValueError, "n_init must be an integer >= 1, got 0"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({"tol": -1.0}, ValueError, "tol must be finite and >= 0"),
        ({"random_state": "lucky"}, TypeError, "random_state must be None, an integer"),
        ({"min_size": 2}, ValueError, "min_size belongs to variant='str'"),
        ({"variant": "fuzzy"}, ValueError, "variant must be one of"),
    ],
)
def test_parameters_are_checked_when_fitting(given: dict[str, Any], error: type[Exception], message: str) -> None:
    model = ISODATA(**given)  # the constructor only keeps them
    with pytest.raises(error, match=message):
        model.fit(np.eye(3))


def test_unknown_parameters_and_early_use() -> None:
    with pytest.raises(ValueError, match=r"Invalid parameter 'k' for estimator ISODATA\(\)"):
        ISODATA().set_params(k=3)
    assert repr(ISODATA(3, max_std=1.5).set_params(tol=0.1)) == "ISODATA(max_std=1.5, n_clusters=3, tol=0.1)"
    for method in ("predict", "transform", "score"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(ISODATA(), method)(np.eye(3))
    with pytest.raises(ValueError, match="X has 2 features, but ISODATA is expecting 3 features as input"):
        ISODATA(2).fit(np.eye(3)).predict(np.eye(2))
    with pytest.raises(ValueError, match=r"expected \(3,\), got \(2,\)"):
        ISODATA(2).fit(np.eye(3), sample_weight=np.ones(2))
    with pytest.raises(ValueError, match="transform must be one of 'default', 'pandas', 'polars'"):
        ISODATA().set_output(transform="excel")  # type: ignore[arg-type]


def test_seeds() -> None:
    points = np.random.default_rng(0).standard_normal((200, 3))
    one, two = (ISODATA(6, random_state=5).fit(points) for _ in range(2))
    np.testing.assert_array_equal(one.labels_, two.labels_)
    states = (np.random.RandomState(0), np.random.default_rng(0), None, np.int64(3))
    assert all(ISODATA(6, random_state=state).fit(points).n_clusters_ >= 1 for state in states)
    shared = np.random.RandomState(0)
    first, second = (ISODATA(6, random_state=shared, max_iter=1).fit(points) for _ in range(2))
    assert (first.labels_ != second.labels_).any()
    jobs = [ISODATA(6, random_state=5, n_jobs=jobs).fit(points).labels_ for jobs in (1, 2, -1)]
    assert (jobs[0] == jobs[1]).all() and (jobs[0] == jobs[2]).all()  # noqa: PT018


def test_several_starts_keep_the_best_run() -> None:
    points, truth = make_blobs(400, 2, centers=6, cluster_std=0.5, random_state=7)
    settings: dict[str, Any] = {
        "n_clusters": 6,
        "max_std": 2.0,
        "min_distance": 0.5,
        "max_iter": 12,
        "split_criterion": "max",
    }
    single = [ISODATA(random_state=seed, init="random", **settings).fit(points) for seed in range(12)]
    assert len({model.n_clusters_ for model in single}) > 1 or len({round(model.inertia_) for model in single}) > 1
    several = ISODATA(random_state=0, init="random", n_init=12, **settings).fit(points)
    assert adjusted_rand_score(truth, several.labels_) >= max(0.9, adjusted_rand_score(truth, single[0].labels_))
    given = ISODATA(init=points[:3], n_init=5, **settings).fit(points)
    np.testing.assert_array_equal(given.labels_, ISODATA(init=points[:3], **settings).fit(points).labels_)
    equal = ISODATA(n_init=3).fit(np.ones((9, 2)))
    assert equal.n_clusters_ == 1


def test_runs_are_compared_by_the_information_criterion() -> None:
    points, _ = blobs()
    weight = np.random.default_rng(0).random(300) + 0.5
    result = isodata(points, n_clusters=5, sample_weight=weight)
    squared = np.square(points - result.centers[result.labels]).sum(1)
    sizes, total, k = np.bincount(result.labels, weights=weight), weight.sum(), len(result.centers)
    variance = (squared @ weight) / (5 * total)
    # -2 log likelihood + parameters * log n, halved, without constants: k - 1 shares, 5 k means, one variance
    expected = total * 5 / 2 * np.log(variance) - (sizes * np.log(sizes / total)).sum() + k * 6 / 2 * np.log(total)
    assert ISODATA()._information_cost(points, weight, result) == pytest.approx(expected)


def test_several_starts_do_not_simply_prefer_more_clusters() -> None:
    points = np.random.default_rng(0).standard_normal((500, 3))
    model = ISODATA(2, max_std=0.9, min_distance=0.2, n_init=10, random_state=0)
    counts = {clone(model).set_params(n_init=1, random_state=s).fit(points).n_clusters_ for s in range(10)}
    assert model.fit(points).n_clusters_ <= min(counts) + 1


def test_several_starts_do_not_prefer_to_discard() -> None:
    points, _ = blobs()
    noisy = ISODATA(6, n_init=8, random_state=0, min_samples=60, discard_as_noise=True, max_std=1.2).fit(points)
    counts = [
        (ISODATA(6, random_state=s, min_samples=60, discard_as_noise=True, max_std=1.2).fit(points).labels_ < 0).sum()
        for s in range(8)
    ]
    assert (noisy.labels_ < 0).sum() <= np.median(counts)


def test_noise_is_minus_one_and_left_out_of_the_inertia() -> None:
    points = np.array([[0.0], [1.0], [2.0], [100.0]])
    model = ISODATA(2, init=[[1.0], [100.0]], min_samples=2, discard_as_noise=True, max_std=9.0).fit(points)
    assert model.labels_.tolist() == [0, 0, 0, -1]
    assert model.inertia_ == 2.0
    assert model.predict(points).tolist() == [0, 0, 0, 0]


def test_cosine_geometry_predicts_by_direction() -> None:
    points, _ = blobs()
    model = ISODATA(4, geometry="cosine", random_state=0).fit(points)
    np.testing.assert_array_equal(model.predict(points * 7), model.labels_)
    np.testing.assert_array_equal(model.transform(points).argmin(1), model.labels_)
    assert model.transform(points).max() <= 2


def test_it_agrees_with_kmeans_where_both_are_sure() -> None:
    points, _ = blobs(2000, dtype=np.float32)
    ours = ISODATA(4, random_state=0, n_init=5, max_std=1.2, min_distance=2.0).fit(points)
    theirs = KMeans(4, n_init=5, random_state=0).fit(points)
    assert adjusted_rand_score(ours.labels_, theirs.labels_) > 0.995
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_distances_do_not_cancel(offset: float) -> None:
    points, _ = blobs()
    points += offset
    model = ISODATA(init=points[:4], max_std=99.0, max_merges=0).fit(points)
    rows = np.concatenate([points, model.cluster_centers_, model.cluster_centers_ + 1e-4])
    exact = np.linalg.norm(rows[:, None] - model.cluster_centers_, axis=2)
    np.testing.assert_allclose(model.transform(rows), exact, rtol=1e-9)


WITHOUT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("sklearn", "scipy", "pandas"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
import numpy as np
from rlsft.ranking.isodata import ISODATA
from rlsft.ranking.estimator_inputs import NotFittedError
points = np.random.default_rng(0).standard_normal((50, 3))
model = ISODATA(3, random_state=0)
try:
    model.predict(points)
except NotFittedError as error:
    assert isinstance(error, (ValueError, AttributeError)), error
labels = model.fit_predict(points)
assert (model.predict(points) == labels).all()
assert model.fit_transform(points).shape == (50, model.n_clusters_)
assert model.score(points) < 0 and repr(model) and model.get_params()
assert not [name for name in sys.modules if name.startswith("sklearn")]
print("works")
"""


def test_it_works_without_scikit_learn() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "works"


def test_the_ranking_package_loads_it_when_it_is_used() -> None:
    code = (
        "import sys, rlsft.ranking; print('rlsft.ranking.isodata' in sys.modules); rlsft.ranking.ISODATA; print('ok')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "ok"], done.stderr[-2000:]
    import rlsft.ranking

    with pytest.raises(AttributeError, match="no attribute 'Isodata'"):
        rlsft.ranking.Isodata  # noqa: B018
