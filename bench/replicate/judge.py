"""The judge of answers: what a person would rather reply, learned from conversations that no method was trained on.

A score is a weighted sum of three numbers: how much likelier the prompt makes the answer (`relevance.py`), its mean
log-probability a token, and the reward of a model that knows damaged replies (`fluency.py`). The weights are the
Bradley-Terry fit on pairs of people's replies and worse ones. All of it starts from SmolLM2-135M, nothing from the
sentence encoder that STR ranks with. `accuracy` is that on pairs of other conversations, by kind of pair.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.replicate.fluency import Settings, fluency
from bench.replicate.judged_pairs import KINDS, pairs
from bench.replicate.relevance import relevance

FITTED, TESTED = 600, 400  # pairs
RIDGE = 1e-2
NAME = "judge-3"  # a new one when the judge changes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """Scores answers; higher is more like what a person would reply."""

    weights: tuple[float, ...]  # of `features`
    accuracy: dict[str, float]

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> Array:
        """[n] scores."""
        scores: Array = features(prompts, answers) @ np.array(self.weights)
        return scores

    def win_rate(self, prompts: Sequence[str], answers: Sequence[str], baseline: Sequence[str]) -> float:
        """Per cent of the prompts whose answer scores above the baseline's; a tie is half a win."""
        return 100 * wins(self(prompts, answers), self(prompts, baseline))


def features(prompts: Sequence[str], answers: Sequence[str]) -> Array:
    """[n, 3]: mutual information (nats), mean log-probability a token, reward for fluency."""
    rewards = fluency()(prompts, answers)
    return np.concatenate([relevance()(prompts, answers), rewards[:, None]], axis=1)


def wins(ours: Sequence[float] | Array, theirs: Sequence[float] | Array) -> float:
    """Share of the places where ours is higher, ties counted half."""
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return float(np.mean(np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, 0.5))))


@cache
def judge() -> Judge:
    """The judge out of the cache; made first where it is not there (some ten minutes of one core).

    Raises:
        DataError: a package of the demo is missing; the message holds the line that installs it.
    """
    from rlsft.data import assets

    folder = assets.build_once(assets.cache_root() / "bench" / NAME, fit_into)
    kept = json.loads((folder / "judge.json").read_text())
    return Judge(tuple(kept["weights"]), kept["accuracy"])


def fit_into(folder: Path) -> None:
    """Fits the weights on pairs that the fluency model did not learn from, and measures the judge on others."""
    learned = difference_of_features(pairs("train", FITTED, skip=Settings().pairs))
    weights = bradley_terry(learned)
    tested = pairs("test", TESTED)
    margins = difference_of_features(tested) @ weights
    kinds = np.array([row["kind"] for row in tested])
    accuracy = {kind: wins(margins[kinds == kind], np.zeros(int((kinds == kind).sum()))) for kind in KINDS}
    (folder / "judge.json").write_text(json.dumps({"weights": weights.tolist(), "accuracy": accuracy}))


def difference_of_features(rows: list[dict[str, str]]) -> Array:
    """[n, 3] of the person's reply minus those of the worse one."""
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (features(prompts, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    return chosen - rejected


def bradley_terry(differences: Array, *, steps: int = 50) -> Array:
    """argmin_w mean log(1 + exp(-d w)) + ridge |w s|^2 / 2 by Newton's method, with s the spread of each feature."""
    spread = differences.std(axis=0)
    scaled = differences / spread
    weights = np.zeros(scaled.shape[1])
    for _ in range(steps):
        chance = 1 / (1 + np.exp(scaled @ weights))  # of being wrong
        gradient = -(scaled * chance[:, None]).mean(axis=0) + RIDGE * weights
        curvature = (scaled * (chance * (1 - chance))[:, None]).T @ scaled / len(scaled) + RIDGE * np.eye(len(weights))
        weights = weights - np.linalg.solve(curvature, gradient)
    return weights / spread


if __name__ == "__main__":
    found = judge()
    print(json.dumps({"weights": found.weights, "accuracy": found.accuracy}))
