"""The last stage of STR: SFT against STR on held-out prompts, rank agreement, plots, report and model card."""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsft.artifacts import write_json
from rlsft.errors import RunError
from rlsft.trainers.str_data import held_out_prompts

if TYPE_CHECKING:
    from rlsft.evaluation import SampledAnswers
    from rlsft.trainers.str_trainer import STRResult, STRTrainer


def evaluate_run(trainer: STRTrainer, folder: Path) -> dict[str, Any]:
    """Write evaluation/{generations.jsonl, table.json, agreement.json}, the plots, the report and the model card."""
    from rlsft.evaluation import compare, load_kpi, write_generations

    rows = held_out_prompts(trainer.eval_rows, trainer.args.eval_prompts, trainer.args.seed)
    before, after = answers_of_both(trainer, rows)
    write_generations(folder / "generations.jsonl", [*before.generations, *after.generations])
    kpi = load_kpi(trainer.args.kpi) if trainer.args.kpi else None
    table = compare(
        before.generations, after.generations, language=trainer.args.language, kpi=kpi, seed=trainer.args.seed
    )
    write_json(folder / "table.json", table.to_json())
    write_json(folder / "agreement.json", rank_agreement(trainer))
    publish_model(trainer.run.stage_dir("ppo") / "model", trainer.run.path)
    present(trainer.run.path)
    return {"num_prompts": len(rows), "sentence": table.sentence}


def answers_of_both(trainer: STRTrainer, rows: Sequence[Mapping[str, Any]]) -> tuple[SampledAnswers, SampledAnswers]:
    """Answers of the SFT policy and of the STR policy to the same prompts with the same random streams, scored."""
    from rlsft.evaluation import sample_answers, sequence_kl
    from rlsft.models import load_causal_lm
    from rlsft.rollouts import SamplingParams, TransformersEngine

    args, tokenizer = trainer.args, trainer.tokenizer
    sampling = SamplingParams(
        temperature=args.eval_temperature,
        top_p=args.eval_top_p if args.eval_temperature > 0 else 1.0,
        max_new_tokens=args.max_completion_length,
        seed=args.seed + 1,  # not the stream that the ranked samples came from
    )
    folders = {"SFT": trainer.sft_model(), "STR": str(trainer.run.stage_dir("ppo") / "model")}
    models = {
        label: load_causal_lm(folder, dtype=args.dtype, attn_implementation=args.attn_implementation)
        for label, folder in folders.items()
    }
    answers = {
        label: sample_answers(
            TransformersEngine(model, tokenizer, batch_size=args.sample_batch_size),
            tokenizer,
            [row["prompt"] for row in rows],
            model=label,
            sampling=sampling,
            references=[row["references"] for row in rows],
            groups=[row.get("conversation_id") for row in rows],
            max_prompt_length=trainer.max_prompt_length(),
            system_prompt=args.system_prompt,
            truncate_prompt=args.truncate_prompt,
        )
        for label, model in models.items()
    }
    pad = tokenizer.pad_token_id
    kl = sequence_kl(models["STR"], answers["STR"], pad_token_id=pad, reference=models["SFT"])
    del models
    gc.collect()
    prompts = [row["prompt"] for row in rows]
    scored = {label: drawn.with_values(reward=rewards_of(trainer, prompts, drawn)) for label, drawn in answers.items()}
    return scored["SFT"].with_values(kl=[0.0] * len(scored["SFT"])), scored["STR"].with_values(kl=kl)


def rewards_of(trainer: STRTrainer, prompts: Sequence[Any], answers: SampledAnswers) -> Any:
    """The learned reward of the answer to each prompt, [answers]."""
    from rlsft.rewards import score_texts

    return score_texts(
        trainer.reward_model(),
        trainer.tokenizer,
        prompts,
        [generation.completion for generation in answers.generations],
        batch_size=trainer.args.per_device_eval_batch_size,
        max_length=trainer.args.max_length or 1024,
        system_prompt=trainer.args.system_prompt,
        truncate_prompt=trainer.args.truncate_prompt,
    )


def rank_agreement(trainer: STRTrainer) -> dict[str, Any]:
    """The labelled proxy of human agreement on held-out prompts that several people answered; {} where none are."""
    from rlsft.data import prompt_text
    from rlsft.ranking import agreement_with_second_reply

    args = trainer.args
    rows = held_out_prompts(trainer.eval_rows, len(trainer.eval_rows), args.seed)
    several = [(prompt_text(row["prompt"]), row["references"]) for row in rows if len(row["references"]) >= 2]
    if len(several) < 2:
        return {
            "proxy": True,
            "num_prompts": 0,
            "reason": "fewer than two held-out prompts have several human replies",
        }
    return agreement_with_second_reply(
        several[: args.agreement_prompts],
        encoder=trainer.get_encoder(),
        damping=args.damping,
        teleport_strength=args.teleport_strength,
        similarity=args.similarity,
        language=args.language,
        seed=args.seed,
    )


def publish_model(source: Path, target: Path) -> None:
    """Make the run directory itself loadable: hard links to the final model's files, copies where links cannot be."""
    for file in source.iterdir():
        link = target / file.name
        link.unlink(missing_ok=True)
        try:
            os.link(file, link)
        except OSError:
            shutil.copy2(file, link)


def present(run_dir: Path) -> None:
    """Plots, the HTML page and the model card of a finished run."""
    from rlsft.evaluation import build_report, plot_run, write_model_card

    plot_run(run_dir)
    build_report(run_dir)
    write_model_card(run_dir)


def result_of(run_dir: Path) -> STRResult:
    """The tables of a finished run.

    Raises:
        RunError: the evaluation stage has not finished.
    """
    from rlsft.evaluation import Comparison
    from rlsft.trainers.str_trainer import STRResult

    folder = run_dir / "evaluation"
    try:
        table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
        agreement = json.loads((folder / "agreement.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{run_dir} has no finished evaluation ({error.filename} is missing)") from None
    return STRResult(output_dir=run_dir, comparison=Comparison.from_json(table), agreement=agreement)


def summary_renderables(run_dir: Path) -> list[Any]:
    """What the terminal shows at the end: table, agreement, five prompts side by side, time by stage."""
    from rlsft.evaluation import read_generations
    from rlsft.ranking import render_agreement

    result = result_of(run_dir)
    generations = read_generations(run_dir / "evaluation" / "generations.jsonl")
    parts = [result.comparison.to_rich()]
    if result.agreement.get("num_prompts"):
        parts.append(render_agreement(result.agreement))
    return [*parts, reward_line(run_dir), side_by_side(generations, 5), stage_table(run_dir)]


def reward_line(run_dir: Path) -> str:
    """How often the reward model is right about held-out pairs, and whether that differs from guessing."""
    from rlsft.trainers.run_dir import RunDirectory

    done = RunDirectory(run_dir).done("reward")
    accuracy, count = done.get("eval_accuracy"), done.get("num_eval_pairs", 0)
    if accuracy is None or not count:
        return "Reward model: not measured, no pairs were held out."
    text = f"Reward model: right about {accuracy:.0%} of {count} held-out pairs (guessing: 50%)."
    # two standard errors of a fair coin
    if accuracy - 0.5 <= 1.0 / math.sqrt(count):
        text += " That is not clearly better than guessing: rank more prompts before trusting what PPO made of it."
    return text


def side_by_side(generations: Sequence[Any], count: int, *, before: str = "SFT", after: str = "STR") -> Any:
    """The first `count` prompts with a person's answer and the two models' answers."""
    from rich.table import Table
    from rich.text import Text

    first = [g for g in generations if g.model == before][:count]
    second = [g for g in generations if g.model == after][:count]
    table = Table("prompt", "a person", before, after, title=f"{len(first)} held-out prompts", show_lines=True)
    for old, new in zip(first, second, strict=True):
        person = old.references[0] if old.references else ""
        # Text, not markup: an answer may contain square brackets
        table.add_row(*(Text(cell) for cell in (old.prompt, person, old.completion, new.completion)))
    return table


def stage_table(run_dir: Path) -> Any:
    """Seconds and tokens of each stage."""
    from rich.table import Table

    from rlsft.trainers.run_dir import RunDirectory
    from rlsft.trainers.str_config import STAGES

    run = RunDirectory(run_dir)
    seconds = run.facts().get("stage_seconds", {})
    table = Table("stage", "seconds", "tokens", title="time")
    for stage in STAGES:
        if run.is_done(stage):
            tokens = run.done(stage).get("num_tokens")
            table.add_row(stage, f"{seconds.get(stage, 0.0):.0f}", f"{tokens:,}" if tokens else "")
    table.add_row("all", f"{sum(seconds.values()):.0f}", "")
    return table
