"""A round's pairs: answers drawn from the policy as it is, both sides scored once under the reference."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlsft.rollouts import Completion, RolloutEngine
from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.irft.negatives import NegativesFile, file_of, weights_digest
from rlsft.trainers.irft.pairs import Demonstrations, Pair, collate
from rlsft.trainers.irft.reference import Reference

BATCHES_A_CHUNK = 4  # decoding batches between two writes to the disk


class PairMaker:
    """Draws and scores; the loss only ever reads what this class wrote.

    Every rank draws its share of the prompts and scores its share of the pairs, and then knows all of them.

    Args:
        args: settings.
        policy: draws, through `engine`.
        reference: scores.
        engine: draws answers.
        tokenizer: the policy's.
        autocast: a context manager for forward passes under mixed precision.
        gather: concatenates lists over all ranks.
        rank: which share is ours.
        num_ranks: how many shares there are.
    """

    def __init__(
        self,
        args: IRFTConfig,
        policy: nn.Module,
        reference: Reference,
        engine: RolloutEngine,
        tokenizer: Any,
        *,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        gather: Callable[[list[Any]], list[Any]] = lambda rows: rows,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.args = args
        self.policy = policy
        self.reference = reference
        self.engine = engine
        self.tokenizer = tokenizer
        self.autocast = autocast
        self.gather = gather
        self.rank = rank
        self.num_ranks = num_ranks
        self.seconds = {"generation": 0.0, "scoring": 0.0}

    # ---- drawing ------------------------------------------------------------------------------------------

    def draw(
        self,
        data: Demonstrations,
        prompts: Sequence[int],
        *,
        seed: int,
        num_samples: int,
        round_number: int | None = None,
        step: int | None = None,
    ) -> list[Pair]:
        """`num_samples` answers to each of `prompts` (rows of `data`), side by side.

        A prompt's answers are a function of weights, seed and place: not of the number of ranks, of chunks, or of what
        a killed run had drawn already.

        Args:
            data: the demonstrations.
            prompts: rows to answer.
            seed: of this draw.
            num_samples: answers a prompt.
            round_number: whose file keeps the answers; None = they are not written.
            step: of a schedule that draws step by step; such answers are written, never read back.
        """
        begun = time.monotonic()
        share = np.array_split(np.arange(len(prompts)), self.num_ranks)[self.rank].tolist()
        file = self._file(round_number, step, prompts, share, seed, num_samples)
        size = max(1, BATCHES_A_CHUNK * self.args.generation_batch_size // num_samples)
        rows: list[dict[str, Any]] = []
        if file is not None and step is None:
            rows = file.kept(size * num_samples, len(share) * num_samples)
        for start in range(len(rows) // num_samples, len(share), size):
            drawn = self._rows(data, prompts, share[start : start + size], seed, num_samples, step)
            if file is not None:
                file.append(drawn)
            rows += drawn
        self.seconds["generation"] += time.monotonic() - begun
        return [_pair(row) for row in self.gather(rows)]

    def _rows(
        self, data: Demonstrations, prompts: Sequence[int], places: Sequence[int], seed: int, num_samples: int,
        step: int | None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        ids = [data.drawn_from(prompts[place]) for place in places]
        sampling = self.args.sampling(seed, places[0])
        with self.autocast():
            groups = self.engine.generate(ids, sampling, num_samples)
        when = {} if step is None else {"step": step}
        return [
            {"prompt_row": prompts[place], **self._record(prompt_ids, completion), **when}
            for place, prompt_ids, group in zip(places, ids, groups, strict=True)
            for completion in group
        ]

    def _record(self, prompt_ids: list[int], completion: Completion) -> dict[str, Any]:
        known = completion.logprobs is not None
        return {
            "prompt": self.tokenizer.decode(prompt_ids),
            "completion": self.tokenizer.decode(completion.token_ids, skip_special_tokens=True),
            "token_ids": completion.token_ids,
            "finish_reason": completion.finish_reason,
            "logprob": sum(completion.logprobs or ()) if known else None,
        }

    def _file(
        self, round_number: int | None, step: int | None, prompts: Sequence[int], share: Sequence[int], seed: int,
        num_samples: int,
    ) -> NegativesFile | None:  # fmt: skip
        if round_number is None:
            return None
        header: dict[str, Any] = {
            "round": round_number,
            "sampling": self.args.sampling(seed).describe(),
            "template": self.args.generation_template or "as in training",
            "end_token": "kept where it was drawn; none is added to an answer that was cut off by length",
        }
        if step is None:
            header |= {"policy": weights_digest(self.policy), "samples_per_prompt": num_samples}
            header |= {"prompt_rows": [prompts[place] for place in share], "first_place": share[0] if share else 0}
            header["generation_batch_size"] = self.args.generation_batch_size
        file = NegativesFile(file_of(str(self.args.output_dir), round_number, self.rank), header)
        file.begin()
        return file

    # ---- scoring ------------------------------------------------------------------------------------------

    def score(self, data: Demonstrations, pairs: list[Pair], parts: Sequence[Sequence[int]]) -> None:
        """Write the reference log-probabilities of both sides into `pairs` (in place), in the given micro-batches.

        The training step computes the same rows in the same shape: its first log-ratios are exactly 0.

        Args:
            data: the demonstrations.
            pairs: of the round.
            parts: micro-batches of rows of `pairs` over all ranks; rank r scores each `num_ranks`-th of them.
        """
        begun = time.monotonic()
        found: list[tuple[int, float, float]] = []
        for part in parts[self.rank :: self.num_ranks]:
            if part:
                sums = self._reference_sums(data, [pairs[row] for row in part])
                found += zip(part, sums[: len(part)], sums[len(part) :], strict=True)
        for row, real, generated in self.gather(found):
            pairs[row] = self._scored(pairs[row], real, generated)
        self.seconds["scoring"] += time.monotonic() - begun

    def _reference_sums(self, data: Demonstrations, pairs: list[Pair]) -> list[float]:
        batch = self.to_device(self.collate(pairs, data))
        with self.autocast():
            sums: list[float] = self.reference.logprobs(
                batch, temperature=self.args.sampling().scoring_temperature
            ).tolist()
        return sums

    def _scored(self, pair: Pair, real: float, generated: float) -> Pair:
        pair = replace(pair, reference_real=real, reference_generated=generated)
        # a fresh answer was drawn by the reference itself, whose score is exact where the sampler's is rounded
        if not self.reference.is_initial and pair.generator_logprob == pair.generator_logprob:
            return replace(pair, generator_logprob=generated)
        return pair

    def collate(self, pairs: Sequence[Pair], data: Demonstrations, *, counted: bool = True) -> dict[str, Tensor]:
        """The pairs as tensors, see `pairs.collate`."""
        is_double = next(self.policy.parameters()).dtype == torch.float64
        dtype = torch.float64 if is_double else torch.float32
        return collate(pairs, data, self.tokenizer.pad_token_id, counted=counted, dtype=dtype)

    def to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch where the policy is."""
        device = next(self.policy.parameters()).device
        return {name: tensor.to(device) for name, tensor in batch.items()}


def _pair(row: dict[str, Any]) -> Pair:
    logprob = row["logprob"]
    return Pair(
        prompt=row["prompt_row"],
        generated=row["token_ids"],
        ended=row["finish_reason"] == "stop",
        generator_logprob=float("nan") if logprob is None else logprob,
    )
