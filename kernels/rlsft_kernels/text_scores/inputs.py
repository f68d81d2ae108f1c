"""What the scores of pairs take: hypotheses and their references, as flat ids with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._groups import Array, offsets_array
from rlsft_kernels.similarity.tokens import Tokens, read_texts

Int64s: TypeAlias = npt.NDArray[np.int64]
References: TypeAlias = Tokens | Sequence[Sequence[Sequence[int]]]


@dataclass(frozen=True)
class ScoredTexts:
    """Hypotheses and, for each, the references that `groups` cuts out."""

    hypothesis_ids: Int64s
    hypothesis_offsets: Int64s  # [n + 1]
    reference_ids: Int64s
    reference_offsets: Int64s  # [references + 1]
    groups: Int64s  # [n + 1]

    def __len__(self) -> int:
        return len(self.hypothesis_offsets) - 1

    @property
    def arrays(self) -> tuple[Int64s, Int64s, Int64s, Int64s, Int64s]:
        return (
            self.hypothesis_ids,
            self.hypothesis_offsets,
            self.reference_ids,
            self.reference_offsets,
            self.groups,
        )

    def pairs(self) -> list[tuple[list[int], list[list[int]]]]:
        """(hypothesis, its references) as lists."""
        hypotheses = cut(self.hypothesis_ids, self.hypothesis_offsets)
        references = cut(self.reference_ids, self.reference_offsets)
        spans = pairwise(self.groups.tolist())
        return [(text, references[begin:end]) for text, (begin, end) in zip(hypotheses, spans, strict=True)]


def cut(ids: Int64s, offsets: Int64s) -> list[list[int]]:
    """The texts as lists."""
    return [ids[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]


def scored_texts(
    hypotheses: Tokens,
    references: References,
    hypothesis_offsets: Array | None,
    reference_offsets: Array | None,
    reference_groups: Array | None,
) -> ScoredTexts:
    """Checked texts.

    Raises:
        TypeError: texts that are no token ids. ValueError: offsets that do not fit, or numbers that do not pair up.
    """
    ids, offsets = read_texts("hypotheses", hypotheses, "hypothesis_offsets", hypothesis_offsets)
    flat: Any = references
    if _is_nested(references):
        if reference_groups is not None:
            raise ValueError("reference_groups goes with a flat list of references, got a list of lists of them")
        reference_groups = np.cumsum([0, *(len(group) for group in references)], dtype=np.int64)
        flat = [reference for group in references for reference in group]
    reference_ids, bounds = read_texts("references", flat, "reference_offsets", reference_offsets)
    count, given = len(offsets) - 1, len(bounds) - 1
    if reference_groups is None:
        if given != count:
            raise ValueError(
                f"references must have one for each of the {count} hypotheses, got {given}; "
                "for several each, pass reference_groups or a list of lists of references"
            )
        return ScoredTexts(ids, offsets, reference_ids, bounds, np.arange(count + 1, dtype=np.int64))
    groups = offsets_array("reference_groups", reference_groups, given, "references")
    if len(groups) != count + 1:
        raise ValueError(
            f"references must have a group for each of the {count} hypotheses, got {len(groups) - 1} groups"
        )
    return ScoredTexts(ids, offsets, reference_ids, bounds, groups)


def _is_nested(references: References) -> bool:
    """Whether each hypothesis has a list of references: the first token met is then itself a sequence."""
    if isinstance(references, (torch.Tensor, np.ndarray)):
        return False
    first = next((group for group in references if len(group)), None)
    return first is not None and isinstance(first[0], (Sequence, np.ndarray, torch.Tensor))
