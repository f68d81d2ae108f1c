"""The HTML report and the model card: they hold the numbers, escape what users wrote, and bear missing parts."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from rlsft.artifacts import write_json, write_text
from rlsft.errors import ConfigError, DataError, RunError
from rlsft.evaluation import Comparison, build_report, write_model_card
from rlsft.evaluation.cost import duration
from rlsft.evaluation.report import agreement_table


class Page(HTMLParser):
    """Text and tags of a page; fails on tags that do not nest."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(source)
        assert not self.open_tags, f"never closed: {self.open_tags}"

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open_tags or self.open_tags[-1] != "style":
            self.text += data


def page_of(run: Path, **prices) -> Page:
    return Page(build_report(run, **prices).read_text(encoding="utf-8"))


def test_report_holds_the_numbers(plotted_run: Path) -> None:
    page = page_of(plotted_run)
    table = Comparison.from_json(json.loads((plotted_run / "evaluation" / "table.json").read_text(encoding="utf-8")))
    assert table.sentence in page.text
    for row in table.rows:
        for cell in row.cells():
            assert cell in page.text
    for words in ("STR run: my run", "4,321 demonstrations", "smollm2", "rlsft str --seed 7", "torch 2.13.0"):
        assert words in page.text
    assert "sft_learning_rate" in page.text
    assert "0.460 [0.360, 0.561]" in page.text
    assert "Because of 2." in page.text
    assert "Because of 5." not in page.text  # of another prompt
    assert "reward 0.12" in page.text
    assert "has no" not in page.text


def test_report_is_one_file_with_its_images(plotted_run: Path) -> None:
    page = page_of(plotted_run)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5
    assert all(source.startswith("data:image/svg+xml;base64,") for source in images)
    assert not [tag for tag, attributes in page.tags if tag in ("link", "script", "iframe")]
    assert all(attributes["href"].startswith("#") for tag, attributes in page.tags if tag == "a")


def test_what_a_model_wrote_cannot_become_html(plotted_run: Path) -> None:
    source = build_report(plotted_run).read_text(encoding="utf-8")
    assert "<script" not in source
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; $5 {{ 7 * 7 }}" in source


def test_labels_and_cost_come_from_the_users_prices(plotted_run: Path) -> None:
    page = page_of(plotted_run, price_per_hour=3.0, price_per_label=0.25, currency="EUR")
    # 40 pairs, of which 10 hold noise; 2 hours
    assert "30 ranked pairs would each have needed a human label (10 further pairs hold added noise" in page.text
    assert "At EUR 0.25 a label that is EUR 7.50 not spent on labels." in page.text
    assert "At EUR 3.00 an hour the machine cost EUR 6.00." in page.text
    assert "36,000" in page.text  # tokens of sft/done.json
    assert "20" in page.text  # 36000 tokens in 1800 s
    without = page_of(plotted_run)
    assert "EUR" not in without.text
    assert "prices are yours, none is assumed" in without.text
    with pytest.raises(ConfigError, match="price_per_hour must be at least 0 USD, got -1"):
        build_report(plotted_run, price_per_hour=-1)


@pytest.mark.parametrize(
    "part",
    ["evaluation", "metrics.jsonl", "ranked", "run.json", "rlsft_config.yaml", "sft", "evaluation/agreement.json"],
)
def test_report_bears_a_missing_part(plotted_run: Path, part: str) -> None:
    target = plotted_run / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    page = page_of(plotted_run)
    said = {
        "evaluation": "no comparison (evaluation/table.json)",
        "metrics.jsonl": "no metrics (metrics.jsonl)",
        "ranked": "no ranking (ranked/ranked.jsonl)",
        "run.json": "no record of the run (run.json)",
        "evaluation/agreement.json": "Agreement with people was not measured.",
    }
    assert said.get(part, "STR") in page.text


def test_report_draws_plots_that_are_missing(run_dir: Path) -> None:
    assert not (run_dir / "plots").exists()
    images = [tag for tag, _ in page_of(run_dir).tags if tag == "img"]
    assert len(images) == 5


def test_report_of_an_empty_folder_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "This run has no comparison" in page.text
    assert "Not measured." in page.text
    assert "No times were recorded." in page.text
    with pytest.raises(RunError, match="does not exist"):
        build_report(tmp_path / "nowhere")


def test_a_broken_file_is_named(plotted_run: Path) -> None:
    write_text(plotted_run / "run.json", "{")
    with pytest.raises(DataError, match=r"run\.json is not valid JSON"):
        build_report(plotted_run)


def test_agreement_without_prompts_gives_its_reason(plotted_run: Path) -> None:
    write_json(plotted_run / "evaluation" / "agreement.json", {"num_prompts": 0, "reason": "nobody answered twice"})
    assert "Agreement with people: nobody answered twice" in page_of(plotted_run).text


def test_agreement_takes_nested_intervals() -> None:
    table = agreement_table({"textrank": {"top_1": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}}, "note": "proxy"})
    assert table["description"] == "proxy"
    assert table["rows"] == [{"label": "textrank: top 1", "value": "0.500 [0.400, 0.600]", "n": 9, "chance": "–"}]


def test_durations_read_well() -> None:
    assert [duration(s) for s in (4.21, 185, 3725)] == ["4.2 s", "3 min 05 s", "1 h 02 min"]


def test_model_card_is_front_matter_and_numbers(plotted_run: Path) -> None:
    text = write_model_card(
        plotted_run, base_model="HuggingFaceTB/SmolLM2-135M-Instruct", license="apache-2.0"
    ).read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "language": ["en"],
        "license": "apache-2.0",
        "tags": ["rlsft", "str"],
    }
    table = Comparison.from_json(json.loads((plotted_run / "evaluation" / "table.json").read_text(encoding="utf-8")))
    assert table.to_markdown().rstrip() in body
    for words in ("arXiv 2402.18284", "4,321 demonstrations", "40, of which 10 with added noise", "## Limits"):
        assert words in body
    assert "AutoModelForCausalLM.from_pretrained" in body
    assert "top-1: 0.460 [0.360, 0.561], n = 100, by chance 0.062" in body


def test_model_card_keeps_local_paths_out_of_the_metadata(tmp_path: Path) -> None:
    text = write_model_card(tmp_path, base_model=str(tmp_path), dataset="./data/rows.jsonl").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n", 2)[1])
    assert "base_model" not in front
    assert "datasets" not in front
    assert "Not measured." in text
