"""The policy step of a round: PPO, RLOO, APA or weighted fine-tuning on the round's reward; then what it reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlsft.evaluation import sequence_kl
from rlsft.rewards import RewardModel
from rlsft.trainers.base import last_checkpoint, trained_tokens
from rlsft.trainers.rft.monitors import Clock
from rlsft.trainers.rft.scores import centered_reward, policy_prompts, scorer_of
from rlsft.trainers.rft.weighted import effective_share, log_ratios_of, weighted_rows

if TYPE_CHECKING:
    from rlsft.trainers.rft.trainer import RFTTrainer


@dataclass(frozen=True)
class Round:
    """What the stages of one round before the policy step left."""

    number: int
    samples: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    held_out_scores: list[dict[str, Any]]


def improve_policy(chain: RFTTrainer, round_: Round, folder: Path) -> dict[str, Any]:
    """Train the policy of a round, write it to `folder/model`, measure it; returns what done.json keeps."""
    clock = Clock()
    reward = chain.models.reward(chain.reward_folder(round_.number))
    run = _fine_tuned if chain.args.policy_step == "weighted_sft" else _reinforced
    with clock.timed("training"):
        policy, reference, facts = run(chain, round_, folder, reward, clock)
    facts |= measure(chain, round_, policy, reference, reward, clock)
    return facts | {"seconds": clock.rounded()}


def _reinforced(
    chain: RFTTrainer, round_: Round, folder: Path, reward: RewardModel, clock: Clock
) -> tuple[Any, Any, dict[str, Any]]:
    """PPO, RLOO or APA: answers drawn by the policy as it changes."""
    from rlsft.trainers.ppo.trainer import PPOTrainer

    score = scorer_of(reward, chain.tokenizer, chain.args)
    reward.eval().requires_grad_(False)
    trainer = PPOTrainer(
        model=chain.current_policy(round_.number, trainable=True),
        args=chain.args.policy_config(str(folder)),
        reward_model=[centered_reward(score)],
        ref_model=chain.reference_policy(round_.number),
        train_dataset=policy_prompts(round_.scores, center=chain.args.center_rewards),
        processing_class=chain.tokenizer,
        callbacks=chain.callbacks,
    )
    reward.to(trainer.args.device)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder) is not None)
    for kind, seconds in trainer.maker.seconds.items():
        clock.add(kind, seconds)
    if chain.args.use_peft:
        trainer.policy.save_pretrained(folder / "model")
    else:
        trainer.save_policy(folder / "model")
    facts = {"episodes": chain.args.policy_episodes, "num_tokens": trained_tokens(trainer)}
    return trainer.policy, trainer.maker.reference.model, facts


def _fine_tuned(
    chain: RFTTrainer, round_: Round, folder: Path, reward: RewardModel, clock: Clock
) -> tuple[Any, Any, dict[str, Any]]:
    """Weighted fine-tuning on the demonstrations and the answers that are there."""
    from rlsft.trainers.sft import SFTTrainer

    args = chain.args
    policy = chain.current_policy(round_.number, trainable=True)
    reference = chain.reference_policy(round_.number)
    ratios = None
    if args.reference == "initial" and round_.number > 1:
        with clock.timed("scoring"):
            ratios = log_ratios_of(
                round_.samples,
                policy,
                reference,
                chain.tokenizer,
                args=args,
                max_prompt_length=chain.max_prompt_length(),
            )
    rows = weighted_rows(
        round_.samples, round_.scores, ratios, chain.tokenizer, args=args, max_prompt_length=chain.max_prompt_length()
    )
    trainer = SFTTrainer(
        model=policy,
        args=args.policy_config(str(folder)),
        train_dataset=rows,
        processing_class=chain.tokenizer,
        callbacks=chain.callbacks,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder) is not None)
    trainer.model.save_pretrained(folder / "model")
    if reference is None and not args.use_peft:
        reference = chain.current_policy(round_.number)  # what training began from
    share = effective_share([row["weight"] for row in rows])
    facts = {"num_rows": len(rows), "num_tokens": trained_tokens(trainer), "effective_share": share}
    return trainer.model, reference, facts


def measure(
    chain: RFTTrainer, round_: Round, policy: Any, reference: Any, reward: RewardModel, clock: Clock
) -> dict[str, Any]:
    """Mean reward before and after on the held-out prompts with the same random streams, and the KL after.

    Args:
        chain: the run.
        round_: its samples and scores; where no prompts are held out, those it learned from.
        policy: after the step.
        reference: of the KL; None = the policy without its adapter.
        reward: of the round.
        clock: takes the seconds.
    """
    held_out = bool(round_.held_out)
    samples, scores = (round_.held_out, round_.held_out_scores) if held_out else (round_.samples, round_.scores)
    prompts = [row["prompt"] for row in samples]
    args, tokenizer = chain.args, chain.tokenizer
    with clock.timed("generation"):
        sampling = chain.sampling(round_.number, held_out=held_out)
        answers = chain.answers(policy, prompts, label="policy", sampling=sampling, num_samples=args.samples_per_prompt)
    with clock.timed("scoring"):
        repeated = [prompt for prompt in prompts for _ in range(args.samples_per_prompt)]
        after = scorer_of(reward, tokenizer, args)(repeated, [g.completion for g in answers.generations])
        kl = sequence_kl(policy, answers, pad_token_id=tokenizer.pad_token_id, reference=reference)
    return {
        "reward_before": _mean([value for row in scores for value in row["response_rewards"]]),
        "reward_after": float(after.mean()),
        "kl": float(kl.mean()),
        "length": _mean([len(completion.token_ids) for completion in answers.completions]),
        "measured_on": "held-out prompts" if held_out else "training prompts",
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
