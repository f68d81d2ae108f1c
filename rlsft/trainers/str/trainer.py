"""STR as one chain (arXiv 2402.18284): SFT, sample, rank, reward model, PPO, evaluation, in one run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlsft.artifacts import read_jsonl, write_json
from rlsft.errors import DataError
from rlsft.models import load_causal_lm
from rlsft.rewards import RewardModel, score_texts, split_by_prompt
from rlsft.trainers.arguments import RlsftArguments
from rlsft.trainers.base import last_checkpoint, trained_tokens
from rlsft.trainers.chain.evaluation import comparison_of, finished_json
from rlsft.trainers.chain.rows import chosen, distinct_prompts
from rlsft.trainers.chain.stages import Stage
from rlsft.trainers.chain.trainer import ChainTrainer, Scorer
from rlsft.trainers.str.config import STRConfig
from rlsft.trainers.str.evaluation import rank_agreement

RANKING_FIELDS = (
    "encoder", "similarity", "textrank_form", "damping", "teleport", "cluster", "rank_interval", "pair_mode",
    "max_pairs_per_prompt", "noise_rate",
)  # fmt: skip


@dataclass(frozen=True)
class STRResult:
    """What a finished run gives back: its folder, the table SFT against STR, the rank agreement."""

    output_dir: Path
    comparison: Any  # rlsft.evaluation.Comparison
    agreement: dict[str, Any]


class STRTrainer(ChainTrainer[STRConfig, STRResult]):
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

    method = "STR"

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
        super().__init__(model, args, train_dataset, eval_dataset, processing_class, callbacks=callbacks)
        self.encoder = encoder

    def stages(self) -> list[Stage]:
        """SFT, samples, ranks, reward model, PPO, evaluation."""
        ranking = "ranking them by TextRank, clustering them by ISODATA"
        return [
            self.sft_stage(),
            Stage(
                "samples", "drawing several answers to each prompt", ("sample_", "samples_per_prompt"), self._samples
            ),
            Stage("ranked", ranking, RANKING_FIELDS, self._ranked),
            Stage("reward", "learning a reward model from the ranks", ("reward_",), self._reward),
            Stage("ppo", "improving the policy under a KL penalty", ("ppo_", "kl_", "missing_eos_penalty"), self._ppo),
            self.evaluation_stage("agreement_prompts"),
        ]

    # ---- stages ----------------------------------------------------------------------------------------------------
    def _samples(self, folder: Path) -> dict[str, Any]:
        args = self.args
        prompts = chosen(distinct_prompts(self.train_rows), args.sample_prompts, args.seed)
        sampling = self.sampling_for_reward(args.seed)
        rows = self.draw_samples(self._policy(self.sft_model()), prompts, folder / "samples.jsonl", sampling)
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
        from rlsft.trainers.reward import RewardTrainer

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
        from rlsft.trainers.ppo.trainer import PPOTrainer

        config = self.args.ppo_config(str(folder))
        trainer = PPOTrainer(
            model=self._policy(self.sft_model(), config),
            args=config,
            reward_model=self.reward_model(),
            train_dataset=distinct_prompts(self.train_rows),
            processing_class=self.tokenizer,
            callbacks=self.callbacks,
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(folder) is not None)
        trainer.save_policy(folder / "model")
        return {"episodes": self.args.ppo_episodes, "num_tokens": trained_tokens(trainer)}

    # ---- the evaluation --------------------------------------------------------------------------------------------
    def compared_policies(self) -> tuple[Any, Any]:
        """The SFT policy and PPO's."""
        return self._policy(self.sft_model()), self._policy(self.run.stage_dir("ppo") / "model")

    def scorer(self) -> Scorer:
        """The learned reward, for the final table."""
        return partial(
            score_texts,
            self.reward_model(),
            self.tokenizer,
            batch_size=self.args.per_device_eval_batch_size,
            max_length=self.args.max_length or 1024,
            system_prompt=self.args.system_prompt,
            truncate_prompt=self.args.truncate_prompt,
        )

    def publish(self, folder: Path) -> Path:
        """Write agreement.json; the final model is PPO's."""
        write_json(folder / "agreement.json", rank_agreement(self))
        return self.run.stage_dir("ppo") / "model"

    def result(self) -> STRResult:
        """The tables of the finished run.

        Raises:
            RunError: the evaluation stage has not finished.
        """
        folder = self.run.path
        return STRResult(folder, comparison_of(folder), finished_json(folder, "evaluation/agreement.json"))

    # ---- models ----------------------------------------------------------------------------------------------------
    def _policy(self, folder: str | Path, config: RlsftArguments | None = None) -> Any:
        """A policy of the run in the dtype of a stage's config, or of the run's."""
        config = config or self.args
        return load_causal_lm(folder, dtype=config.dtype, attn_implementation=config.attn_implementation)

    def reward_model(self) -> RewardModel:
        """The trained reward model, loaded in the run's dtype."""
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
