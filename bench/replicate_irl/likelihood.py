"""Log-probabilities of held-out answers: their mean a token, and the gap of Figure 1 while a method trains."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from bench.replicate_irl.task import Rows, Task

PAIRS = 128  # of the gap's curve
BATCH = 64


class Answers:
    """The answers of one column of the rows, encoded once."""

    def __init__(self, task: Task, rows: Rows, side: str) -> None:
        from rlsft.data.collators import DemonstrationCollator
        from rlsft.data.encoding import encode_demonstration

        pairs = [{"prompt": row["prompt"], "completion": row[side]} for row in rows]
        encoded = [encode_demonstration(pair, task.tokenizer, max_length=2 * task.max_length) for pair in pairs]
        collate = DemonstrationCollator(task.tokenizer.pad_token_id)
        self.batches = [collate(encoded[first : first + BATCH]) for first in range(0, len(encoded), BATCH)]

    @torch.no_grad()
    def logprobs(self, policy: Any) -> torch.Tensor:
        """[rows] log-probability in nats, end token included."""
        from rlsft.models import completion_logprobs, evaluation_mode

        sums = []
        with evaluation_mode(policy):
            for batch in self.batches:
                scored = completion_logprobs(
                    policy, batch["input_ids"], batch["attention_mask"], batch["completion_mask"]
                )
                assert scored.logprob is not None
                sums.append(scored.logprob.sum(dim=1).double())
        return torch.cat(sums)

    @property
    def tokens(self) -> int:
        return sum(int(batch["completion_mask"].sum()) for batch in self.batches)


def likelihoods(policy: Any, task: Task) -> dict[str, float]:
    """`nll`: nats a token of the right answers; `gap`: log-probability of right minus wrong answers, nats an answer."""
    right, wrong = (Answers(task, task.held_out, side) for side in ("chosen", "rejected"))
    chosen, rejected = right.logprobs(policy), wrong.logprobs(policy)
    return {
        "nll": -float(chosen.sum()) / right.tokens,
        "chosen": float(chosen.mean()),
        "gap": float((chosen - rejected).mean()),
        "told_apart": float((chosen > rejected).double().mean()),
    }


class GapCurve(TrainerCallback):
    """Notes the log-probabilities of held-out right and wrong answers every so many steps (the paper's Figure 1)."""

    def __init__(self, task: Task, every: int) -> None:
        self.every = every
        self.sides = [Answers(task, task.held_out[:PAIRS], side) for side in ("chosen", "rejected")]
        self.points: list[list[float]] = []  # step, mean log-probability of right and of wrong answers

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.note(0, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every == 0:
            self.note(state.global_step, model)

    def note(self, step: int, model: Any) -> None:
        found = [float(side.logprobs(model).mean()) for side in self.sides]
        self.points.append([step, *(round(value, 4) for value in found)])
