"""How much likelier an answer is after this prompt than after a greeting, to a language model that no method trained.

`log p(answer | prompt) - log p(answer | "Hi!")`, pointwise mutual information: what fits anywhere gains nothing by it.
Without any training it tells a person's reply to a prompt from a reply to something else in about four of five pairs,
where a reward model of eight layers trained on 4,000 such pairs stayed at chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
GREETING = "Hi!"
LONGEST_PROMPT, LONGEST_ANSWER = 48, 48  # tokens
BATCH = 64


@dataclass(frozen=True)
class Relevance:
    """SmolLM2-135M, scoring."""

    model: Any
    tokenizer: Any

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        """[n, 2]: the mutual information in nats, and the mean log-probability of a token after the prompt."""
        texts = [text.strip() for text in answers]
        after_prompt, counts = self.logprobs(prompts, texts)
        after_greeting, _ = self.logprobs([GREETING] * len(texts), texts)
        return np.stack([after_prompt - after_greeting, after_prompt / counts], axis=1)

    def logprobs(self, prompts: Sequence[str], texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[n] log p(text, end | prompt), and how many tokens that are."""
        rows = [self._encoded(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        order = sorted(range(len(rows)), key=lambda row: -sum(map(len, rows[row])))
        sums = np.zeros(len(rows))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            sums[part] = self._scored([rows[row] for row in part])
        return sums, np.array([len(answer) for _, answer in rows], dtype=np.float64)

    def _encoded(self, prompt: str, text: str) -> tuple[list[int], list[int]]:
        said = self.tokenizer(prompt).input_ids[-LONGEST_PROMPT:]
        before, after = (self.tokenizer(part).input_ids for part in TURN.split("{}"))
        answer = self.tokenizer(text).input_ids[:LONGEST_ANSWER]
        return [*before, *said, *after], [*answer, self.tokenizer.eos_token_id]

    @torch.no_grad()
    def _scored(self, rows: list[tuple[list[int], list[int]]]) -> NDArray[np.float64]:
        from rlsft.models import completion_logprobs

        longest = max(len(said) + len(answer) for said, answer in rows)
        ids = torch.full((len(rows), longest), self.tokenizer.eos_token_id)
        attended, answered = (torch.zeros(len(rows), longest, dtype=torch.bool) for _ in range(2))
        for i, (said, answer) in enumerate(rows):
            end = len(said) + len(answer)
            ids[i, :end] = torch.tensor(said + answer)
            attended[i, :end] = True
            answered[i, len(said) : end] = True
        scored = completion_logprobs(self.model, ids, attended, answered)
        assert scored.logprob is not None
        return scored.logprob.double().sum(dim=1).numpy()


@cache
def relevance() -> Relevance:
    """The model out of its package, loaded once.

    Raises:
        DataError: the package is missing; the message holds the line that installs it.
    """
    from rlsft.data import assets
    from rlsft.models import load_causal_lm, load_tokenizer

    folder = assets.smollm2("bfloat16")
    model = load_causal_lm(folder, dtype="bfloat16", attn_implementation="eager").eval()
    return Relevance(model, load_tokenizer(folder))
