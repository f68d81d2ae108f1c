"""RFT as one chain (arXiv 2405.17888, algorithm 1): SFT, rounds of samples, reward and policy, one run directory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rlsft.artifacts import jsonable, read_jsonl, write_text
from rlsft.errors import ConfigError
from rlsft.models import freed_memory_kept, release_freed_memory
from rlsft.rewards.split import split_by_prompt
from rlsft.trainers.chain import fine_tune
from rlsft.trainers.rft.config import RFTConfig
from rlsft.trainers.rft.models import RunModels
from rlsft.trainers.rft.monitors import Clock, round_row, write_row
from rlsft.trainers.rft.rows import preference_rows, prompts_of_round
from rlsft.trainers.rft.stages import TITLES, fields_of, part_of, round_name, stage_names
from rlsft.trainers.run_dir import RunDirectory, fingerprint
from rlsft.trainers.str_data import chosen, demonstrations, distinct_prompts, hold_out, refuse_shared_prompts, rows_hash


@dataclass(frozen=True)
class RFTResult:
    """What a finished run gives back: its folder, the table SFT against RFT, one row of monitors a round."""

    output_dir: Path
    comparison: Any  # rlsft.evaluation.Comparison
    rounds: list[dict[str, Any]]


class RFTTrainer:
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
        from rlsft.models import load_tokenizer

        if not isinstance(model, (str, Path)):
            raise ConfigError(
                f"model must be a folder, because each stage loads it afresh, got {type(model).__name__}; "
                "save it with save_pretrained first"
            )
        self.model = str(model)
        self.args = args
        self.train_rows = demonstrations(train_dataset, "train_dataset")
        if eval_dataset is not None:
            self.eval_rows = demonstrations(eval_dataset, "eval_dataset")
        else:
            self.train_rows, self.eval_rows = hold_out(self.train_rows)
        refuse_shared_prompts(self.train_rows, self.eval_rows)
        self.preferences = preference_rows(preference_dataset, args.preference_data, args.preference_weight)
        self.tokenizer = processing_class if processing_class is not None else load_tokenizer(self.model)
        self.callbacks = list(callbacks or [])
        if args.kpi:
            from rlsft.evaluation import load_kpi

            load_kpi(args.kpi)  # a typo in it should cost a second now, not the whole run
        self.max_prompt_length()
        self.run = RunDirectory(args.output_dir)
        self.models = RunModels(self.base_model(), args)
        # once for the whole run: a prompt that measures the reward is never learned from, in any round
        self._reward_rows, self._held_out_rows = split_by_prompt(
            distinct_prompts(self.train_rows), args.reward_eval_fraction, seed=args.seed
        )

    # ---- the chain -------------------------------------------------------------------------------------------------
    def train(self) -> RFTResult | None:
        """Run every stage that is not finished yet; None when `stop_after` ended the chain early.

        Raises:
            RunError: the output directory is in use, holds something else, or was made with other settings.
        """
        stages = stage_names(self.args.rounds)
        with self.run as run, freed_memory_kept(self.args.keep_freed_memory and self.args.device.type == "cpu"):
            self._write_config()
            for place, stage in enumerate(stages):
                redo = self.args.redo is not None and place >= stages.index(self.args.redo)
                settings = self.settings_of(stage)
                if run.begin(stage, settings, redo=redo):
                    self._announce(place, len(stages), TITLES[part_of(stage)[1]])
                    with run.timed(stage):
                        facts = self._make(stage, run.stage_dir(stage))
                    run.finish(stage, settings, **facts)
                    gc.collect()
                    release_freed_memory()
                else:
                    self._announce(place, len(stages), "finished earlier, reused")
                if part_of(stage)[1] == "policy":
                    self._record_round(part_of(stage)[0])
                if stage == self.args.stop_after:
                    return None
            from rlsft.trainers.rft.evaluation import result_of

            return result_of(run.path)

    def _make(self, stage: str, folder: Path) -> dict[str, Any]:
        number, part = part_of(stage)
        return getattr(self, f"_{part}")(folder, number) if number else getattr(self, f"_{part}")(folder)

    def _announce(self, place: int, count: int, text: str) -> None:
        """One line a stage, on standard error like all progress."""
        if self.args.show_progress is not False:
            stage = stage_names(self.args.rounds)[place]
            Console(stderr=True).print(f"[{place + 1}/{count}] {stage}: {text}", markup=False)

    def settings_of(self, stage: str) -> dict[str, Any]:
        """Everything that decides the stage's result: its own fields, the shared ones, the data and earlier stages."""
        stages = stage_names(self.args.rounds)
        names = fields_of(stage, iter(type(self.args).__dataclass_fields__))
        settings = {name: getattr(self.args, name) for name in names}
        place = stages.index(stage)
        if place == 0:
            settings |= {"model": self.model, "train_data": rows_hash(self.train_rows)}
        else:
            settings["stages_before"] = fingerprint(self.settings_of(stages[place - 1]))
        if part_of(stage)[1] == "reward" and self.preferences:
            settings["preference_rows"] = fingerprint({"rows": self.preferences})
        if stage == "evaluation":
            settings["eval_data"] = rows_hash(self.eval_rows)
        return jsonable(settings)

    # ---- stages ----------------------------------------------------------------------------------------------------
    def _sft(self, folder: Path) -> dict[str, Any]:
        if self.args.skip_sft:
            return {"num_examples": 0}
        rows = self.train_rows[: self.args.sft_max_examples or None]
        held_out = self.eval_rows[-max(1, self.args.eval_prompts // 4) :] if self.eval_rows else []
        return fine_tune(
            self.model, self.args.sft_config(str(folder)), rows, held_out,
            tokenizer=self.tokenizer, callbacks=self.callbacks, target=folder / "model",
        )  # fmt: skip

    def _samples(self, folder: Path, number: int) -> dict[str, Any]:
        from rlsft.rollouts import TransformersEngine
        from rlsft.trainers.str_sampling import sample_responses

        args, clock = self.args, Clock()
        train, held_out = self.prompts_of(number)
        engine = TransformersEngine(self.current_policy(number), self.tokenizer, batch_size=args.sample_batch_size)
        found = []
        with clock.timed("generation"):
            for name, rows in (("samples.jsonl", train), ("held_out.jsonl", held_out)):
                found += sample_responses(
                    engine,
                    self.tokenizer,
                    rows,
                    sampling=self.sampling(number, held_out=name == "held_out.jsonl"),
                    num_samples=args.samples_per_prompt,
                    path=folder / name,
                    prompts_per_call=max(1, 4 * args.sample_batch_size // args.samples_per_prompt),
                    max_prompt_length=self.max_prompt_length(),
                    system_prompt=args.system_prompt,
                    truncate_prompt=args.truncate_prompt,
                    language=args.language,
                    keep_token_ids=True,
                    show_progress=args.show_progress,
                )
        tokens = sum(sum(row["num_tokens"]) for row in found)
        return {"num_prompts": len(found), "num_tokens": tokens, "seconds": clock.rounded()}

    def _reward(self, folder: Path, number: int) -> dict[str, Any]:
        from rlsft.trainers.rft.reward_step import learn_reward

        return learn_reward(self, folder, number)

    def _policy(self, folder: Path, number: int) -> dict[str, Any]:
        from rlsft.trainers.rft.policy_step import Round, improve_policy

        samples, held_out = self.samples_of(number)
        of_reward = self.run.stage_dir(f"{round_name(number)}/reward")
        scores, held_out_scores = (read_jsonl(of_reward / f"{name}scores.jsonl") for name in ("", "held_out_"))
        return improve_policy(self, Round(number, samples, held_out, scores, held_out_scores), folder)

    def _evaluation(self, folder: Path) -> dict[str, Any]:
        from rlsft.trainers.rft.evaluation import evaluate_run

        return evaluate_run(self, folder)

    # ---- what stages share -----------------------------------------------------------------------------------------
    def base_model(self) -> str:
        """Folder of the SFT policy: round 1 starts from it, and the rewards do."""
        return self.model if self.args.skip_sft else str(self.run.stage_dir("sft") / "model")

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

    def sampling(self, number: int, *, held_out: bool) -> Any:
        """How the answers of a round are drawn: a random stream for every round and either kind of prompts."""
        from rlsft.rollouts import SamplingParams

        return SamplingParams(
            temperature=self.args.sample_temperature,
            top_p=self.args.sample_top_p,
            max_new_tokens=self.args.max_completion_length,
            seed=1_000_003 * self.args.seed + 2 * number + int(held_out),
        )

    def max_prompt_length(self) -> int:
        """Tokens a prompt may have so that its answer still fits."""
        room = (self.args.max_length or 1024) - self.args.max_completion_length
        if room < 1:
            raise ConfigError(
                f"max_length ({self.args.max_length}) leaves no room for a prompt beside max_completion_length "
                f"({self.args.max_completion_length})"
            )
        return room

    def _record_round(self, number: int) -> None:
        """The round's row in metrics.jsonl and run.json."""
        done = [self.run.done(f"{round_name(number)}/{part}") for part in ("samples", "reward", "policy")]
        row = round_row(number, done[1], done[2], done)
        write_row(self.args.metrics_file, row)
        self.run.record(rounds={round_name(number): row})

    def _write_config(self) -> None:
        import yaml
        from transformers import TrainingArguments

        inherited = TrainingArguments.__dataclass_fields__
        names = [name for name in RFTConfig.__dataclass_fields__ if name not in inherited]
        values = {name: getattr(self.args, name) for name in [*names, "output_dir", "seed"]}
        text = yaml.safe_dump(jsonable(values), sort_keys=False, allow_unicode=True)
        write_text(self.run.path / "rlsft_config.yaml", text)
        self.run.record(model=self.model, seed=self.args.seed, method="RFT", num_train_examples=len(self.train_rows))
