"""What the estimator does with its input: any table to checked rows, column names, weights, seeds.

The wording follows scikit-learn where its users and its own checks expect it; scikit-learn itself is not needed.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class NotFittedError(ValueError, AttributeError):
    """The estimator was used before `fit`. Where scikit-learn is loaded, its class of this name is raised instead."""


def not_fitted_error(message: str) -> Exception:
    """scikit-learn's NotFittedError when that package is loaded, else ours."""
    if "sklearn" in sys.modules:
        from sklearn.exceptions import NotFittedError as SklearnNotFittedError

        return SklearnNotFittedError(message)
    return NotFittedError(message)


def checked_rows(X: Any, estimator: str) -> Floats:
    """X as finite float32 or float64 rows [n >= 1, d >= 1]; other numbers become float64.

    Raises:
        TypeError: sparse or of a kind that holds no numbers.
        ValueError: complex, not two-dimensional, empty, NaN or infinity.
    """
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError(
            f"Sparse data was passed for X, but {estimator} requires dense data. Use '.toarray()' to convert it."
        )
    array = np.asarray(X)
    if np.iscomplexobj(array):
        raise ValueError(f"Complex data not supported\n{array}\n")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {array.ndim}D array instead:\narray={array}.\nReshape your data either using "
            "array.reshape(-1, 1) if your data has a single feature or array.reshape(1, -1) if it contains a single "
            "sample."
        )
    for axis, what in ((0, "sample(s)"), (1, "feature(s)")):
        if array.shape[axis] == 0:
            raise ValueError(
                f"Found array with 0 {what} (shape={array.shape}) while a minimum of 1 is required by {estimator}."
            )
    _require_finite(array, estimator)
    return array


def _require_finite(array: Floats, estimator: str) -> None:
    if np.isfinite(array.min()) and np.isfinite(array.max()):
        return
    row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
    found = "NaN" if np.isnan(array).any() else "infinity"
    raise ValueError(
        f"Input X contains {found} (first in row {row}). {estimator} does not accept missing or infinite values; "
        "remove the row or impute the value."
    )


def checked_weight(sample_weight: Any, num_rows: int) -> NDArray[np.float64] | None:
    """sample_weight as float64 [n], or None. The op checks its values."""
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.ndim == 0:
        return np.full(num_rows, float(weight))
    if weight.shape != (num_rows,):
        raise ValueError(
            f"sample_weight must be 1D with one weight a sample: expected ({num_rows},), got {weight.shape}"
        )
    return weight


def column_names(X: Any) -> NDArray[np.object_] | None:
    """The columns of a data frame when all are strings.

    Raises:
        TypeError: some are strings and some are not.
    """
    if not hasattr(X, "columns"):
        return None
    names = np.asarray(list(X.columns), dtype=object)
    kinds = {isinstance(name, str) for name in names}
    if kinds == {True, False}:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your input has names of "
            "several types; convert them, for example with X.columns = X.columns.astype(str)."
        )
    return names if kinds == {True} else None


def check_columns(X: Any, num_columns: int, fitted: Any) -> None:
    """The table has the columns that `fitted` saw, in their order.

    Raises:
        ValueError: other names, another order or another number of columns.
    """
    name, seen, now = type(fitted).__name__, getattr(fitted, "feature_names_in_", None), column_names(X)
    if seen is None and now is not None:
        warnings.warn(f"X has feature names, but {name} was fitted without feature names", UserWarning, stacklevel=4)
    elif seen is not None and now is None:
        warnings.warn(
            f"X does not have valid feature names, but {name} was fitted with feature names", UserWarning, stacklevel=4
        )
    elif seen is not None and now is not None and list(seen) != list(now):
        raise ValueError(_name_mismatch(list(seen), list(now)))
    if num_columns != fitted.n_features_in_:
        raise ValueError(
            f"X has {num_columns} features, but {name} is expecting {fitted.n_features_in_} features as input."
        )


def _name_mismatch(seen: list[str], now: list[str]) -> str:
    lines = ["The feature names should match those that were passed during fit."]
    new, missing = sorted(set(now) - set(seen)), sorted(set(seen) - set(now))
    if new:
        lines += ["Feature names unseen at fit time:", *(f"- {name}" for name in new)]
    if missing:
        lines += ["Feature names seen at fit time, yet now missing:", *(f"- {name}" for name in missing)]
    if not new and not missing:
        lines.append("Feature names must be in the same order as they were in fit.")
    return "\n".join(lines) + "\n"


def seed_of(random_state: Any) -> int:
    """A seed for the op from None (fresh), an integer, a RandomState or a Generator."""
    if random_state is None:
        return int(np.random.default_rng().integers(2**63))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, bool) or not hasattr(random_state, "__index__"):
        raise TypeError(f"random_state must be None, an integer, a RandomState or a Generator, got {random_state!r}")
    return int(random_state.__index__())


def threads_of(n_jobs: int | None) -> int | None:
    """`n_jobs` as the op's `threads`: -1 is every core, -2 all but one; None leaves it to torch."""
    if n_jobs is None or n_jobs > 0:
        return n_jobs
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0; use None, a number of threads, or -1 for every core")
    return max(1, (os.cpu_count() or 1) + 1 + n_jobs)


def order_by_content(rows: Floats) -> NDArray[np.int64]:
    """An order of the rows that depends on their values only; equal rows lie together, as they were.

    Draws along it do not depend on how the rows came, and a repeated row is drawn like one of that weight.
    """
    bits: type[np.unsignedinteger[Any]] = np.uint32 if rows.dtype == np.float32 else np.uint64
    odd = np.random.default_rng(0).integers(2**63, size=(rows.shape[1],), dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(rows), np.uint64)
    for begin in range(0, len(rows), 4096):
        part = np.ascontiguousarray(rows[begin : begin + 4096]) + rows.dtype.type(0)  # -0.0 becomes 0.0
        mixed = part.view(bits).astype(np.uint64)
        mixed ^= mixed >> np.uint64(29)
        hashes[begin : begin + len(part)] = (mixed * odd).sum(axis=1, dtype=np.uint64)
    hashes ^= hashes >> np.uint64(32)
    return np.argsort(hashes * odd[0], kind="stable")
