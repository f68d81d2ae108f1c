"""`docs/replication_irl.md` from the rows: verdicts, plots, tables with intervals, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.replicate.intervals import Interval
from bench.replicate.rows import Row, reported
from bench.replicate_irl.claims import (
    CLAIMS,
    NAMES,
    PLACES,
    REGIMES,
    ROBUST,
    Claim,
    Place,
    difference_of,
    mean_of,
    robust_verdict,
    robustness,
    verdict,
)
from bench.replicate_irl.judged import BASELINE, TASKS
from bench.replicate_irl.plots import draw_all

CONTROL = "sft_steps"
COLUMNS = {  # metric -> heading, digits
    "reward": ("true reward", 3), "exact": ("all right", 3), "greedy_reward": ("greedy reward", 3),
    "win_rate": ("win rate %", 1), "loglik": ("log-lik. (nats a token)", 3), "gap": ("gap (nats)", 2),
    "bleu": ("BLEU", 2), "meteor": ("METEOR", 2), "distinct": ("distinct answers", 3), "distinct2": ("distinct-2", 3),
    "repetition": ("repetition %", 2), "words": ("words", 1), "seconds": ("seconds", 0),
}  # fmt: skip
HEAD = """\
# Does a learned reward beat fine-tuning? RFT and IRFT (arXiv 2405.17888) at small scale

Written by `python -m bench.replicate_irl report` from the rows in `bench/results/replicate_irl/`; `python -m
bench.replicate_irl run` and `… judge` make them again. A number is the mean over seeds ± half its 95 % interval
(Student's t). Differences are taken seed by seed: all methods of a seed start from one policy. Settings were chosen on
seeds from 100 on, which are not reported.
"""
READING = Path(__file__).with_name("reading.md")


def write_report(results: Path, docs: Path) -> Path:
    """Reads every row, draws the plots, writes the page."""
    rows = gather(results)
    images = [path.name for path in draw_all(rows, docs / "images")]
    target = docs / "replication_irl.md"
    target.write_text("\n".join(page(rows, images)).rstrip() + "\n", encoding="utf-8")
    return target


def gather(results: Path) -> list[Row]:
    """The rows of all experiments, newest budget of a condition, with the judge's verdicts where there are some."""
    judged = {identity(row): row["win_rate"] for row in reported(results / "judged.jsonl")}
    rows = [row for task in ("sorting", *TASKS) for row in latest(reported(results / f"{task}.jsonl"))]
    seeds = {(task, seed) for task, seed, *_ in judged}
    found = []
    for row in rows:
        extra = {"loglik": -row["nll"]}
        if identity(row) in judged:
            extra["win_rate"] = judged[identity(row)]
        elif row["method"] == BASELINE and (row["task"], row["seed"]) in seeds:
            extra["win_rate"] = 50.0  # against its own answers
        found.append(row | extra)
    return found


def identity(row: Row) -> tuple[str, int, str, str]:
    """What a judged row is of."""
    return row["task"], row["seed"], row["method"], str(sorted(row["budget"].items()))


def latest(rows: Sequence[Row]) -> list[Row]:
    """Of each method and condition the settings that were measured last: a mean over two would be of nothing."""
    newest = {condition(row): row["budget"] for row in rows}
    return [row for row in rows if row["budget"] == newest[condition(row)]]


def condition(row: Row) -> tuple[object, ...]:
    """What rows are averaged within."""
    return row["task"], row.get("regime"), row.get("bad"), row["method"]


def page(rows: list[Row], images: list[str]) -> Iterator[str]:
    """The lines of the report."""
    yield HEAD
    if READING.exists():
        yield READING.read_text(encoding="utf-8")
    yield "## Claims and verdicts\n"
    yield "*held*: the whole interval of the difference lies above 0; *did not hold*: it lies below; *undecided*: it"
    yield "contains 0. Sorting is judged by the true reward of drawn answers (0 to 1), dialogues by the judge's win"
    yield "rate over the answers of SFT of equal steps (difference to 50 %), Figure 1 by the gap in nats an answer.\n"
    known = [place for place in PLACES if place.rows(rows)]
    yield from claim_table(rows, known)
    yield from robustness_table(rows)
    yield from (f"![{name}](images/{name})\n" for name in images)
    for place in known:
        yield from place_section(place.rows(rows), place)


def claim_table(rows: list[Row], places: Sequence[Place]) -> Iterator[str]:
    """One line a claim, one column a place."""
    heads = [f"{place.short} ({COLUMNS[place.metric_of(rows)][0]})" for place in places]
    yield "| claim | " + " | ".join(heads) + " |"
    yield "|---|" + "---|" * len(places)
    for claim in CLAIMS:
        yield f"| {claim.text} | " + " | ".join(cell(rows, claim, place) for place in places) + " |"
    yield ""


def cell(rows: list[Row], claim: Claim, place: Place) -> str:
    """Verdict and difference. The gap is the paper's figure on right answers only: other places have no say in it."""
    if claim.metric == "gap" and place.facts.get("bad"):
        return "–"
    metric = claim.metric or place.metric_of(rows)
    found = difference_of(place.rows(rows), metric, claim.method, claim.control)
    if found is None:
        return "–"
    return f"**{verdict(found)}** {found.text(COLUMNS[metric][1])}"


def robustness_table(rows: list[Row]) -> Iterator[str]:
    """Does a method gain over SFT where demonstrations are bad, and more than where none is?"""
    yield "Robust to bad data: how much more (true reward) a method gains over SFT of equal steps when demonstrations"
    yield "are bad than when none is. *held*: it beats SFT there, and by more than on clean data. A method that stands"
    yield "still loses less to an SFT that has less to gain from bad data: a number above 0 that is no robustness.\n"
    columns = [(regime, bad) for regime in REGIMES for bad in (0.2, 0.4)]
    columns = [(regime, bad) for regime, bad in columns if any(robustness(rows, regime, name, bad) for name in ROBUST)]
    yield "| method | " + " | ".join(f"{regime}, {100 * bad:.0f} % bad" for regime, bad in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name in ROBUST:
        found = [robustness(rows, regime, name, bad) for regime, bad in columns]
        words = [robust_verdict(rows, regime, name, bad) for regime, bad in columns]
        cells = (f"**{word}** {x.text()}" if x else "–" for x, word in zip(found, words, strict=True))
        yield f"| {NAMES[name]} | " + " | ".join(cells) + " |"
    yield ""


def place_section(rows: list[Row], place: Place) -> Iterator[str]:
    """Means, then paired differences to SFT of equal steps."""
    methods = [name for name in NAMES if any(row["method"] == name for row in rows)]
    metrics = [name for name in COLUMNS if any(name in row for row in rows)]
    yield f"## {place.title}\n"
    yield from table(methods, metrics, lambda metric, name: mean_of(rows, metric, name))
    yield f"Paired differences to {NAMES[CONTROL]} (bold: the interval leaves 0 out):\n"
    differing = [name for name in metrics if name != "seconds"]
    others = [name for name in methods if name != CONTROL]
    yield from table(others, differing, lambda metric, name: difference_of(rows, metric, name, CONTROL), bold=True)
    if "start" in methods:
        yield "Gains over the start:\n"
        others = [name for name in methods if name != "start"]
        yield from table(others, differing, lambda metric, name: difference_of(rows, metric, name, "start"), bold=True)
    settings = {name: value for row in rows for name, value in row["budget"].items()}
    yield "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".\n"


def table(
    methods: Sequence[str], metrics: Sequence[str], value: Callable[[str, str], Interval | None], *, bold: bool = False
) -> Iterator[str]:
    """A line a method, with its number of seeds."""

    yield "| method | seeds | " + " | ".join(COLUMNS[metric][0] for metric in metrics) + " |"
    yield "|---|---|" + "---|" * len(metrics)
    for name in methods:
        found = [value(metric, name) for metric in metrics]
        seeds = max((x.count for x in found if x), default=0)
        cells = [text_of(x, COLUMNS[metric][1], bold) for x, metric in zip(found, metrics, strict=True)]
        yield f"| {NAMES[name]} | {seeds} | " + " | ".join(cells) + " |"
    yield ""


def text_of(found: Interval | None, digits: int, bold: bool) -> str:
    """One number with its interval."""
    if found is None:
        return "–"
    text = found.text(digits)
    return f"**{text}**" if bold and found.count > 1 and found.excludes_zero else text
