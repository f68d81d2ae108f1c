"""The last stage of RFT: SFT against RFT on held-out prompts, plain model folders, plots, report and model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsft.artifacts import write_json
from rlsft.errors import RunError
from rlsft.trainers.rft.monitors import KINDS
from rlsft.trainers.rft.scores import scorer_of
from rlsft.trainers.str_data import held_out_prompts
from rlsft.trainers.str_evaluation import present, publish_model

if TYPE_CHECKING:
    from rlsft.evaluation import SampledAnswers
    from rlsft.trainers.rft.trainer import RFTResult, RFTTrainer

BEFORE, AFTER = "SFT", "RFT"
# monitors of a round, with their titles in the table
COLUMNS = {
    "reward/accuracy": "reward right",
    "reward/margin": "margin",
    "reward/saturation": "pairs solved",
    "policy/reward_before": "reward before",
    "policy/reward_after": "after",
    "policy/kl": "KL (nats)",
}


def evaluate_run(chain: RFTTrainer, folder: Path) -> dict[str, Any]:
    """Write evaluation/{generations.jsonl, table.json}, both models as plain folders, plots, report, model card."""
    from rlsft.evaluation import compare, load_kpi, write_generations

    args, number = chain.args, chain.args.rounds
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
    chain.models.export_policy(chain.policy_folder(number), folder / "model", chain.tokenizer)
    chain.models.export_reward(chain.reward_folder(number), chain.run.path / "reward_model", chain.tokenizer)
    publish_model(folder / "model", chain.run.path)
    present(chain.run.path)
    return {"num_prompts": len(rows), "sentence": table.sentence}


def answers_of_both(chain: RFTTrainer, rows: Sequence[Mapping[str, Any]]) -> tuple[SampledAnswers, SampledAnswers]:
    """Answers of the SFT and the RFT policy to the same prompts with the same random streams, scored."""
    from rlsft.evaluation import sample_answers, sequence_kl
    from rlsft.rollouts import SamplingParams, TransformersEngine

    args, tokenizer, number = chain.args, chain.tokenizer, chain.args.rounds
    sampling = SamplingParams(
        temperature=args.eval_temperature,
        top_p=args.eval_top_p if args.eval_temperature > 0 else 1.0,
        max_new_tokens=args.max_completion_length,
        seed=args.seed + 1,
    )
    policies = {BEFORE: chain.models.policy(), AFTER: chain.models.policy(chain.policy_folder(number))}
    answers = {
        label: sample_answers(
            TransformersEngine(model, tokenizer, batch_size=args.sample_batch_size),
            tokenizer,
            [row["prompt"] for row in rows],
            model=label,
            sampling=sampling,
            references=[row["references"] for row in rows],
            groups=[row.get("conversation_id") for row in rows],
            max_prompt_length=chain.max_prompt_length(),
            system_prompt=args.system_prompt,
            truncate_prompt=args.truncate_prompt,
        )
        for label, model in policies.items()
    }
    kl = sequence_kl(policies[AFTER], answers[AFTER], pad_token_id=tokenizer.pad_token_id, reference=policies[BEFORE])
    del policies
    score = scorer_of(chain.models.reward(chain.reward_folder(number)), tokenizer, args)
    prompts = [row["prompt"] for row in rows]
    scored = {
        label: drawn.with_values(reward=score(prompts, [g.completion for g in drawn.generations]))
        for label, drawn in answers.items()
    }
    return scored[BEFORE].with_values(kl=[0.0] * len(rows)), scored[AFTER].with_values(kl=kl)


def result_of(run_dir: Path) -> RFTResult:
    """The table and the monitors of a finished run.

    Raises:
        RunError: the evaluation stage has not finished.
    """
    from rlsft.evaluation import Comparison
    from rlsft.trainers.rft.trainer import RFTResult

    try:
        table = json.loads((run_dir / "evaluation" / "table.json").read_text(encoding="utf-8"))
        facts = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{run_dir} has no finished evaluation ({error.filename} is missing)") from None
    rounds = [facts["rounds"][name] for name in sorted(facts["rounds"])]
    return RFTResult(output_dir=run_dir, comparison=Comparison.from_json(table), rounds=rounds)


def summary_renderables(run_dir: Path) -> list[Any]:
    """What the terminal shows at the end: the table, the rounds, five prompts side by side."""
    from rlsft.evaluation import read_generations
    from rlsft.trainers.str_evaluation import side_by_side

    result = result_of(run_dir)
    generations = read_generations(run_dir / "evaluation" / "generations.jsonl")
    return [
        result.comparison.to_rich(),
        rounds_table(result.rounds),
        side_by_side(generations, 5, before=BEFORE, after=AFTER),
    ]


def rounds_table(rounds: Sequence[Mapping[str, Any]]) -> Any:
    """Monitors of every round, and where its time went."""
    from rich.table import Table

    table = Table("round", *COLUMNS.values(), *(f"{kind} [s]" for kind in KINDS), title="rounds")
    for row in rounds:
        cells = [f"{row[name]:.2f}" if name in row else "" for name in COLUMNS]
        times = [f"{row[f'seconds/{kind}']:.0f} ({row[f'share/{kind}']:.0%})" for kind in KINDS]
        table.add_row(str(row["step"]), *cells, *times)
    return table
