"""Pairs of a round: a demonstration above each of the policy's own answers, preferences beside them, their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlsft.data import encode_demonstration, encode_pair, encode_prompt, end_token_ids
from rlsft.errors import DataError


def demonstration_pairs(samples: Sequence[Mapping[str, Any]], round_number: int) -> list[dict[str, Any]]:
    """`prompt`, `chosen` (the demonstration), `rejected` (an answer of the policy), `round`; equal texts are left out.

    Args:
        samples: rows of samples.jsonl.
        round_number: which round drew them, from 1.
    """
    return [
        {"prompt": row["prompt"], "chosen": row["demonstration"], "rejected": response, "round": round_number}
        for row in samples
        for response in row["responses"]
        if response.strip() != str(row["demonstration"]).strip()
    ]


def joint_rows(
    demonstrations: Sequence[dict[str, Any]],
    preferences: Sequence[dict[str, Any]],
    *,
    demonstration_weight: float,
    preference_weight: float,
) -> list[dict[str, Any]]:
    """Both kinds of pairs with weights whose mean loss is `w_D * mean over D + w_P * mean over P` (AIHF, 2406.06874).

    A pair's weight is `w * (all pairs) / (pairs of its kind)`: the mean over any batch estimates the joint loss without
    bias, and the mean over all of them is it, however they are cut into batches.
    """
    kinds = [(demonstrations, demonstration_weight)]
    if preferences and preference_weight > 0:
        kinds.append((preferences, preference_weight))
    total = sum(len(rows) for rows, _ in kinds)
    if len(kinds) == 1 and demonstration_weight == 1:
        return list(demonstrations)
    return [{**row, "weight": weight * total / len(rows)} for rows, weight in kinds for row in rows]


def encode_pairs(rows: Sequence[Mapping[str, Any]], tokenizer: Any, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows as `RewardTrainer` takes them encoded; an answer without words is its end token alone.

    Args:
        rows: `prompt`, `chosen`, `rejected` and perhaps `weight`.
        tokenizer: of the reward model.
        options: `max_length`, `system_prompt` and `truncate_prompt` of `rlsft.data.encode_pair`.

    Raises:
        DataError: a row that cannot be encoded, by its number.
    """
    encoded = []
    for number, row in enumerate(rows, start=1):
        try:
            encoded.append(_encoded(row, tokenizer, options))
        except DataError as error:
            raise DataError(f"pair {number}: {error}") from None
    return encoded


def _encoded(row: Mapping[str, Any], tokenizer: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(row["rejected"], str) or row["rejected"].strip():
        return encode_pair(row, tokenizer, **options)
    chosen = encode_demonstration({"prompt": row["prompt"], "completion": row["chosen"]}, tokenizer, **options)
    end = end_token_ids(tokenizer)[:1]
    limit = options["max_length"] - len(end)
    prompt = encode_prompt(row["prompt"], tokenizer, **{**options, "max_length": limit})
    silence = {
        "chosen_input_ids": chosen["input_ids"],
        "chosen_completion_mask": chosen["completion_mask"],
        "rejected_input_ids": prompt + end,
        "rejected_completion_mask": [False] * len(prompt) + [True] * len(end),
    }
    return silence if row.get("weight") is None else silence | {"weight": float(row["weight"])}
