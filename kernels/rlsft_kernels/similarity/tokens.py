"""Token ids of responses: a list of lists, or flat ids with offsets; both become flat int64 arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._backend import native_status
from rlsft_kernels._groups import Array, Groups, contiguous_numpy, group_rows, offsets_array, require_array

Tokens = Sequence[Sequence[int]] | torch.Tensor | np.ndarray


@dataclass(frozen=True)
class TokenGroups:
    """Token ids of every response, one after the other, and the groups the responses form."""

    ids: npt.NDArray[np.int64]  # [number of tokens]
    offsets: npt.NDArray[np.int64]  # [responses + 1]
    groups: Groups

    def responses(self, rows: slice) -> list[list[int]]:
        return [self.ids[self.offsets[r] : self.offsets[r + 1]].tolist() for r in range(rows.start, rows.stop)]


def token_groups(tokens: Tokens, token_offsets: Array | None, groups: Array | None) -> TokenGroups:
    """Checked token ids.

    Raises:
        TypeError: tokens are neither a list of lists of ints nor a one-dimensional int64 or int32 array.
        ValueError: flat tokens without `token_offsets`, a list with them, or offsets that do not fit.
    """
    ids, offsets = read_texts("tokens", tokens, "token_offsets", token_offsets)
    return TokenGroups(ids, offsets, group_rows("tokens", (len(offsets) - 1,), groups, "a list of responses"))


def read_texts(
    name: str, tokens: Tokens, offsets_name: str, offsets: Array | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Checked flat ids and the offsets that cut them into responses; the names are those of the arguments."""
    if isinstance(tokens, (torch.Tensor, np.ndarray)):
        if offsets is None:
            raise ValueError(f"{offsets_name} is needed to cut flat {name} into responses; or pass a list of lists")
        require_array(name, tokens, ("int64", "int32"))
        if tokens.ndim != 1:
            raise ValueError(f"{name} must be flat [number of tokens] or a list of lists, got {tokens.ndim} axes")
        ids = contiguous_numpy(tokens).astype(np.int64, copy=False)
        return ids, offsets_array(offsets_name, offsets, len(ids), name if name == "tokens" else f"tokens of {name}")
    if offsets is not None:
        raise ValueError(f"{offsets_name} goes with flat {name} (a tensor or an array), got a list of responses")
    return flatten(tokens, name)


def flatten(
    tokens: Sequence[Sequence[int]], name: str = "tokens"
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Flat ids and offsets of a list of responses; plain lists of ints take 3 ns a token where _C is built."""
    if native_status()[0]:
        from rlsft_kernels import _C

        flat = _C.flatten_token_lists(tokens)
        if flat is not None:
            return flat
    parts = [_row_of_ids(f"{name}[{row}]", response) for row, response in enumerate(tokens)]
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    return (np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)), offsets


def _row_of_ids(name: str, response: Sequence[int]) -> npt.NDArray[np.int64]:
    part = np.asarray(response)
    is_ids = part.size == 0 or (part.dtype.kind in "iu" and part.max() <= np.iinfo(np.int64).max)
    if isinstance(response, str) or part.ndim != 1 or not is_ids:
        raise TypeError(
            f"{name} must be a list of token ids, got {type(response).__name__} "
            f"{str(response)[:40]!r}; encode the text first (ids are int64)"
        )
    return part.astype(np.int64)
