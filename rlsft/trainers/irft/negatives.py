"""Drawn answers on disk: one file a round, appended to as answers come, so that nothing drawn is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlsft.artifacts import append_jsonl, jsonable, write_jsonl
from rlsft.models import unwrap


class NegativesFile:
    """`negatives/round_00.jsonl`: a line that says how the answers were drawn, then one line an answer.

    Args:
        path: of the file.
        header: what the answers are a function of (weights, prompts, sampling); another header in the file means
            that its answers belong to another run, and they are dropped.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]):
        self.path = path
        self.header: dict[str, Any] = jsonable(header)

    def kept(self, chunk: int, total: int) -> list[dict[str, Any]]:
        """What an earlier run left of these `total` answers; what else the file holds is dropped.

        Whole chunks of `chunk` answers count: a chunk is drawn together, and cut otherwise it would round otherwise.
        """
        found = _whole_rows(self.path)
        answers = found[1:] if found and found[0] == self.header else []
        if len(answers) < total:
            answers = answers[: len(answers) // chunk * chunk]
        write_jsonl(self.path, [self.header, *answers])
        return answers

    def begin(self) -> None:
        """Write the line that says how answers are drawn, unless the file is there."""
        if not self.path.is_file():
            write_jsonl(self.path, [self.header])

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add answers."""
        for row in rows:
            append_jsonl(self.path, row)


def file_of(output_dir: str, round_number: int, rank: int) -> Path:
    """Where a rank writes the answers of a round."""
    suffix = "" if rank == 0 else f"_rank_{rank}"
    return Path(output_dir) / "negatives" / f"round_{round_number:02d}{suffix}.jsonl"


def drop_later(output_dir: str, step: int, rank: int) -> None:
    """Take out of the files what was drawn at global step `step` or later: a resumed run draws it again."""
    folder = Path(output_dir) / "negatives"
    for path in folder.glob("round_*.jsonl") if folder.is_dir() else ():
        if path == file_of(output_dir, int(path.stem.split("_")[1]), rank):
            rows = _whole_rows(path)
            kept = [row for row in rows if row.get("step", -1) < step]
            if len(kept) != len(rows):
                write_jsonl(path, kept)


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break  # what a kill cut off, and nothing stands behind it
    return rows


@torch.no_grad()
def weights_digest(model: nn.Module) -> str:
    """A fingerprint of the trained weights: equal for equal bits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in unwrap(model).named_parameters():
        if parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
