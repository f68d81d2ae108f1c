"""Whole datasets to token ids, with an account of what was cut and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rlsft.data.encoding import encode, encode_pair, encode_prompt
from rlsft.data.formats import demonstration_of
from rlsft.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["demonstration", "pair", "prompt"]
MAX_LISTED_PROBLEMS = 5


@dataclass
class EncodingReport:
    """What happened to the rows of a dataset on their way to token ids."""

    num_rows: int = 0
    num_skipped: int = 0
    num_truncated_prompts: int = 0
    num_truncated_completions: int = 0  # these lost their end token too
    problems: list[str] = field(default_factory=list)  # the first few reasons for skipping, with their rows

    def lines(self) -> list[str]:
        """The report in words, one finding a line; empty when all went in whole."""
        found = []
        if self.num_truncated_completions:
            found.append(
                f"{self.num_truncated_completions} of {self.num_rows} completions cut at max_length: they lost their "
                f"end token and teach nothing about stopping"
            )
        if self.num_truncated_prompts:
            found.append(f"{self.num_truncated_prompts} of {self.num_rows} prompts lost their oldest tokens")
        if self.num_skipped:
            found.append(f"{self.num_skipped} of {self.num_rows} rows skipped, the first: {self.problems[0]}")
        return found


def encode_dataset(
    examples: Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    kind: Kind = "demonstration",
    max_length: int,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
    skip_bad_rows: bool = False,
    keep_columns: Iterable[str] = (),
) -> tuple[Dataset, EncodingReport]:
    """Encode every row of `examples`.

    Args:
        examples: rows of one format.
        tokenizer: see `encode_demonstration`.
        kind: "demonstration" (`encode_demonstration`), "pair" (`encode_pair`) or "prompt" (`encode_prompt`).
        max_length: most tokens a sequence.
        system_prompt: see `encode_demonstration`.
        truncate_prompt: see `encode_demonstration`.
        skip_bad_rows: leave out rows that cannot be encoded and count them; False = the first one is an error.
        keep_columns: columns of `examples` to carry along beside the ids.

    Returns:
        The encoded rows and the report.

    Raises:
        DataError: a bad row, by its number; or no row is left.
    """
    from datasets import Dataset

    one_row = _encoder(kind, tokenizer, max_length, system_prompt, truncate_prompt)
    kept, report, encoded = tuple(keep_columns), EncodingReport(), []
    for number, example in enumerate(examples, start=1):
        report.num_rows += 1
        try:
            ids = one_row(example, report)
        except DataError as error:
            if not skip_bad_rows:
                raise DataError(f"row {number}: {error}") from error
            report.num_skipped += 1
            if len(report.problems) < MAX_LISTED_PROBLEMS:
                report.problems.append(f"row {number}: {error}")
            continue
        encoded.append({**ids, **{name: example[name] for name in kept}})
    if not encoded:
        reason = report.problems[0] if report.problems else "the data has no rows"
        raise DataError(f"no row could be encoded ({report.num_skipped} skipped): {reason}")
    return Dataset.from_list(encoded), report


RowEncoder = Callable[[Mapping[str, Any], EncodingReport], dict[str, Any]]


def _encoder(
    kind: Kind, tokenizer: Any, max_length: int, system_prompt: str | None, truncate_prompt: bool
) -> RowEncoder:
    options = {"max_length": max_length, "system_prompt": system_prompt, "truncate_prompt": truncate_prompt}

    def demonstration(example: Mapping[str, Any], report: EncodingReport) -> dict[str, Any]:
        prompt, completion = demonstration_of(example)
        encoded = encode(prompt, completion, tokenizer, **options)  # type: ignore[arg-type]
        report.num_truncated_prompts += encoded.dropped_prompt_tokens > 0
        report.num_truncated_completions += encoded.dropped_completion_tokens > 0
        return {"input_ids": encoded.input_ids, "completion_mask": encoded.completion_mask}

    def pair(example: Mapping[str, Any], report: EncodingReport) -> dict[str, Any]:
        return encode_pair(example, tokenizer, **options)  # type: ignore[arg-type]

    def prompt(example: Mapping[str, Any], report: EncodingReport) -> dict[str, Any]:
        return {"input_ids": encode_prompt(example["prompt"], tokenizer, **options)}  # type: ignore[arg-type]

    return {"demonstration": demonstration, "pair": pair, "prompt": prompt}[kind]
