"""STR as one chain (arXiv 2402.18284): SFT, sample, rank, reward model, PPO, evaluation, in one run directory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rlsft.artifacts import jsonable, read_jsonl, write_text
from rlsft.errors import ConfigError, DataError
from rlsft.models import freed_memory_kept
from rlsft.trainers.base import last_checkpoint
from rlsft.trainers.chain import fine_tune, trained_tokens
from rlsft.trainers.run_dir import RunDirectory, fingerprint
from rlsft.trainers.str_config import STAGES, STRConfig
from rlsft.trainers.str_data import chosen, demonstrations, distinct_prompts, hold_out, refuse_shared_prompts, rows_hash

TITLES = {
    "sft": "fine-tuning on the demonstrations",
    "samples": "drawing several answers to each prompt",
    "ranked": "ranking them by TextRank, clustering them by ISODATA",
    "reward": "learning a reward model from the ranks",
    "ppo": "improving the policy under a KL penalty",
    "evaluation": "comparing SFT and STR on held-out prompts",
}
# which settings a stage's result depends on, besides the stages before it
SHARED_FIELDS = (
    "seed", "dtype", "attn_implementation", "max_length", "system_prompt", "language", "use_peft", "lora_r",
    "lora_alpha", "lora_dropout", "truncate_prompt", "lora_target_modules", "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_completion_length", "disable_dropout", "bf16",
)  # fmt: skip
STAGE_PREFIXES = {
    "sft": ("skip_sft", "sft_"),
    "samples": ("sample_", "samples_per_prompt"),
    "ranked": (
        "encoder", "similarity", "textrank_form", "damping", "teleport", "cluster", "rank_interval", "pair_mode",
        "max_pairs_per_prompt", "noise_rate",
    ),
    "reward": ("reward_",),
    "ppo": ("ppo_", "kl_", "missing_eos_penalty"),
    "evaluation": ("eval_prompts", "eval_temperature", "eval_top_p", "agreement_prompts", "kpi"),
}  # fmt: skip
NOT_SETTINGS = ("sample_batch_size",)  # changes speed, never a result


@dataclass(frozen=True)
class STRResult:
    """What a finished run gives back: its folder, the table SFT against STR, the rank agreement."""

    output_dir: Path
    comparison: Any  # rlsft.evaluation.Comparison
    agreement: dict[str, Any]


class STRTrainer:
    """Fine-tune a causal LM from demonstrations with rewards learned from its own ranked answers.

    Args:
        model: folder of a causal LM.
        args: `STRConfig`.
        train_dataset: demonstrations, `prompt` + `completion` (a `datasets.Dataset` or a list of dicts).
        eval_dataset: held-out demonstrations; None = a tenth of the training prompts is held out.
        processing_class: tokenizer; None = that of the model's folder.
        encoder: sentence encoder for the ranking; None = what `args.encoder` names.
        callbacks: further `transformers.TrainerCallback`s for every training stage.

    Every stage leaves its result in `args.output_dir`; a run that was stopped goes on from the last finished step when
    it is started again with the same settings, and refuses settings that contradict what is there.
    """

    def __init__(
        self,
        model: str | Path,
        args: STRConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        encoder: Any = None,
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
        self.tokenizer = processing_class if processing_class is not None else load_tokenizer(self.model)
        self.encoder = encoder
        self.callbacks = list(callbacks or [])
        if args.kpi:
            from rlsft.evaluation import load_kpi

            load_kpi(args.kpi)  # a typo in it should cost a second now, not the whole run
        self.run = RunDirectory(args.output_dir)
        refuse_shared_prompts(self.train_rows, self.eval_rows)

    # ---- the chain -------------------------------------------------------------------------------------------------
    def train(self) -> STRResult | None:
        """Run every stage that is not finished yet; None when `stop_after` ended the chain early.

        Raises:
            RunError: the output directory is in use, holds something else, or was made with other settings.
        """
        with self.run as run, freed_memory_kept(self.args.keep_freed_memory and self.args.device.type == "cpu"):
            self._write_config()
            for stage in STAGES:
                redo = self.args.redo is not None and STAGES.index(stage) >= STAGES.index(self.args.redo)
                settings = self.settings_of(stage)
                if run.begin(stage, settings, redo=redo):
                    self._announce(stage, TITLES[stage])
                    with run.timed(stage):
                        facts = getattr(self, f"_{stage}")(run.stage_dir(stage))
                    run.finish(stage, settings, **facts)
                else:
                    self._announce(stage, "finished earlier, reused")
                gc.collect()
                if stage == self.args.stop_after:
                    return None
            from rlsft.trainers.str_evaluation import result_of

            return result_of(run.path)

    def _announce(self, stage: str, text: str) -> None:
        """One line a stage, on standard error like all progress."""
        if self.args.show_progress is not False:
            Console(stderr=True).print(f"[{STAGES.index(stage) + 1}/{len(STAGES)}] {stage}: {text}", markup=False)

    def settings_of(self, stage: str) -> dict[str, Any]:
        """Everything that decides the stage's result: its own fields, the shared ones, the data and earlier stages."""
        names = [
            name
            for name in type(self.args).__dataclass_fields__
            if name in SHARED_FIELDS
            or (any(name.startswith(p) for p in STAGE_PREFIXES[stage]) and name not in NOT_SETTINGS)
        ]
        settings = {name: getattr(self.args, name) for name in names}
        position = STAGES.index(stage)
        if position == 0:
            settings |= {"model": self.model, "train_data": rows_hash(self.train_rows)}
        else:
            settings["stages_before"] = fingerprint(self.settings_of(STAGES[position - 1]))
        if stage == "evaluation":
            settings["eval_data"] = rows_hash(self.eval_rows)
        return jsonable(settings)

    # ---- stages ----------------------------------------------------------------------------------------------------
    def _sft(self, folder: Path) -> dict[str, Any]:
        if self.args.skip_sft:
            return {"num_examples": 0}
        return fine_tune(
            self.model,
            self.args.sft_config(str(folder)),
            self.train_rows[: self.args.sft_max_examples or None],
            self._validation_rows(),
            tokenizer=self.tokenizer,
            callbacks=self.callbacks,
            target=folder / "model",
        )

    def _samples(self, folder: Path) -> dict[str, Any]:
        from rlsft.models import load_causal_lm
        from rlsft.rollouts import SamplingParams, TransformersEngine
        from rlsft.trainers.str_sampling import sample_responses

        args = self.args
        model = load_causal_lm(self.sft_model(), dtype=args.dtype, attn_implementation=args.attn_implementation)
        engine = TransformersEngine(model, self.tokenizer, batch_size=args.sample_batch_size)
        rows = sample_responses(
            engine,
            self.tokenizer,
            self._ranking_rows(),
            sampling=SamplingParams(
                temperature=args.sample_temperature,
                top_p=args.sample_top_p,
                max_new_tokens=args.max_completion_length,
                seed=args.seed,
            ),
            num_samples=args.samples_per_prompt,
            path=folder / "samples.jsonl",
            prompts_per_call=max(1, 4 * args.sample_batch_size // args.samples_per_prompt),
            max_prompt_length=self.max_prompt_length(),
            system_prompt=args.system_prompt,
            truncate_prompt=args.truncate_prompt,
            language=args.language,
            show_progress=args.show_progress,
        )
        return {"num_prompts": len(rows), "num_tokens": sum(sum(row["num_tokens"]) for row in rows)}

    def _ranked(self, folder: Path) -> dict[str, Any]:
        from rlsft.ranking import rank_responses

        rows = read_jsonl(self.run.stage_dir("samples") / "samples.jsonl")
        ranked = rank_responses(
            [row["prompt"] for row in rows],
            [row["responses"] for row in rows],
            demonstrations=[row["demonstration"] for row in rows],
            encoder=self.get_encoder(),
            **self.args.ranking_options(),
        )
        if not ranked.pairs:
            raise DataError(
                "the ranking gave no pairs: every prompt's answers fell into one cluster or were equal. "
                "Raise samples_per_prompt or sample_temperature, or lower the cluster thresholds."
            )
        ranked.save(folder)
        summary = ranked.summary()
        self.run.record(ranking=summary)
        return {"num_pairs": len(ranked.pairs), "summary": summary}

    def _reward(self, folder: Path) -> dict[str, Any]:
        from rlsft.rewards import RewardModel
        from rlsft.trainers.reward import RewardTrainer, split_by_prompt

        config = self.args.reward_config(str(folder))
        pairs = read_jsonl(self.run.stage_dir("ranked") / "pairs.jsonl")
        train, held_out = split_by_prompt(pairs, self.args.reward_eval_fraction, seed=self.args.seed)
        trainer = RewardTrainer(
            model=RewardModel.from_pretrained(
                self.sft_model(), dtype=config.dtype, attn_implementation=config.attn_implementation
            ),
            args=config,
            train_dataset=train,
            eval_dataset=held_out or None,
            processing_class=self.tokenizer,
            callbacks=self.callbacks,
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(folder) is not None)
        measured = trainer.evaluate() if held_out else {}
        trainer.reward_model.save_pretrained(folder / "model", self.tokenizer)
        return {"num_train_pairs": len(train), "num_eval_pairs": len(held_out), **measured}

    def _ppo(self, folder: Path) -> dict[str, Any]:
        from rlsft.models import load_causal_lm
        from rlsft.trainers.ppo.trainer import PPOTrainer

        config = self.args.ppo_config(str(folder))
        policy = load_causal_lm(self.sft_model(), dtype=config.dtype, attn_implementation=config.attn_implementation)
        trainer = PPOTrainer(
            model=policy,
            args=config,
            reward_model=self.reward_model(),
            train_dataset=self._policy_rows(),
            processing_class=self.tokenizer,
            callbacks=self.callbacks,
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(folder) is not None)
        target = folder / "model"
        trainer.save_policy(target)
        return {
            "episodes": self.args.ppo_episodes,
            "num_tokens": trained_tokens(trainer),
        }

    def _evaluation(self, folder: Path) -> dict[str, Any]:
        from rlsft.trainers.str_evaluation import evaluate_run

        return evaluate_run(self, folder)

    # ---- what stages share -----------------------------------------------------------------------------------------
    def sft_model(self) -> str:
        """Folder of the SFT policy: the reference of PPO and the base of the reward model."""
        # not the path in done.json: a run directory may be moved or copied
        return self.model if self.args.skip_sft else str(self.run.stage_dir("sft") / "model")

    def reward_model(self) -> Any:
        """The trained reward model, loaded in the run's dtype."""
        from rlsft.rewards import RewardModel

        return RewardModel.from_pretrained(
            self.run.stage_dir("reward") / "model",
            dtype=self.args.dtype,
            attn_implementation=self.args.attn_implementation,
        )

    def get_encoder(self) -> Any:
        """The sentence encoder of the ranking, or None for word overlap."""
        from rlsft.ranking import load_encoder

        if self.encoder is None and self.args.encoder is not None:
            self.encoder = load_encoder(self.args.encoder)
        return self.encoder

    def max_prompt_length(self) -> int:
        """Tokens a prompt may have so that its answer still fits."""
        room = (self.args.max_length or 1024) - self.args.max_completion_length
        if room < 1:
            raise ConfigError(
                f"max_length ({self.args.max_length}) leaves no room for a prompt beside max_completion_length "
                f"({self.args.max_completion_length})"
            )
        return room

    def _validation_rows(self) -> list[dict[str, Any]]:
        """Held-out rows for the SFT loss: a quarter as many as the final table's prompts, from the end of the set."""
        return self.eval_rows[-max(1, self.args.eval_prompts // 4) :] if self.eval_rows else []

    def _ranking_rows(self) -> list[dict[str, Any]]:
        """Seeded choice of distinct prompts to answer and rank, with their demonstrations."""
        return chosen(distinct_prompts(self.train_rows), self.args.sample_prompts, self.args.seed)

    def _policy_rows(self) -> list[dict[str, Any]]:
        """Distinct prompts for PPO."""
        return distinct_prompts(self.train_rows)

    def _write_config(self) -> None:
        import yaml
        from transformers import TrainingArguments

        inherited = TrainingArguments.__dataclass_fields__
        names = [name for name in STRConfig.__dataclass_fields__ if name not in inherited]
        values = {name: getattr(self.args, name) for name in [*names, "output_dir", "seed"]}
        text = yaml.safe_dump(jsonable(values), sort_keys=False, allow_unicode=True)
        write_text(self.run.path / "rlsft_config.yaml", text)
        self.run.record(model=self.model, seed=self.args.seed, method="STR", num_train_examples=len(self.train_rows))
