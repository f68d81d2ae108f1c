"""The prompts of a data set as rows for PPO, and completions as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsft.artifacts import atomic_path
from rlsft.data.formats import prompt_text, split_messages
from rlsft.errors import DataError


class PromptRows:
    """Rows with a `prompt`, other columns kept for the reward; `messages` are cut before their last answer.

    Args:
        dataset: a `datasets.Dataset` or a list of dicts.
        name: the argument that holds it, for messages.

    Raises:
        DataError: no rows, or no column to take prompts from.
    """

    def __init__(self, dataset: Any, name: str):
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise DataError(f"{name} must be a datasets.Dataset or a list of rows, got {type(dataset).__name__}")
        if len(dataset) == 0:
            raise DataError(f"{name} has no rows; PPO needs at least one prompt")
        columns = list(dataset[0])
        if not {"prompt", "messages"} & set(columns):
            raise DataError(
                f"{name} needs a column 'prompt' (or 'messages'); it has {', '.join(map(repr, columns))}. "
                "Rename one with column_map."
            )
        self.dataset = dataset
        self.name = name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.dataset[index])
        if row.get("prompt") is None:
            try:
                row["prompt"], row["completion"] = split_messages(row.pop("messages", None))
            except DataError as error:
                raise DataError(f"{self.name}, row {index}: {error}") from None
        return row

    def take(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The given rows."""
        return [self[index] for index in indices]


def eval_rows(dataset: Any) -> Any:
    """`PromptRows` of an eval_dataset, or of each of several by name; None stays None."""
    if dataset is None or isinstance(dataset, PromptRows):
        return dataset
    if isinstance(dataset, dict):
        return {name: PromptRows(rows, f"eval_dataset[{name!r}]") for name, rows in dataset.items()}
    return PromptRows(dataset, "eval_dataset")


def write_completions(path: Path, step: int, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write answers as a parquet table in TRL's layout (`step, prompt, completion, …`), atomically."""
    import pyarrow
    import pyarrow.parquet as parquet

    shown = dict(columns)
    shown["prompt"] = [prompt_text(prompt) for prompt in columns["prompt"]]
    table = pyarrow.table({"step": [step] * len(shown["prompt"]), **shown})
    with atomic_path(path) as partial:
        parquet.write_table(table, partial)
    return path
