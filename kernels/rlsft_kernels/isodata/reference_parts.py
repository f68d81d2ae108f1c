"""What both variants of the isodata reference are made of: tie rules, seeded starts, statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rlsft_kernels.isodata.settings import IsodataSettings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Step = tuple[int, int, int, int]  # splits, merges, drops, clusters left
TIE = 1e-10
SAME_DIRECTION = 1e-28  # squared distance (or variance) of unit rows that differ by rounding alone
_MASK = (1 << 64) - 1


class SplitMix64:
    """The generator of Steele, Lea and Flood 2014; the C++ core draws the same numbers."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def uniform(self) -> float:
        """The next number in [0, 1), a multiple of 2**-53."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        return int(self.uniform() * bound)


def rounding_floor(settings: IsodataSettings) -> float:
    """Equal rows have no variance to the last bit; rows scaled to unit length only up to rounding."""
    return SAME_DIRECTION if settings.geometry == "cosine" else 0.0


def exceeds(value: float, threshold: float) -> bool:
    return value > threshold * (1 + TIE)


def falls_below(value: float, threshold: float) -> bool:
    return value < threshold * (1 - TIE)


def lowest_nearest(distances: Floats) -> int:
    """Index of the smallest value; values within TIE of it count as equal and the lowest index wins."""
    return int(np.argmax(distances <= distances.min() * (1 + TIE)))


def unit_rows(rows: Floats, floor: float = 0.0) -> Floats:
    squared = (rows * rows).sum(axis=1, keepdims=True)
    return rows * np.divide(1.0, np.sqrt(squared), out=np.zeros_like(squared), where=squared > floor)


def squared_distances(rows: Floats, centers: Floats) -> Floats:  # [n, k]
    return np.stack([((rows - center) ** 2).sum(axis=1) for center in centers], axis=1)


def nearest(rows: Floats, centers: Floats, floor: float) -> Ints:  # [n]
    distances = squared_distances(rows, centers)
    return np.argmax(distances <= distances.min(axis=1, keepdims=True) * (1 + TIE) + floor, axis=1)


def mean_row(rows: Floats, weight: Floats | None = None) -> Floats:
    """The mean, summed around one row so that equal rows have exactly that mean and no variance."""
    if weight is None:
        return rows[0] + (rows - rows[0]).sum(axis=0) / len(rows)
    rows, weight = rows[weight > 0], weight[weight > 0]
    return rows[0] + (weight[:, None] * (rows - rows[0])).sum(axis=0) / weight.sum()


def variances(rows: Floats, floor: float, weight: Floats | None = None) -> Floats:  # [d]
    squared = (rows - mean_row(rows, weight)) ** 2
    variance = squared.sum(axis=0) / len(rows) if weight is None else weight @ squared / weight.sum()
    return np.where(variance <= floor, 0.0, variance)


def partition_key(labels: Ints) -> bytes:
    """The same bytes for the same partition, whatever its clusters are numbered."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    key = np.argsort(np.argsort(first))[inverse]
    return bytes(np.where(labels < 0, -1, key))


def starting_centers(
    rows: Floats, count: int, init: str, seed: int, floor: float, weight: Floats | None = None
) -> Floats:
    """At most `count` distinct rows. "k-means++": D-squared sampling (Arthur and Vassilvitskii 2007)."""
    random = SplitMix64(seed)

    def distances_to(row: int) -> Floats:
        squared = ((rows - rows[row]) ** 2).sum(axis=1)
        return np.where(squared <= floor, 0.0, squared)

    def draw(masses: Floats) -> int:
        cumulative = np.cumsum(masses)
        above = np.flatnonzero(cumulative > random.uniform() * cumulative[-1])
        return int(above[0]) if len(above) else int(np.flatnonzero(masses)[-1])

    masses = np.ones(len(rows)) if weight is None else weight
    if init == "random":
        return rows[_distinct_rows(masses, count, random, distances_to, draw, is_weighted=weight is not None)]
    chosen = [random.below(len(rows)) if weight is None else draw(masses)]
    to_chosen = distances_to(chosen[0])
    while len(chosen) < count and (masses * to_chosen).max() > 0:
        chosen.append(draw(masses * to_chosen))
        to_chosen = np.minimum(to_chosen, distances_to(chosen[-1]))
    return rows[chosen]


def _distinct_rows(
    masses: Floats,
    count: int,
    random: SplitMix64,
    distances_to: Callable[[int], Floats],
    draw: Callable[[Floats], int],
    *,
    is_weighted: bool,
) -> list[int]:
    """Rows drawn without replacement, less those equal to an earlier one."""
    left, order, chosen = masses.copy(), np.arange(len(masses)), list[int]()
    for i in range(int((masses > 0).sum())):
        if is_weighted:
            row = draw(left)
            left[row] = 0
        else:
            j = i + random.below(len(order) - i)
            order[i], order[j] = order[j], order[i]
            row = int(order[i])
        if all(distances_to(c)[row] > 0 for c in chosen):
            chosen.append(row)
        if len(chosen) == count:
            break
    return chosen


def medoids_of(
    rows: Floats,
    labels: Ints,
    centers: Floats,
    scores: Floats | None,
    floor: float,
    eps: float,
    weight: Floats | None = None,
) -> Ints:
    """Per cluster the member with weight nearest the centre; tie: the higher score, then the lower index.

    The centres were rounded to numbers of precision `eps`. That moves a distance by up to eps/2 |centre|, so members
    which differ by no more than that, such as the two of a pair, are equally near.
    """
    if weight is not None:
        labels = np.where(weight > 0, labels, -1)
    medoids = []
    for k, center in enumerate(centers):
        members = np.flatnonzero(labels == k)
        distances = ((rows[members] - center) ** 2).sum(axis=1)
        nearest = distances.min()
        reach = nearest * (1 + TIE) + floor + 4 * eps * np.sqrt(nearest) * np.sqrt((center**2).sum())
        tied = members[distances <= reach]
        medoids.append(tied[0] if scores is None else tied[np.argmax(scores[tied])])
    return np.array(medoids, dtype=np.int64)
