"""`docs/replication_str.md` from the rows: tables with intervals, paired differences, verdicts, plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.replicate.rows import Row, reported
from bench.replicate_str.claims import CLAIMS, Verdict, difference_of, mean_of, verdicts_of
from bench.replicate_str.judged import BASELINES
from bench.replicate_str.plots import draw_all

NAMES = {
    "full": "full fine-tuning", "full_more": "full, as many more steps", "lora": "LoRA", "adapter": "adapter",
    "bitfit": "BitFit", "str": "STR", "str_noise": "STR + noise", "str_no_isodata": "STR + noise, no ISODATA",
    "str_ours": "STR, our ranker", "str_rloo": "critic-free STR", "sft": "SFT (LoRA)",
}  # fmt: skip
TITLES = {
    "sorting": "Sorting six digits (true reward known)",
    "wordnet": "WordNet questions",
    "dialogues": "Dialogues, small model from scratch",
    "smollm2": "Dialogues, SmolLM2-135M with LoRA",
}
COLUMNS = {  # metric -> heading, digits
    "true_reward": ("true reward", 3), "greedy_reward": ("greedy", 3), "win_rate": ("win rate %", 1),
    "bleu": ("BLEU", 1), "gleu": ("GLEU", 1), "meteor": ("METEOR", 1), "em": ("EM %", 1), "words": ("words", 1),
}  # fmt: skip
BEHAVIOUR = {
    "distinct2": ("distinct-2", 3), "self_bleu": ("self-BLEU", 3), "repetition": ("repetition %", 2),
    "consistency": ("self-consistency", 3), "contradiction": ("contradiction %", 2),
    "pair_accuracy": ("pairs held out", 3), "human_accuracy": ("right over drawn", 3),
}  # fmt: skip
INTRODUCTION = """\
Written by `python -m bench.replicate_str report`; the rows are in `bench/results/replicate_str/`. A number is a mean
over seeds ± half the width of its 95 % interval (Student's t); differences are taken seed by seed, because the methods
of a seed start from one pretrained model. Settings were chosen on seeds from 100 on, which are not reported.
"""
HOW_TO_READ = """\
*held*: the whole interval of the paired difference lies above the mark (0 unless the claim names another); *did not
hold*: it lies below; *undecided*: it contains it. A task is judged by its own number: true reward (0 to 1), METEOR, or
the judge's win rate over fine-tuning's answers in per cent. Of so many verdicts a few are wrong by chance alone: an
interval of 95 % says so of itself.
"""
SWEEP = """\
STR with our ranker on the sorting task, {seeds} seeds: true reward of drawn answers minus that of the fine-tuned policy
it starts from ({start:.3f}). K: optimizer steps of the reward model; beta: KL coefficient, in whitened rewards.
"""
READING = Path(__file__).with_name("reading.md")


def write_report(results: Path, docs: Path) -> Path:
    """Reads every row, draws the plots, writes the page."""
    rows, sweep = gather(results), latest(reported(results / "sweep.jsonl"))
    images = draw_all(rows, sweep, docs / "images")
    target = docs / "replication_str.md"
    target.write_text("\n".join(page(rows, sweep, [path.name for path in images])) + "\n", encoding="utf-8")
    return target


def gather(results: Path) -> list[Row]:
    """The rows of all tasks, with the judge's verdicts in those that have one."""
    judged = {identity(row): row["win_rate"] for row in reported(results / "judged.jsonl")}
    rows = [row for task in TITLES for row in latest(reported(results / f"{task}.jsonl"))]
    found = [row | {"win_rate": judged[identity(row)]} if identity(row) in judged else row for row in rows]
    seeds = {(row["task"], row["seed"]) for row in found if "win_rate" in row}
    return [
        row | {"win_rate": 50.0}  # against its own answers
        if row["method"] == BASELINES.get(row["task"]) and (row["task"], row["seed"]) in seeds
        else row
        for row in found
    ]


def identity(row: Row) -> tuple[str, int, str, str]:
    """What a row is of."""
    return row["task"], row["seed"], row["method"], str(sorted(row["budget"].items()))


def latest(rows: Sequence[Row]) -> list[Row]:
    """Rows of the settings that were measured last: a mean over two budgets would be of nothing."""
    return [row for row in rows if row["budget"] == rows[-1]["budget"]]


def page(rows: list[Row], sweep: list[Row], images: list[str]) -> Iterator[str]:
    """The lines of the report."""
    yield "# Does STR beat fine-tuning? The table of arXiv 2402.18284 at small scale\n"
    yield INTRODUCTION
    if READING.exists():
        yield READING.read_text(encoding="utf-8")
    yield "## Claims and verdicts\n"
    yield HOW_TO_READ
    yield from claim_table(verdicts_of(rows))
    yield from (f"![{name}](images/{name})\n" for name in images)
    for task, title in TITLES.items():
        yield from task_section(rows, task, title)
    yield from sweep_section(sweep)


def claim_table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """One line a claim, one column a task and the number it is judged by."""
    columns = list(dict.fromkeys((verdict.task, verdict.metric) for verdict in verdicts))
    heads = [f"{task}, {(COLUMNS | BEHAVIOUR)[metric][0]}" for task, metric in columns]
    yield "| claim | said by | " + " | ".join(heads) + " |"
    yield "|---|---|" + "---|" * len(columns)
    known = {(verdict.claim, verdict.task, verdict.metric): verdict for verdict in verdicts}
    for claim in (claim for claim in CLAIMS if any(verdict.claim is claim for verdict in verdicts)):
        cells = []
        for task, metric in columns:
            verdict = known.get((claim, task, metric))
            digits = 3 if metric == "true_reward" else 2
            cells.append(f"**{verdict.word}** {verdict.difference.text(digits)}" if verdict else "–")
        yield f"| {claim.text} | {claim.source} | " + " | ".join(cells) + " |"
    yield ""


def task_section(rows: list[Row], task: str, title: str) -> Iterator[str]:
    """Two tables: what answers are worth, how they behave."""
    own = [row for row in rows if row["task"] == task]
    if not own:
        return
    methods = [name for name in NAMES if any(row["method"] == name for row in own)]
    seeds = {name: len({row["seed"] for row in own if row["method"] == name}) for name in methods}
    seconds = statistics.fmean(row["seconds"] for row in own)
    yield f"## {title}\n"
    yield f"Seeds a method: {', '.join(f'{NAMES[name]} {count}' for name, count in seeds.items())}."
    yield f"A training took {seconds:.0f} s in the mean, at the lowest priority of a busy machine.\n"
    for columns in (COLUMNS, BEHAVIOUR):
        yield from table(own, task, methods, columns)
    yield from difference_table(own, task, methods)
    settings = ", ".join(f"{name} {value}" for name, value in own[-1]["budget"].items())
    yield f"Settings: {settings}.\n"


def table(rows: list[Row], task: str, methods: list[str], columns: dict[str, tuple[str, int]]) -> Iterator[str]:
    """Means with intervals; a column that no method has is left out."""
    known = [metric for metric in columns if any(metric in row for row in rows)]
    yield "| method | " + " | ".join(columns[metric][0] for metric in known) + " |"
    yield "|---|" + "---|" * len(known)
    for name in methods:
        means = [mean_of(rows, task, metric, name) for metric in known]
        cells = [mean.text(columns[metric][1]) if mean else "–" for metric, mean in zip(known, means, strict=True)]
        yield f"| {NAMES[name]} | " + " | ".join(cells) + " |"
    yield ""


def difference_table(rows: list[Row], task: str, methods: list[str]) -> Iterator[str]:
    """Paired differences to fine-tuning; bold where the interval leaves 0 out."""
    control = "sft" if task == "smollm2" else "full"
    known = [metric for metric in COLUMNS if metric != "win_rate" and any(metric in row for row in rows)]
    yield f"Paired differences to {NAMES[control]} (bold: the interval leaves 0 out):\n"
    yield "| method | " + " | ".join(COLUMNS[metric][0] for metric in known) + " |"
    yield "|---|" + "---|" * len(known)
    for name in (name for name in methods if name != control):
        cells = []
        for metric in known:
            found = difference_of(rows, task, metric, name, control)
            text = found.text(COLUMNS[metric][1] + 1) if found else "–"
            cells.append(f"**{text}**" if found and found.count > 1 and found.excludes_zero else text)
        yield f"| {NAMES[name]} | " + " | ".join(cells) + " |"
    yield ""


def sweep_section(sweep: list[Row]) -> Iterator[str]:
    """True reward over reward steps and KL coefficient."""
    if not sweep:
        return
    from bench.replicate_str.plots import sweep_cells

    steps, kls, cells = sweep_cells(sweep)
    seeds = len({row["seed"] for row in sweep})
    start = statistics.fmean({row["seed"]: row["start_reward"] for row in sweep}.values())
    yield "## The balance of reward and policy: K × beta\n"
    yield SWEEP.format(seeds=seeds, start=start)
    yield "| K | " + " | ".join(f"beta {kl}" for kl in kls) + " | reward model, right over drawn |"
    yield "|---|" + "---|" * (len(kls) + 1)
    for step in steps:
        accuracy = statistics.fmean(row["human_accuracy"] for row in sweep if row["reward_steps"] == step)
        yield f"| {step} | " + " | ".join(cells[step, kl].text(3) for kl in kls) + f" | {accuracy:.3f} |"
    yield ""
