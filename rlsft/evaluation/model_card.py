"""The README.md of an output folder: what the model is, how it was made, its numbers, its limits, how to load it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlsft.artifacts import write_text
from rlsft.evaluation.report import agreement_table
from rlsft.evaluation.run_files import RunFiles

_PAPERS = {
    "STR": ("2402.18284", "self-supervised text ranking: sample, TextRank, ISODATA, reward model, PPO"),
    "RFT": ("2405.17888", "reward learning from demonstrations"),
    "IRFT": ("2405.17888", "implicit reward learning from demonstrations"),
}


def write_model_card(
    output_dir: str | os.PathLike[str],
    *,
    base_model: str | None = None,
    dataset: str | None = None,
    method: str | None = None,
    license: str | None = None,
) -> Path:
    """Write the model card of a run as `README.md` and return its path.

    Facts come from run.json, rlsft_config.yaml and evaluation/ of the folder; arguments override them. A base model
    or data set enters the metadata only when it looks like a name on a model hub: a local path means nothing to others.

    Args:
        output_dir: the folder that holds the model.
        base_model: the model that was fine-tuned.
        dataset: the demonstrations.
        method: "STR", "SFT", "PPO", …
        license: identifier for the metadata, such as "apache-2.0"; None leaves it open, because the base model's
            licence decides.

    Raises:
        RunError: the folder does not exist.
    """
    run = RunFiles(output_dir)
    facts, settings = run.facts(), run.settings()
    named = {
        "base": base_model or facts.get("model") or settings.get("model_name_or_path") or settings.get("model"),
        "dataset": dataset or settings.get("dataset_name") or settings.get("train_file"),
        "method": method or facts.get("method"),
        "license": license,
        "language": settings.get("language"),
    }
    lines = [_front_matter(named), "", f"# {run.path.resolve().name}", "", *_introduction(named)]
    for section in (
        _data(named, facts),
        _method(run, named, facts, settings),
        _numbers(run),
        _limits(named),
        _loading(),
    ):
        lines += ["", *section]
    return write_text(run.path / "README.md", "\n".join(lines).rstrip() + "\n")


def _front_matter(named: Mapping[str, Any]) -> str:
    import yaml

    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if is_hub_name(named["base"]):
        metadata["base_model"] = named["base"]
    if is_hub_name(named["dataset"]):
        metadata["datasets"] = [named["dataset"]]
    if named["language"]:
        metadata["language"] = [named["language"]]
    if named["license"]:
        metadata["license"] = named["license"]
    metadata["tags"] = ["rlsft", *([str(named["method"]).lower()] if named["method"] else [])]
    return "---\n" + yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True) + "---"


def is_hub_name(name: Any) -> bool:
    """Whether `name` reads `owner/name` and is no local path."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        return False
    return not Path(name).exists()


def _introduction(named: Mapping[str, Any]) -> Iterator[str]:
    base = f"`{named['base']}`" if named["base"] else "a causal language model"
    paper, description = _PAPERS.get(str(named["method"]).upper(), (None, None))
    how = f" by {named['method']}" if named["method"] else ""
    how += f" ({description}, arXiv {paper})" if paper else ""
    yield f"This model is {base}, fine-tuned{how} with `rlsft`."


def _data(named: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Data"
    yield ""
    count = facts.get("num_train_examples")
    size = f", {count:,} demonstrations" if isinstance(count, int) else ""
    yield f"Demonstrations: {named['dataset'] or 'not recorded'}{size}. No human preference labels were used."


def _method(
    run: RunFiles, named: Mapping[str, Any], facts: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    if named["method"]:
        yield f"- Method: {named['method']}"
    num_pairs, num_noisy = run.num_pairs()
    if num_pairs is not None:
        yield f"- Ranked pairs for the reward model: {num_pairs:,}, of which {num_noisy:,} with added noise"
    seconds = facts.get("stage_seconds") or {}
    if seconds:
        yield "- Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    if facts.get("versions"):
        yield "- Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    if facts.get("seed") is not None:
        yield f"- Seed: {facts['seed']}"
    if settings:
        yield "- All settings: `rlsft_config.yaml` in this folder"


def _numbers(run: RunFiles) -> Iterator[str]:
    yield "## Numbers"
    yield ""
    comparison = run.comparison()
    if comparison is None:
        yield "Not measured."
        return
    yield from comparison.to_markdown().rstrip().split("\n")
    agreement = agreement_table(run.agreement())
    if agreement["rows"]:
        yield ""
        yield f"Agreement of the ranking with people. {agreement['description']}".rstrip()
        yield ""
        for row in agreement["rows"]:
            chance = "" if row["chance"] == "–" else f", by chance {row['chance']}"
            yield f"- {row['label']}: {row['value']}, n = {row['n']}{chance}"


def _limits(named: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits"
    yield ""
    method = str(named["method"]).upper()
    if method == "RFT":
        yield "- The reward was learned by telling the demonstrations from the model's own answers, not from people's"
        yield "  judgement: it can favour whatever sets the two apart, length and style included. A higher reward alone"
        yield "  proves nothing."
    elif method != "SFT":
        yield "- The reward was learned from the model's own answers, not from people's judgement: it favours what"
        yield "  most answers share, so that generic replies and common errors can be reinforced. A higher reward alone"
        yield "  proves nothing."
    yield "- The numbers hold for the held-out prompts of this data and for the sampling settings of this run."
    yield "- Biases and errors of the base model and of the demonstrations remain; nothing here tests safety."


def _loading() -> Iterator[str]:
    yield "## How to load it"
    yield ""
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield 'folder = "."  # this folder'
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    yield "model = AutoModelForCausalLM.from_pretrained(folder)"
    yield "```"
