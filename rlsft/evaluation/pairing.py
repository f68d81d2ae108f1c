"""Answers of two models lined up by prompt, so that differences are differences on the same input."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import DataError
from rlsft.evaluation.records import Generation


@dataclass(frozen=True)
class PairedAnswers:
    """Both sides ordered by prompt; every prompt has as many answers on one side as on the other."""

    prompts: tuple[str, ...]
    groups: tuple[Hashable, ...]  # one a prompt: what is resampled together
    before: tuple[Generation, ...]
    after: tuple[Generation, ...]

    @property
    def before_label(self) -> str:
        return self.before[0].model

    @property
    def after_label(self) -> str:
        return self.after[0].model

    def units(self) -> list[Hashable]:
        """The group of every answer, in the order of `before` and `after`."""
        group_of = dict(zip(self.prompts, self.groups, strict=True))
        return [group_of[row.prompt] for row in self.before]

    def per_prompt(self, measure: Callable[[Generation], float | None], side: str) -> NDArray[np.float64]:
        """Mean of `measure` over the answers to each prompt, [prompts]; NaN where no answer has a value."""
        values: dict[str, list[float]] = {prompt: [] for prompt in self.prompts}
        for row in self.before if side == "before" else self.after:
            value = measure(row)
            if value is not None and np.isfinite(value):
                values[row.prompt].append(float(value))
        return np.array([np.mean(found) if found else np.nan for found in values.values()], dtype=np.float64)


def pair_by_prompt(before: Sequence[Generation], after: Sequence[Generation]) -> PairedAnswers:
    """Line up two sets of answers.

    Raises:
        DataError: a set is empty or mixes models, prompts are missing on one side, or a prompt has different
        numbers
            of answers.
    """
    for name, rows in (("before", before), ("after", after)):
        labels = sorted({row.model for row in rows})
        if len(labels) != 1:
            raise DataError(
                f"{name} must hold the answers of one model, got {', '.join(labels) or 'no answers'}; "
                "read_generations(path, model=...) picks one"
            )
    sides = _by_prompt(before), _by_prompt(after)
    _check_same_prompts(*sides)
    prompts = tuple(sides[0])
    firsts = [sides[0][prompt][0] for prompt in prompts]
    return PairedAnswers(
        prompts=prompts,
        groups=tuple(row.prompt if row.group is None else ("group", row.group) for row in firsts),
        before=tuple(row for prompt in prompts for row in sides[0][prompt]),
        after=tuple(row for prompt in prompts for row in sides[1][prompt]),
    )


def _by_prompt(rows: Sequence[Generation]) -> dict[str, list[Generation]]:
    found: dict[str, list[Generation]] = {}
    for row in rows:
        found.setdefault(row.prompt, []).append(row)
    return found


def _check_same_prompts(before: dict[str, list[Generation]], after: dict[str, list[Generation]]) -> None:
    for name, other, missing in (
        ("after", "before", before.keys() - after.keys()),
        ("before", "after", after.keys() - before.keys()),
    ):
        if missing:
            raise DataError(
                "before and after must answer the same prompts: "
                f"{len(missing)} prompts of {other} are missing in {name}, such as {min(missing)[-80:]!r}"
            )
    for prompt, rows in before.items():
        if len(rows) != len(after[prompt]):
            raise DataError(
                f"before and after must hold as many answers a prompt: {len(rows)} and {len(after[prompt])} "
                f"for {prompt[-80:]!r}"
            )
