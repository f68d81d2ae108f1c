"""The settings of one isodata call, checked: names, ranges, and which variant each belongs to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Variant = Literal["ball_hall", "str"]
Init = Literal["k-means++", "random"]
Geometry = Literal["euclidean", "cosine"]
Dispersion = Literal["distance", "squared"]
SplitCriterion = Literal["rms", "max"]
VarianceKind = Literal["trace", "max_component_variance", "max_component_std"]

VARIANCE_KINDS = ("trace", "max_component_variance", "max_component_std")
AUTO_STD_FACTOR = 0.6
AUTO_DISTANCE_FACTOR = 0.75
DEFAULT_CLUSTERS_OF_ONE_SET = 8

_BALL_HALL_DEFAULTS: dict[str, Any] = {
    "min_samples": 1,
    "max_std": "auto",
    "split_criterion": None,
    "min_distance": "auto",
    "max_merges": 2,
    "split_factor": 0.5,
    "dispersion": "distance",
    "discard_as_noise": False,
    "stop_early": True,
    "tol": 0.0,
}
_STR_DEFAULTS: dict[str, Any] = {
    "min_size": 0,
    "max_size": None,
    "var_threshold": 0.05,
    "variance_kind": "trace",
}


@dataclass(frozen=True, kw_only=True)
class IsodataSettings:
    """One call's settings. `None` in `max_std` and `min_distance` is "auto"; in `max_size`, off."""

    variant: Variant
    n_clusters: int | None  # K; None: ceil(sqrt(m)) for groups, 8 for one set
    n_init_clusters: int | None  # N_c; None: K
    init: Init | None  # None: starting centres are given
    max_iter: int  # I
    geometry: Geometry
    seed: int
    one_set: bool  # one set of points, not a batch of groups: decides the default K
    min_samples: float  # theta_N; an integer unless rows have weights
    max_std: float | None  # theta_S
    split_criterion: SplitCriterion
    min_distance: float | None  # theta_C
    max_merges: int  # L
    split_factor: float  # gamma
    dispersion: Dispersion
    discard_as_noise: bool
    stop_early: bool
    tol: float
    min_size: int
    max_size: int | None
    var_threshold: float
    variance_kind: VarianceKind

    def clusters_wanted(self, num_rows: int) -> int:
        """K for a group of `num_rows` (>= 1) rows: never more than there are rows."""
        if self.n_clusters is not None:
            wanted = self.n_clusters
        elif self.one_set:
            wanted = DEFAULT_CLUSTERS_OF_ONE_SET
        else:
            wanted = math.isqrt(num_rows - 1) + 1  # ceil(sqrt(m)) without rounding
        return min(wanted, num_rows)

    def starting_clusters(self, num_rows: int) -> int:
        """N_c for a group of `num_rows` (>= 1) rows."""
        return min(self.n_init_clusters or self.clusters_wanted(num_rows), num_rows)


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _integer(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer >= {minimum}, got {value!r}")
    if value.__index__() < minimum:
        raise ValueError(f"{name} must be >= {minimum}, got {value}")


def _number(name: str, value: object, hint: str = "") -> float:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number{hint}, got {value!r}")
    number = float(value.__float__())
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be finite and >= 0{hint}, got {value!r}")
    return number


def _threshold(name: str, value: object) -> float | None:
    return None if isinstance(value, str) and value == "auto" else _number(name, value, ' or "auto"')


def _refuse_foreign_arguments(variant: str, given: dict[str, Any]) -> None:
    """An argument of the other variant would be ignored without a word; say so instead."""
    other, defaults = ("str", _STR_DEFAULTS) if variant == "ball_hall" else ("ball_hall", _BALL_HALL_DEFAULTS)
    for name, default in defaults.items():
        if given[name] != default:
            raise ValueError(
                f"{name} belongs to variant={other!r} and has no effect on variant={variant!r}; "
                f"got {name}={given[name]!r}: remove it or change the variant"
            )


def _min_samples(value: object, *, is_weighted: bool) -> float:
    """Rows count as integers, weights as any number."""
    if is_weighted:
        return _number("min_samples", value)
    _integer("min_samples", value, 1)
    return float(value)  # type: ignore[arg-type]


def make_settings(
    *, init_is_array: bool, one_set: bool, is_weighted: bool = False, tol: float = 0.0, **given: Any
) -> IsodataSettings:
    """Check the arguments of `isodata` that do not depend on the points. Raises TypeError or ValueError."""
    given["tol"] = tol
    _choice("variant", given["variant"], ("ball_hall", "str"))
    if is_weighted and given["variant"] == "str":
        raise ValueError("sample_weight is for variant='ball_hall': STR's bounds count rows; remove it")
    _refuse_foreign_arguments(given["variant"], given)
    if not init_is_array:
        _choice("init", given["init"], ("k-means++", "random"))
    elif given["n_init_clusters"] is not None:
        raise ValueError("n_init_clusters is the length of init when init is an array; remove it")
    for name, minimum in (("n_clusters", 1), ("n_init_clusters", 1), ("max_size", 1)):
        if given[name] is not None:
            _integer(name, given[name], minimum)
    for name, minimum in (("max_merges", 0), ("max_iter", 1), ("min_size", 0), ("seed", 0)):
        _integer(name, given[name], minimum)
    if given["seed"] >= 2**64:
        raise ValueError(f"seed must be below 2**64, got {given['seed']}")
    max_std = _threshold("max_std", given["max_std"])
    split_criterion: SplitCriterion = given["split_criterion"] or ("rms" if max_std is None else "max")
    _choice("split_criterion", split_criterion, ("rms", "max"))
    split_factor = _number("split_factor", given["split_factor"])
    if not 0 < split_factor <= 1:
        raise ValueError(f"split_factor must be in (0, 1], got {split_factor}")
    geometry: Geometry = given["geometry"] or ("cosine" if given["variant"] == "str" else "euclidean")
    _choice("geometry", geometry, ("euclidean", "cosine"))
    _choice("dispersion", given["dispersion"], ("distance", "squared"))
    _choice("variance_kind", given["variance_kind"], VARIANCE_KINDS)
    return IsodataSettings(
        variant=given["variant"],
        n_clusters=given["n_clusters"],
        n_init_clusters=given["n_init_clusters"],
        init=None if init_is_array else given["init"],
        max_iter=int(given["max_iter"]),
        geometry=geometry,
        seed=int(given["seed"]),
        one_set=one_set,
        min_samples=_min_samples(given["min_samples"], is_weighted=is_weighted),
        max_std=max_std,
        split_criterion=split_criterion,
        min_distance=_threshold("min_distance", given["min_distance"]),
        max_merges=int(given["max_merges"]),
        split_factor=split_factor,
        dispersion=given["dispersion"],
        discard_as_noise=bool(given["discard_as_noise"]),
        stop_early=bool(given["stop_early"]),
        tol=_number("tol", tol),
        min_size=int(given["min_size"]),
        max_size=given["max_size"],
        var_threshold=_number("var_threshold", given["var_threshold"]),
        variance_kind=given["variance_kind"],
    )
