"""The last stage of a chain: SFT against the method on held-out prompts, plots, report, card, a loadable folder."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsft.artifacts import write_json
from rlsft.errors import RunError
from rlsft.rollouts import SamplingParams
from rlsft.trainers.chain.rows import held_out_prompts

if TYPE_CHECKING:
    from rlsft.evaluation import Comparison, SampledAnswers
    from rlsft.trainers.chain.trainer import ChainTrainer

BEFORE = "SFT"  # the label of the policy that a method starts from


def evaluate_run(chain: ChainTrainer[Any, Any], folder: Path) -> dict[str, Any]:
    """Write generations.jsonl and table.json to `folder`, and the plain model, plots, report and card to the run's."""
    from rlsft.evaluation import compare, load_kpi, write_generations

    args, run_dir = chain.args, chain.run.path
    rows = held_out_prompts(chain.eval_rows, args.eval_prompts, args.seed)
    before, after = answers_of_both(chain, rows)
    write_generations(folder / "generations.jsonl", [*before.generations, *after.generations])
    table = compare(
        before.generations,
        after.generations,
        language=args.language,
        kpi=load_kpi(args.kpi) if args.kpi else None,
        seed=args.seed,
    )
    write_json(folder / "table.json", table.to_json())
    link_files(chain.publish(folder), run_dir)
    present(run_dir)
    return {"num_prompts": len(rows), "sentence": table.sentence}


def answers_of_both(
    chain: ChainTrainer[Any, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[SampledAnswers, SampledAnswers]:
    """Answers of the SFT policy and of the method's to the same prompts with the same random streams, scored."""
    from rlsft.evaluation import sequence_kl

    prompts = [row["prompt"] for row in rows]
    args = chain.args
    sampling = SamplingParams(
        temperature=args.eval_temperature,
        top_p=args.eval_top_p if args.eval_temperature > 0 else 1.0,
        max_new_tokens=args.max_completion_length,
        seed=args.seed + 1,  # not the stream that the samples came from
    )
    references = [row["references"] for row in rows]
    groups = [row.get("conversation_id") for row in rows]
    policies = chain.compared_policies()
    before, after = (
        chain.answers(policy, prompts, label=label, sampling=sampling, references=references, groups=groups)
        for label, policy in zip((BEFORE, chain.method), policies, strict=True)
    )
    pad = chain.tokenizer.pad_token_id
    kl = sequence_kl(policies[1], after, pad_token_id=pad, reference=policies[0])
    del policies
    gc.collect()  # before the reward model is loaded
    score = chain.scorer()
    rewards = [score(prompts, [g.completion for g in drawn.generations]) for drawn in (before, after)]
    return before.with_values(reward=rewards[0], kl=[0.0] * len(before)), after.with_values(reward=rewards[1], kl=kl)


def link_files(source: Path, target: Path) -> None:
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


def comparison_of(run_dir: Path) -> Comparison:
    """The table of a finished run.

    Raises:
        RunError: the evaluation stage has not finished.
    """
    from rlsft.evaluation import Comparison

    return Comparison.from_json(finished_json(run_dir, "evaluation/table.json"))


def finished_json(run_dir: Path, name: str) -> Any:
    """What a file of a finished run holds.

    Raises:
        RunError: the evaluation stage has not finished.
    """
    try:
        return json.loads((run_dir / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{run_dir} has no finished evaluation ({error.filename} is missing)") from None


def side_by_side(run_dir: Path, count: int, *, after: str) -> Any:
    """The first `count` prompts with a person's answer, the SFT policy's and that of the method `after`."""
    from rich.table import Table
    from rich.text import Text

    from rlsft.evaluation import read_generations

    generations = read_generations(run_dir / "evaluation" / "generations.jsonl")
    first, second = ([g for g in generations if g.model == label][:count] for label in (BEFORE, after))
    table = Table("prompt", "a person", BEFORE, after, title=f"{len(first)} held-out prompts", show_lines=True)
    for old, new in zip(first, second, strict=True):
        person = old.references[0] if old.references else ""
        # Text, not markup: an answer may contain square brackets
        table.add_row(*(Text(cell) for cell in (old.prompt, person, old.completion, new.completion)))
    return table
