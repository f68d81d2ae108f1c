"""Log-probabilities of held-out answers: their mean a token, and the gap of Figure 1 while a method trains."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from bench.replicate_irl.task import Rows, Task

PAIRS = 128  # of the gap's curve


@torch.no_grad()
def logprobs(policy: Any, task: Task, rows: Rows, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows] log-probability in nats of the answers in column `side`, end token included, and their tokens."""
    from rlsft.data.collators import DemonstrationCollator
    from rlsft.data.encoding import encode_demonstration
    from rlsft.models import completion_logprobs, evaluation_mode

    pairs = [{"prompt": row["prompt"], "completion": row[side]} for row in rows]
    encoded = [encode_demonstration(pair, task.tokenizer, max_length=2 * task.max_length) for pair in pairs]
    sums, counts = [], []
    with evaluation_mode(policy):
        for first in range(0, len(encoded), 64):
            batch = DemonstrationCollator(task.tokenizer.pad_token_id)(encoded[first : first + 64])
            mask = batch["completion_mask"]
            scored = completion_logprobs(policy, batch["input_ids"], batch["attention_mask"], mask)
            assert scored.logprob is not None
            sums.append(scored.logprob.sum(dim=1).double())
            counts.append(mask.sum(dim=1))
    return torch.cat(sums), torch.cat(counts)


def likelihoods(policy: Any, task: Task) -> dict[str, float]:
    """`nll`: nats a token of the right answers; `gap`: log-probability of right minus wrong answers, nats an answer."""
    chosen, counts = logprobs(policy, task, task.held_out, "chosen")
    rejected, _ = logprobs(policy, task, task.held_out, "rejected")
    return {
        "nll": -float(chosen.sum() / counts.sum()),
        "chosen": float(chosen.mean()),
        "gap": float((chosen - rejected).mean()),
        "told_apart": float((chosen > rejected).double().mean()),
    }


class GapCurve(TrainerCallback):
    """Notes the log-probabilities of held-out right and wrong answers every so many steps (the paper's Figure 1)."""

    def __init__(self, task: Task, every: int) -> None:
        self.task, self.every = task, every
        self.points: list[list[float]] = []  # step, mean log-probability of right and of wrong answers

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.note(0, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every == 0:
            self.note(state.global_step, model)

    def note(self, step: int, model: Any) -> None:
        rows = self.task.held_out[:PAIRS]
        sides = [float(logprobs(model, self.task, rows, side)[0].mean()) for side in ("chosen", "rejected")]
        self.points.append([step, *(round(value, 4) for value in sides)])
