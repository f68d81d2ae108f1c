"""What a model answered to a held-out prompt, as a typed record and as JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rlsft.artifacts import read_jsonl, write_jsonl
from rlsft.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One answer of one model. What was not measured is None."""

    prompt: str  # as one string, see rlsft.data.prompt_text
    completion: str
    model: str  # label in tables: "SFT", "STR", …
    references: tuple[str, ...] = ()
    sample: int = 0  # which of several answers to the same prompt
    group: str | None = None  # what must be resampled together, such as the conversation
    length: int | None = None  # tokens of the completion, the end token included
    ended: bool | None = None  # whether the model ended the answer itself
    reward: float | None = None
    kl: float | None = None  # log-ratio to the reference model, summed over the completion, in nats
    kpi: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A mapping of plain JSON types."""
        return asdict(self) | {"references": list(self.references)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, where: str = "row") -> Generation:
        """The record that `to_json` wrote; `where` names the row in errors.

        Raises:
            DataError: a needed key is missing or has the wrong type; unknown keys are left out.
        """
        for key in ("prompt", "completion", "model"):
            if not isinstance(row.get(key), str):
                raise DataError(f"{where}: {key!r} must be a string, got {type(row.get(key)).__name__}")
        references = row.get("references") or ()
        if isinstance(references, str):
            references = (references,)
        if not all(isinstance(reference, str) for reference in references):
            raise DataError(f"{where}: 'references' must be a list of strings, got {references!r}")
        known = {field.name for field in fields(cls)}
        return cls(**{k: v for k, v in row.items() if k in known} | {"references": tuple(references)})


def write_generations(path: str | os.PathLike[str], generations: Iterable[Generation]) -> Path:
    """Write one record a line, atomically."""
    return write_jsonl(path, (generation.to_json() for generation in generations))


def read_generations(path: str | os.PathLike[str], *, model: str | None = None) -> list[Generation]:
    """Read records, all or those of one `model`; a broken line is named by its number."""
    rows = [
        Generation.from_json(row, where=f"{path}, record {number}")
        for number, row in enumerate(read_jsonl(path), start=1)
    ]
    return [row for row in rows if model is None or row.model == model]
