"""One self-contained HTML page about a run: verdict, numbers, samples, curves, ranking, time, labels and cost."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlsft.artifacts import write_text
from rlsft.errors import DataError
from rlsft.evaluation.comparison import Comparison
from rlsft.evaluation.cost import Prices, cost_notes, duration, stage_costs
from rlsft.evaluation.plots import plot_run
from rlsft.evaluation.records import Generation
from rlsft.evaluation.report_template import REPORT_HTML
from rlsft.evaluation.run_files import RunFiles
from rlsft.metrics import Interval

_PLOTS = {
    "before_after": [("before_after", "Metrics before and after with their intervals")],
    "curves": [("reward", "Reward curves"), ("kl", "KL to the reference"), ("loss", "Loss curves by stage")],
    "ranking": [("ranking", "The ranked answers to one prompt")],
}


def build_report(
    run_dir: str | os.PathLike[str],
    *,
    price_per_hour: float | None = None,
    price_per_label: float | None = None,
    currency: str = "USD",
    num_samples: int = 12,
) -> Path:
    """Write `report.html` into `run_dir` and return its path. What the run lacks is named, not an error.

    Args:
        run_dir: the folder that a run left.
        price_per_hour: of the machine, in `currency`; None = no amount.
        price_per_label: of one human judgement of a pair; None = no amount.
        currency: its name.
        num_samples: prompts shown side by side.

    Raises:
        RunError: the folder does not exist.
        ConfigError: a price is negative.
        DataError: a file of the run is broken.
    """
    from jinja2 import Environment, StrictUndefined

    run = RunFiles(run_dir)
    prices = Prices(price_per_hour, price_per_label, currency)
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(REPORT_HTML)
    return write_text(run.path / "report.html", page.render(_context(run, prices, num_samples)))


def _context(run: RunFiles, prices: Prices, num_samples: int) -> dict[str, Any]:
    facts, settings, comparison = run.facts(), run.settings(), run.comparison()
    generations = run.generations()
    agreement = agreement_table(run.agreement())
    seconds = facts.get("stage_seconds") or {}
    total = sum(value for value in seconds.values() if isinstance(value, (int, float)))
    images = _images(run)
    num_pairs, num_noisy = run.num_pairs()
    stages = stage_costs(seconds, run.stage_tokens(), prices)
    example = run.ranked_example()
    return {
        "title": f"{facts.get('method') or 'rlsft'} run: {run.path.resolve().name}",
        "subtitle": " · ".join(_subtitle(facts)),
        "comparison": comparison,
        "tone": _tone(comparison),
        "missing": list(_missing(run, comparison, generations)),
        "cards": _cards(comparison, total, num_pairs, stages),
        "images": images,
        "samples": _samples(generations, num_samples),
        "sample_labels": _labels(generations),
        "num_sample_prompts": len({row.prompt for row in generations}),
        "ranking_facts": _ranking_facts(run, num_pairs, num_noisy),
        "agreement": agreement,
        "explanations": run.explanations(example),
        "stages": stages,
        "show_cost": prices.per_hour is not None,
        "cost_notes": cost_notes(total, num_pairs, num_noisy, prices),
        "setup": list(_setup(facts, settings)),
        "settings": sorted(settings.items()),
    }


def agreement_table(value: Mapping[str, Any]) -> dict[str, Any]:
    """Description and rows (label, value, n, chance, as text) of an agreement.json.

    Takes the documented `rows`, and any nesting of mappings whose leaves hold `mean`, `low` and `high`.
    """
    rows = [
        {
            "label": label,
            "value": Interval(item["mean"], item["low"], item["high"], int(item.get("n") or 0)).format(3),
            "n": item.get("n") or "–",
            "chance": f"{item['chance']:.3f}" if isinstance(item.get("chance"), (int, float)) else "–",
        }
        for label, item in _interval_leaves(value, "")
    ]
    description = value.get("description") or value.get("reason") or value.get("note") or ""
    return {"description": description, "rows": rows}


def _interval_leaves(value: Any, label: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, list):
        for item in value:
            yield from _interval_leaves(item, label)
    if not isinstance(value, Mapping):
        return
    if all(isinstance(value.get(key), (int, float)) for key in ("mean", "low", "high")):
        yield str(value.get("label") or label), value
        return
    name = value.get("label") or value.get("name")
    here = f"{label}: {name}" if name and label else (name or label)
    for key, item in value.items():
        if isinstance(item, (Mapping, list)):
            inner = "" if key in ("rows", "metrics") else str(key).replace("_", " ")
            yield from _interval_leaves(item, ": ".join(part for part in (here, inner) if part))


def _subtitle(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts.get("created"):
        yield f"started {facts['created']}"
    if facts.get("model"):
        yield f"model {facts['model']}"
    if facts.get("num_train_examples"):
        yield f"{facts['num_train_examples']:,} demonstrations"


def _tone(comparison: Comparison | None) -> str:
    verdicts = {row.verdict for row in comparison.rows} if comparison else set()
    return "worse" if "worse" in verdicts else "better" if "better" in verdicts else ""


def _missing(run: RunFiles, comparison: Comparison | None, generations: list[Generation]) -> Iterator[str]:
    files = {
        "comparison (evaluation/table.json)": comparison is not None,
        "answers (evaluation/generations.jsonl)": bool(generations),
        "metrics (metrics.jsonl)": (run.path / "metrics.jsonl").is_file(),
        "ranking (ranked/ranked.jsonl)": (run.path / "ranked" / "ranked.jsonl").is_file(),
        "record of the run (run.json)": (run.path / "run.json").is_file(),
    }
    yield from (name for name, is_there in files.items() if not is_there)


def _cards(
    comparison: Comparison | None, total_seconds: float, num_pairs: int | None, stages: list[Any]
) -> list[dict[str, str]]:
    cards = []
    for key in ("kpi", "reward", "meteor", "bleu"):
        row = next((row for row in comparison.rows if row.key == key), None) if comparison else None
        if comparison and row is not None and math.isfinite(row.before.mean) and math.isfinite(row.after.mean):
            value = f"{row.before.mean:.{row.digits}f} → {row.after.mean:.{row.digits}f}"
            cards.append({"value": value, "label": f"{row.name}{f' ({row.unit})' if row.unit else ''}: {row.verdict}"})
    if stages:
        cards.append({"value": duration(total_seconds), "label": "wall time of all stages"})
    if num_pairs is not None:
        cards.append({"value": f"{num_pairs:,}", "label": "pairs learned from, none labelled by people"})
    return cards


def _images(run: RunFiles) -> dict[str, list[dict[str, str]]]:
    folder = run.path / "plots"
    if not any(folder.glob("*.svg")):
        try:
            plot_run(run.path)
        except DataError:
            return {section: [] for section in _PLOTS}
    return {
        section: [
            {"src": _data_uri(folder / f"{name}.svg"), "alt": alt}
            for name, alt in plots
            if (folder / f"{name}.svg").is_file()
        ]
        for section, plots in _PLOTS.items()
    }


def _data_uri(path: Path) -> str:
    # an image of its own: its ids and styles cannot meet those of the page, and no text in it can run as script
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _labels(generations: list[Generation]) -> list[str]:
    return list(dict.fromkeys(row.model for row in generations))


def _samples(generations: list[Generation], limit: int) -> list[dict[str, Any]]:
    labels = _labels(generations)
    by_prompt: dict[str, dict[str, Generation]] = {}
    for row in generations:
        by_prompt.setdefault(row.prompt, {}).setdefault(row.model, row)
    return [
        {
            "prompt": prompt,
            "reference": next(iter(next(iter(answers.values())).references), ""),
            "answers": [answers.get(label) for label in labels],
        }
        for prompt, answers in list(by_prompt.items())[:limit]
    ]


def _ranking_facts(run: RunFiles, num_pairs: int | None, num_noisy: int) -> str:
    num_ranked = run.num_ranked()
    if num_ranked is None:
        return ""
    pairs = "" if num_pairs is None else f" and gave {num_pairs:,} pairs ({num_noisy:,} with added noise)"
    return f"{num_ranked:,} answers were ranked{pairs}."


def _setup(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, key in (("Method", "method"), ("Model", "model"), ("Seed", "seed"), ("Started", "created")):
        value = facts.get(key, settings.get(key))
        if value is not None:
            yield name, value
    for name, keys in (
        ("Data", ("dataset_name", "train_file", "data", "dataset")),
        ("Language", ("language",)),
        ("Sentence encoder", ("encoder",)),
    ):
        value = next((settings[key] for key in keys if settings.get(key)), None)
        if value is not None:
            yield name, value
    if facts.get("argv"):
        yield "Command", " ".join(str(part) for part in facts["argv"])
    if facts.get("git"):
        git = facts["git"]
        yield "Source", ", ".join(f"{k} {v}" for k, v in git.items()) if isinstance(git, Mapping) else git
    if facts.get("versions"):
        yield "Versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
