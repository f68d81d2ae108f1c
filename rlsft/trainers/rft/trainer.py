"""RFT as one chain (arXiv 2405.17888, algorithm 1): SFT, rounds of samples, reward and policy, one run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlsft.artifacts import read_jsonl
from rlsft.rewards.split import split_by_prompt
from rlsft.rollouts import SamplingParams
from rlsft.trainers.chain.evaluation import comparison_of
from rlsft.trainers.chain.rows import chosen, distinct_prompts
from rlsft.trainers.chain.stages import Stage
from rlsft.trainers.chain.trainer import ChainTrainer, Scorer
from rlsft.trainers.rft.config import RFTConfig
from rlsft.trainers.rft.evaluation import rounds_of
from rlsft.trainers.rft.models import RunModels
from rlsft.trainers.rft.monitors import Clock, round_row, write_row
from rlsft.trainers.rft.policy_step import Round, improve_policy
from rlsft.trainers.rft.reward_step import learn_reward
from rlsft.trainers.rft.rows import preference_rows, prompts_of_round
from rlsft.trainers.rft.scores import scorer_of
from rlsft.trainers.rft.stages import FIELDS, PARTS, TITLES, part_of, round_name
from rlsft.trainers.run_dir import fingerprint


@dataclass(frozen=True)
class RFTResult:
    """What a finished run gives back: its folder, the table SFT against RFT, one row of monitors a round."""

    output_dir: Path
    comparison: Any  # rlsft.evaluation.Comparison
    rounds: list[dict[str, Any]]


class RFTTrainer(ChainTrainer[RFTConfig, RFTResult]):
    """Fine-tune a causal LM from demonstrations with a reward learned from them (arXiv 2405.17888, algorithm 1).

    After SFT, `args.rounds` times: the policy answers prompts; a reward model learns to score their demonstrations
    above these answers; the policy is improved on that reward, `max E[r] - beta KL(pi || reference)`.

    Args:
        model: folder of a causal LM.
        args: `RFTConfig`.
        train_dataset: demonstrations, `prompt` + `completion` (a `datasets.Dataset` or a list of dicts).
        eval_dataset: held-out demonstrations for the final table; None = a tenth of the training prompts.
        processing_class: tokenizer; None = that of the model's folder.
        preference_dataset: `prompt`, `chosen`, `rejected` rows for `args.preference_weight`; None = those of
            `args.preference_data`.
        callbacks: further `transformers.TrainerCallback`s for every training stage.

    Every stage leaves its result in `args.output_dir`; a run that was stopped goes on from the last finished step when
    it is started again with the same settings, and refuses settings that contradict what is there. More `rounds` later
    go on from those that are finished (`redo="evaluation"` makes the table again).
    """

    method = "RFT"

    def __init__(
        self,
        model: str | Path,
        args: RFTConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        preference_dataset: Any = None,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(model, args, train_dataset, eval_dataset, processing_class, callbacks=callbacks)
        self.preferences = preference_rows(preference_dataset, args.preference_data, args.preference_weight)
        self.models = RunModels(self.sft_model(), args)
        # once for the whole run: a prompt that measures the reward is never learned from, in any round
        self._reward_rows, self._held_out_rows = split_by_prompt(
            distinct_prompts(self.train_rows), args.reward_eval_fraction, seed=args.seed
        )

    def stages(self) -> list[Stage]:
        """SFT; samples, reward and policy of each round; evaluation."""
        rounds = [stage for number in range(1, self.args.rounds + 1) for stage in self._stages_of(number)]
        return [self.sft_stage(), *rounds, self.evaluation_stage()]

    def _stages_of(self, number: int) -> list[Stage]:
        preferred = {"preference_rows": fingerprint({"rows": self.preferences})} if self.preferences else {}
        makers: dict[str, Any] = {"samples": self._samples, "reward": self._reward, "policy": self._policy}
        return [
            Stage(
                f"{round_name(number)}/{part}", TITLES[part], FIELDS[part], partial(makers[part], number=number),
                preferred if part == "reward" else {},
            )
            for part in PARTS
        ]  # fmt: skip

    def after(self, stage: Stage) -> None:
        """The round's row in metrics.jsonl and run.json, once its policy is there."""
        number, part = part_of(stage.name)
        if part != "policy":
            return
        done = [self.run.done(f"{round_name(number)}/{name}") for name in PARTS]
        row = round_row(number, done[1], done[2], done)
        write_row(self.args.metrics_file, row)
        self.run.record(rounds={round_name(number): row})

    # ---- stages ----------------------------------------------------------------------------------------------------
    def _samples(self, folder: Path, number: int) -> dict[str, Any]:
        clock = Clock()
        train, held_out = self.prompts_of(number)
        policy = self.current_policy(number)
        found = []
        with clock.timed("generation"):
            for name, rows in (("samples.jsonl", train), ("held_out.jsonl", held_out)):
                sampling = self.sampling(number, held_out=name == "held_out.jsonl")
                found += self.draw_samples(policy, rows, folder / name, sampling, keep_token_ids=True)
        tokens = sum(sum(row["num_tokens"]) for row in found)
        return {"num_prompts": len(found), "num_tokens": tokens, "seconds": clock.rounded()}

    def _reward(self, folder: Path, number: int) -> dict[str, Any]:
        return learn_reward(self, folder, number)

    def _policy(self, folder: Path, number: int) -> dict[str, Any]:
        samples, held_out = self.samples_of(number)
        of_reward = self.run.stage_dir(f"{round_name(number)}/reward")
        scores, held_out_scores = (read_jsonl(of_reward / f"{name}scores.jsonl") for name in ("", "held_out_"))
        return improve_policy(self, Round(number, samples, held_out, scores, held_out_scores), folder)

    # ---- the evaluation --------------------------------------------------------------------------------------------
    def compared_policies(self) -> tuple[Any, Any]:
        """The SFT policy and that of the last round."""
        return self.models.policy(), self.models.policy(self.policy_folder(self.args.rounds))

    def scorer(self) -> Scorer:
        """The reward of the last round, for the final table."""
        return scorer_of(self.models.reward(self.reward_folder(self.args.rounds)), self.tokenizer, self.args)

    def publish(self, folder: Path) -> Path:
        """Write policy and reward of the last round as plain folders; returns the policy's."""
        number = self.args.rounds
        self.models.export_policy(self.policy_folder(number), folder / "model", self.tokenizer)
        self.models.export_reward(self.reward_folder(number), self.run.path / "reward_model", self.tokenizer)
        return folder / "model"

    def result(self) -> RFTResult:
        """The table and the monitors of the finished run.

        Raises:
            RunError: the evaluation stage has not finished.
        """
        folder = self.run.path
        return RFTResult(folder, comparison_of(folder), rounds_of(folder))

    # ---- what stages share -----------------------------------------------------------------------------------------
    def policy_folder(self, number: int) -> Path | None:
        """The policy after round `number`; None = the base model, which round 0 stands for."""
        return self.run.stage_dir(f"{round_name(number)}/policy") / "model" if number else None

    def reward_folder(self, number: int) -> Path:
        """The reward of round `number`."""
        return self.run.stage_dir(f"{round_name(number)}/reward") / "model"

    def current_policy(self, number: int, *, trainable: bool = False) -> Any:
        """The policy that round `number` starts from."""
        return self.models.policy(self.policy_folder(number - 1), trainable=trainable)

    def reference_policy(self, number: int) -> Any:
        """What the KL of round `number` is measured to; None = the policy that the step starts from, as it is now."""
        if number == 1 or (self.args.reference == "previous" and not self.args.use_peft):
            return None
        folder = None if self.args.reference == "initial" else self.policy_folder(number - 1)
        return self.models.policy(folder)

    def prompts_of(self, number: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows whose prompts round `number` learns from, and the same held-out ones for every round."""
        args = self.args
        train = prompts_of_round(self._reward_rows, args.sample_prompts, number, seed=args.seed)
        count = max(1, round(len(train) * args.reward_eval_fraction / (1 - args.reward_eval_fraction)))
        return train, chosen(self._held_out_rows, count, args.seed) if self._held_out_rows else []

    def samples_of(self, number: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The answers of round `number` to its training and to its held-out prompts."""
        folder = self.run.stage_dir(f"{round_name(number)}/samples")
        held_out = folder / "held_out.jsonl"
        return read_jsonl(folder / "samples.jsonl"), read_jsonl(held_out) if held_out.exists() else []

    def sampling(self, number: int, *, held_out: bool) -> SamplingParams:
        """How the answers of a round are drawn: a random stream for every round and either kind of prompts."""
        return self.sampling_for_reward(1_000_003 * self.args.seed + 2 * number + int(held_out))
