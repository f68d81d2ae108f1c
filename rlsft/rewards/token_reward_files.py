"""Token rewards of a data set as files: one JSON line an answer beside the manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsft.artifacts import write_json, write_jsonl
from rlsft.rewards.implicit import ImplicitReward, sequence_rewards
from rlsft.rewards.manifest import MANIFEST

ROWS = "token_rewards.jsonl"


def export_token_rewards(
    reward: ImplicitReward,
    rows: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    *,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write `token_rewards.jsonl` and, last, `token_reward.json`, which `ImplicitReward.from_pretrained` reads.

    A line holds `prompt`, `completion`, `tokens` (text of each), `token_ids`, `token_rewards` and `reward`, their
    sum.

    Args:
        reward: built by `ImplicitReward.from_checkpoints`, so that the manifest can name its folders.
        rows: `prompt` and `completion`, as `as_demonstrations` gives them.
        folder: where to write.
        on_batch: progress, see `token_rewards`.

    Returns:
        The manifest as written: settings, `rows`, `tokens`, and the mean rewards an answer and a token.
    """
    manifest = reward.manifest().to_json()  # refused before an hour of scoring, not after it
    encoded = reward.encode([row["prompt"] for row in rows], [row["completion"] for row in rows])
    rewards = reward.rewards_of_rows(encoded, on_batch)
    sums = sequence_rewards(rewards)
    ids = [
        [token for token, is_scored in zip(row["input_ids"], row["completion_mask"], strict=True) if is_scored]
        for row in encoded
    ]
    write_jsonl(
        Path(folder) / ROWS,
        (
            {
                "prompt": row["prompt"],
                "completion": row["completion"],
                "tokens": [reward.tokenizer.decode([token]) for token in tokens],
                "token_ids": tokens,
                "token_rewards": values,
                "reward": total,
            }
            for row, tokens, values, total in zip(rows, ids, rewards, sums, strict=True)
        ),
    )
    count = sum(map(len, ids))
    manifest |= {
        "rows": len(rows),
        "tokens": count,
        "mean_reward": sums.mean() if len(rows) else None,
        "mean_token_reward": sums.sum() / count if count else None,
    }
    write_json(Path(folder) / MANIFEST, manifest)
    return manifest
