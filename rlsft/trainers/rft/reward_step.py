"""The reward step of a round: pairs of all rounds so far, training, held-out measures, the scores of the round."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from rlsft.artifacts import read_jsonl, write_jsonl
from rlsft.errors import DataError
from rlsft.rewards.split import split_by_prompt
from rlsft.trainers.base import last_checkpoint, trained_tokens
from rlsft.trainers.reward import RewardTrainer
from rlsft.trainers.rft.monitors import Clock, oscillation_warning
from rlsft.trainers.rft.pairs import demonstration_pairs, encode_pairs, joint_rows
from rlsft.trainers.rft.scores import score_samples, scorer_of
from rlsft.trainers.rft.stages import round_name

if TYPE_CHECKING:
    from rlsft.trainers.rft.trainer import RFTTrainer

logger = logging.getLogger(__name__)
Pairs = list[dict[str, Any]]


def learn_reward(chain: RFTTrainer, folder: Path, number: int) -> dict[str, Any]:
    """Train the reward of round `number`, write it with its scores to `folder`; returns what done.json keeps."""
    clock = Clock()
    samples, held_out = chain.samples_of(number)
    pairs = demonstration_pairs(samples, number)
    write_jsonl(folder / "pairs.jsonl", pairs)
    train, preferences = _training_pairs(chain, pairs, number)
    measured_on = _encoded(chain, demonstration_pairs(held_out, number))
    is_warm = number > 1 and chain.args.reward_init == "warm"
    with clock.timed("training"):
        trainer = RewardTrainer(
            model=chain.models.reward(chain.reward_folder(number - 1) if is_warm else None, trainable=True),
            args=chain.args.reward_config(str(folder)),
            train_dataset=train,
            eval_dataset=measured_on or None,
            processing_class=chain.tokenizer,
            callbacks=chain.callbacks,
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(folder) is not None)
    chain.models.save_reward(trainer.reward_model.backbone, folder / "model")
    with clock.timed("scoring"):
        facts: dict[str, Any] = dict(trainer.evaluate()) if measured_on else {}
        if preferences:
            data = datasets.Dataset.from_list(preferences)
            facts |= trainer.evaluate(data, metric_key_prefix="eval_preference")
        score = scorer_of(trainer.reward_model, chain.tokenizer, chain.args)
        for name, rows in (("scores.jsonl", samples), ("held_out_scores.jsonl", held_out)):
            write_jsonl(folder / name, score_samples(score, rows) if rows else [])
    facts["train_saturation"] = _last_logged(trainer, "saturation")
    # the pairs it learned from say whether its problem is solved; too short a training has logged nothing
    solved = facts["train_saturation"] if facts["train_saturation"] is not None else facts.get("eval_saturation")
    warning = oscillation_warning(chain.args, solved)
    if warning:
        logger.warning("%s: %s", round_name(number), warning)
    counts = {"num_pairs": len(pairs), "num_train_pairs": len(train), "num_eval_pairs": len(measured_on)}
    return {**counts, "num_tokens": trained_tokens(trainer), **facts, "seconds": clock.rounded()}


def _last_logged(trainer: Any, name: str) -> float | None:
    return next((entry[name] for entry in reversed(trainer.state.log_history) if name in entry), None)


def _training_pairs(chain: RFTTrainer, pairs: Pairs, number: int) -> tuple[Pairs, Pairs]:
    """Encoded pairs to learn from, with their weights, and the held-out ones of the preferences."""
    args = chain.args
    if args.accumulate_negatives:
        pairs = [*_earlier_pairs(chain, number), *pairs]
    if not pairs:
        raise DataError(
            f"{round_name(number)} has no pairs: every answer of the policy equals its demonstration, so there is "
            "nothing to tell apart. Stop after fewer rounds, or raise sample_temperature."
        )
    preferences: Pairs = chain.preferences
    held_out: Pairs = []
    if len({str(row["prompt"]) for row in preferences}) > 1:
        preferences, held_out = split_by_prompt(preferences, args.reward_eval_fraction, seed=args.seed)
    rows = joint_rows(
        pairs,
        preferences,
        demonstration_weight=args.demonstration_weight,
        preference_weight=args.preference_weight,
    )
    return _encoded(chain, rows), _encoded(chain, held_out)


def _earlier_pairs(chain: RFTTrainer, number: int) -> Pairs:
    folders = [chain.run.stage_dir(f"{round_name(earlier)}/reward") for earlier in range(1, number)]
    return [pair for folder in folders for pair in read_jsonl(folder / "pairs.jsonl")]


def _encoded(chain: RFTTrainer, rows: Pairs) -> Pairs:
    args = chain.args
    options = {
        "max_length": args.max_length or 1024,
        "system_prompt": args.system_prompt,
        "truncate_prompt": args.truncate_prompt,
    }
    return encode_pairs(rows, chain.tokenizer, options)
