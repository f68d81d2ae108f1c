"""The rounds of a run: when one begins, what is drawn and scored then, and the micro-batches of each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlsft.trainers.irft.advice import Advisor
from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.irft.maker import PairMaker
from rlsft.trainers.irft.pairs import Demonstrations, Pair
from rlsft.trainers.irft.schedule import IRFTSchedule, micro_batches
from rlsft.trainers.irft.state import RoundState
from rlsft.trainers.running import RunningStats


class Rounds:
    """What an optimizer step learns from. Everything it remembers is `state`, which a checkpoint holds.

    Args:
        args: settings.
        data: the demonstrations.
        held_out: held-out demonstrations by name.
        maker: draws and scores.
        advisor: looks at what is drawn.
        stats: takes what the draws look like.
    """

    def __init__(
        self,
        args: IRFTConfig,
        data: Demonstrations,
        held_out: Mapping[str, Demonstrations],
        maker: PairMaker,
        advisor: Advisor,
        stats: RunningStats,
    ) -> None:
        self.args = args
        self.data = data
        self.held_out = held_out
        self.schedule = IRFTSchedule.of(args, len(data))
        self.maker = maker
        self.advisor = advisor
        self.stats = stats
        self.state = RoundState()

    def begin_if_due(self, step: int) -> bool:
        """Begin a new round when global step `step` is its first; whether it was."""
        if not self._is_due(step):
            return False
        self._begin(self.state.number + 1, step)
        return True

    def _is_due(self, step: int) -> bool:
        state, refresh = self.state, self.schedule.refresh
        if state.number < 0:
            return True
        if refresh.has_fixed_rounds:
            return step >= state.first_step + self.schedule.steps(state.number)
        return refresh.is_due(state.signals)

    def batches(self, step: int) -> tuple[list[dict[str, Tensor]], int]:
        """This rank's micro-batches of a step, and the pairs of the step over all ranks."""
        rows = self.schedule.rows(self.state.number, step - self.state.first_step)
        if not self.schedule.refresh.draws_ahead:
            self._draw_for_step(rows, step)
        parts = self._parts(rows)[self.maker.rank :: self.maker.num_ranks]
        # an empty micro-batch becomes a pair that does not count: every rank must take every step
        batches = [self._collated(part or rows[:1], counted=bool(part)) for part in parts]
        return batches, len(rows)

    def _collated(self, rows: Sequence[int], *, counted: bool) -> dict[str, Tensor]:
        pairs = [self.state.pairs[row] for row in rows]
        return self.maker.collate(pairs, self.data, counted=counted)

    def _parts(self, rows: Sequence[int]) -> list[list[int]]:
        """Micro-batches of a step over all ranks, `gradient_accumulation_steps` for each."""
        lengths = [self.data.length(self.state.pairs[row]) for row in rows]
        return micro_batches(rows, lengths, self.args.gradient_accumulation_steps * self.maker.num_ranks)

    def _begin(self, number: int, step: int) -> None:
        """Draw and score the pairs of round `number`."""
        old, keep = self.state, self.args.replay_rounds
        past = [old.pairs[: old.own], *old.past][:keep] if number > 0 else []
        own = self._own_pairs(number)
        replayed = [pair.unscored() for pairs in past for pair in pairs]
        self.state = RoundState(number, step, own + replayed, past, len(own))
        if self.schedule.refresh.draws_ahead:
            first_pass = self.schedule.first_pass(number)
            parts = [part for rows in first_pass for part in self._parts(rows)]
            self.maker.score(self.data, self.state.pairs, parts)
        self.state.held_out = {name: self._held_out(data) for name, data in self.held_out.items()}

    def _own_pairs(self, number: int) -> list[Pair]:
        if self.args.refresh == "none":
            return self.data.given_pairs()
        prompts, samples = self.schedule.refresh.prompts(number), self.args.samples_per_prompt
        if not self.schedule.refresh.draws_ahead:
            return [Pair(prompt=row) for row in prompts for _ in range(samples)]
        seed = self.schedule.draw_seed(number)
        pairs = self.maker.draw(self.data, prompts, seed=seed, num_samples=samples, round_number=number)
        self._watch(pairs)
        return pairs

    def _draw_for_step(self, rows: Sequence[int], step: int) -> None:
        """Answers for the pairs of a step that have none yet, or for all of them, and their reference scores."""
        pairs = self.state.pairs
        redraws = self.schedule.refresh.redraws(step)
        due = [row for row in rows if redraws or pairs[row].generated is None]
        if not due:
            return
        prompts, seed = [pairs[row].prompt for row in due], self.schedule.draw_seed(self.state.number, step)
        drawn = self.maker.draw(self.data, prompts, seed=seed, num_samples=1, round_number=self.state.number, step=step)
        for row, pair in zip(due, drawn, strict=True):
            pairs[row] = pair
        self._watch(drawn)
        scored = list(pairs)
        self.maker.score(self.data, scored, self._parts(rows))
        for row in due:  # the others keep the reference of the moment they were drawn
            pairs[row] = scored[row]

    def _held_out(self, data: Demonstrations) -> list[Pair]:
        """One answer to each of the first held-out prompts; the same random numbers in every round."""
        count = min(self.args.eval_prompts, len(data))
        if count == 0:
            return []
        if self.args.refresh == "none":
            pairs = data.given_pairs()[:count]
        else:
            pairs = self.maker.draw(data, range(count), seed=self.schedule.draw_seed(-1), num_samples=1)
        size = self.args.per_device_eval_batch_size
        self.maker.score(data, pairs, [part.tolist() for part in torch.arange(count).split(size)])
        return pairs

    def _watch(self, pairs: Sequence[Pair]) -> None:
        """What the answers look like; every rank knows all of them, so the first one counts them."""
        self.advisor.after_drawing(pairs)
        weight = 1.0 if self.maker.rank == 0 else 0.0
        seen: dict[str, list[int] | list[bool]] = {
            "mean_length": [len(pair.answer()) for pair in pairs],
            "clipped_ratio": [not pair.ended for pair in pairs],
            "equal_demonstration": [pair.answer() == self.data.real(pair.prompt) for pair in pairs],
        }
        for name, values in seen.items():
            total = torch.tensor(weight * sum(values), dtype=torch.float64, device=self.args.device)
            self.stats.add(f"completions/{name}", total, weight * len(pairs))
