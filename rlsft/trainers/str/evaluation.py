"""What STR adds to the evaluation of a chain: rank agreement, how good the reward model is, where the time went."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsft.trainers.chain.evaluation import comparison_of, finished_json, side_by_side
from rlsft.trainers.chain.rows import held_out_prompts
from rlsft.trainers.run_dir import RunDirectory
from rlsft.trainers.str.config import STAGES

if TYPE_CHECKING:
    from rlsft.trainers.str.trainer import STRTrainer


def rank_agreement(chain: STRTrainer) -> dict[str, Any]:
    """The labelled proxy of human agreement on held-out prompts that several people answered; a reason if none are."""
    from rlsft.data import prompt_text
    from rlsft.ranking import agreement_with_second_reply

    args = chain.args
    rows = held_out_prompts(chain.eval_rows, len(chain.eval_rows), args.seed)
    several = [(prompt_text(row["prompt"]), row["references"]) for row in rows if len(row["references"]) >= 2]
    if len(several) < 2:
        return {
            "proxy": True,
            "num_prompts": 0,
            "reason": "fewer than two held-out prompts have several human replies",
        }
    return agreement_with_second_reply(
        several[: args.agreement_prompts],
        encoder=chain.get_encoder(),
        damping=args.damping,
        teleport_strength=args.teleport_strength,
        similarity=args.similarity,
        language=args.language,
        seed=args.seed,
    )


def summary_renderables(run_dir: Path) -> list[Any]:
    """What the terminal shows at the end: table, agreement, five prompts side by side, time by stage."""
    from rlsft.ranking import render_agreement

    parts: list[Any] = [comparison_of(run_dir).to_rich()]
    agreement = finished_json(run_dir, "evaluation/agreement.json")
    if agreement.get("num_prompts"):
        parts.append(render_agreement(agreement))
    return [*parts, reward_line(run_dir), side_by_side(run_dir, 5, after="STR"), stage_table(run_dir)]


def reward_line(run_dir: Path) -> str:
    """How often the reward model is right about held-out pairs, and whether that differs from guessing."""
    done = RunDirectory(run_dir).done("reward")
    accuracy, count = done.get("eval_accuracy"), done.get("num_eval_pairs", 0)
    if accuracy is None or not count:
        return "Reward model: not measured, no pairs were held out."
    text = f"Reward model: right about {accuracy:.0%} of {count} held-out pairs (guessing: 50%)."
    # two standard errors of a fair coin
    if accuracy - 0.5 <= 1.0 / math.sqrt(count):
        text += " That is not clearly better than guessing: rank more prompts before trusting what PPO made of it."
    return text


def stage_table(run_dir: Path) -> Any:
    """Seconds and tokens of each stage."""
    from rich.table import Table

    run = RunDirectory(run_dir)
    seconds = run.facts().get("stage_seconds", {})
    table = Table("stage", "seconds", "tokens", title="time")
    for stage in STAGES:
        if run.is_done(stage):
            tokens = run.done(stage).get("num_tokens")
            table.add_row(stage, f"{seconds.get(stage, 0.0):.0f}", f"{tokens:,}" if tokens else "")
    table.add_row("all", f"{sum(seconds.values()):.0f}", "")
    return table
