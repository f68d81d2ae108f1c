"""Answers to prompts, written as they come, so that a stopped run goes on where it was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsft.artifacts import append_jsonl, write_jsonl
from rlsft.data import encode_prompt
from rlsft.rollouts import Completion, RolloutEngine, SamplingParams
from rlsft.text import trim_unfinished
from rlsft.trainers.progress import meter


def sample_responses(
    engine: RolloutEngine,
    tokenizer: Any,
    examples: Sequence[Mapping[str, Any]],  # each with prompt and, if there is one, completion
    *,
    sampling: SamplingParams,
    num_samples: int,
    path: Path,
    prompts_per_call: int,
    max_prompt_length: int,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
    language: str = "en",
    keep_token_ids: bool = False,
    show_progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Draw `num_samples` answers for each example and append one row a prompt to `path`.

    Rows that `path` already holds are kept and their prompts skipped; because every prompt has its own random stream
    (`SamplingParams.prompt_offset`), the file of a resumed run equals that of a run never stopped.

    Returns:
        The rows: `prompt`, `demonstration` (or None), `responses`, `finish_reasons`, `num_tokens`, `sampling`, and
        `token_ids` where they are to be kept (text encoded anew may differ).
    """
    rows = _finished_rows(path, len(examples))
    with meter("sampling", len(examples), show=show_progress) as progress:
        progress.advance(len(rows), skipped=True)
        for start in range(len(rows), len(examples), prompts_per_call):
            chunk = examples[start : start + prompts_per_call]
            ids = [
                encode_prompt(
                    example["prompt"],
                    tokenizer,
                    max_length=max_prompt_length,
                    system_prompt=system_prompt,
                    truncate_prompt=truncate_prompt,
                )
                for example in chunk
            ]
            drawn = engine.generate(ids, dataclasses.replace(sampling, prompt_offset=start), num_samples)
            for example, completions in zip(chunk, drawn, strict=True):
                row = _row(example, completions, tokenizer, sampling, language)
                if keep_token_ids:
                    row["token_ids"] = [list(completion.token_ids) for completion in completions]
                append_jsonl(path, row)
                rows.append(row)
            progress.advance(len(chunk))
    return rows


def decode_completion(completion: Completion, tokenizer: Any, language: str) -> str:
    """The answer's text; an answer that ran into the length limit loses its unfinished last sentence."""
    text = tokenizer.decode(completion.token_ids, skip_special_tokens=True).strip()
    return trim_unfinished(text, language) if completion.finish_reason == "length" else text


def _row(
    example: Mapping[str, Any],
    completions: Sequence[Completion],
    tokenizer: Any,
    sampling: SamplingParams,
    language: str,
) -> dict[str, Any]:
    return {
        "prompt": example["prompt"],
        "demonstration": example.get("completion"),
        "responses": [decode_completion(c, tokenizer, language) for c in completions],
        "finish_reasons": [c.finish_reason for c in completions],
        "num_tokens": [len(c.token_ids) for c in completions],
        "sampling": sampling.describe(),
    }


def _finished_rows(path: Path, wanted: int) -> list[dict[str, Any]]:
    """Whole rows of an earlier start; a last line that a kill cut in two is dropped from the file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for line in lines[:wanted]:
        if not line.endswith("\n"):
            break
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    if len(rows) != len(lines):
        write_jsonl(path, rows)
    return rows
