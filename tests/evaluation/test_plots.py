"""Plots exist, show what they should, survive any script, and two runs write the same bytes."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from rlsft.artifacts import write_jsonl
from rlsft.errors import DataError, RunError
from rlsft.evaluation import Generation, compare, plot_comparison, plot_ranking, plot_run
from rlsft.evaluation.figures import CLUSTERS, snippet
from tests.evaluation.conftest import write_ranked

SVG = "{http://www.w3.org/2000/svg}"


def svg_of(path: Path) -> tuple[str, int]:
    """All text of an SVG and the number of its paths."""
    root = ElementTree.parse(path).getroot()
    texts = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    return "\n".join(texts), len(list(root.iter(f"{SVG}path")))


def test_a_run_gets_every_plot_as_svg_and_png(run_dir: Path) -> None:
    paths = plot_run(run_dir)
    stems = ["reward", "kl", "loss", "before_after", "ranking"]
    assert sorted(p.name for p in paths) == sorted(f"{s}.{kind}" for s in stems for kind in ("svg", "png"))
    for path in paths:
        assert path.parent == run_dir / "plots"
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
            assert path.stat().st_size > 8_000
        else:
            assert svg_of(path)[1] > 10
    text = svg_of(run_dir / "plots" / "loss.svg")[0]
    for words in ("Supervised fine-tuning", "loss (nats a token)", "held out", "PPO step", "clipped value loss"):
        assert words in text
    assert "KL coefficient" in svg_of(run_dir / "plots" / "kl.svg")[0]


def test_two_runs_write_the_same_svg(run_dir: Path, plotted_run: Path) -> None:
    stored = {path.name: path.read_bytes() for path in (plotted_run / "plots").glob("*.svg")}
    drawn = {path.name: path.read_bytes() for path in plot_run(run_dir) if path.suffix == ".svg"}
    assert drawn == stored
    assert len(stored) == 5


def test_a_curve_goes_through_its_points_and_skips_null(tmp_path: Path) -> None:
    rows = [{"stage": "ppo", "step": s, "objective/scores": None if s == 2 else s * 1.0} for s in range(5)]
    write_jsonl(tmp_path / "metrics.jsonl", rows)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "ppo", "st')  # a kill cut the last line
    paths = plot_run(tmp_path)
    assert [p.name for p in paths] == ["reward.svg", "reward.png"]
    root = ElementTree.parse(paths[0]).getroot()
    line = next(
        node.get("d")
        for node in root.iter(f"{SVG}path")
        if "stroke: #0072b2" in (node.get("style") or "").lower() and "stroke-linejoin" not in (node.get("d") or "")
    )
    points = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", line or "")]
    assert len(points) == 4
    # y = x: the slope between any two points is that between the first and the last
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(points)]
    assert slopes == pytest.approx([slopes[0]] * 3, rel=1e-3)
    assert slopes[0] < 0  # SVG counts y downwards


def test_ranking_shows_scores_clusters_and_representatives(plotted_run: Path) -> None:
    path = plotted_run / "plots" / "ranking.svg"
    text, _ = svg_of(path)
    assert "I love chess, do you?" in text
    assert "i like chess $x_1$" in text  # no formula is made of a user's text
    assert "Not really <b>." in text
    assert "0.4000" in text
    assert text.count("★") == 2
    assert "cluster 0 (2)" in text
    assert "Ranked answers to: B: do you like chess?" in text
    for colour in CLUSTERS[:2]:
        assert f"fill: {colour.lower()}" in path.read_text(encoding="utf-8").lower()


def test_japanese_text_is_whole_in_the_svg_and_harmless_in_the_png(tmp_path: Path) -> None:
    write_ranked(tmp_path, language="ja")
    svg, png = plot_run(tmp_path)  # every warning is an error here
    text, _ = svg_of(svg)
    assert "今日はとても良い天気ですね😀" in text
    assert "□" not in text
    assert png.stat().st_size > 8_000


def test_control_characters_and_long_answers_do_not_break_the_svg(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "bell \x07 and \x00 zero\n" + "word " * 200, "score": 1.0}]
    rows.append({"prompt": "p", "completion": "", "score": 0.0})
    svg, _ = plot_ranking(rows, tmp_path / "ranking")
    text, _ = svg_of(svg)
    assert "bell and zero word" in text
    assert "…" in text
    assert "(empty answer)" in text


def test_comparison_plot_leaves_out_what_has_no_spread(
    answers: Callable[..., list[Generation]], tmp_path: Path
) -> None:
    table = compare(answers("SFT", keep=0.6), answers("STR", keep=0.2), wordnet=False, num_resamples=100)
    svg, _ = plot_comparison(table, tmp_path / "before_after")
    text, _ = svg_of(svg)
    assert "METEOR (%)" in text
    assert "worse" in text
    assert "Exact match" not in text  # 0 on both sides
    assert "SFT and STR on 40 held-out prompts" in text


def test_nothing_to_plot_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to plot in .* expected metrics\.jsonl"):
        plot_run(tmp_path)
    with pytest.raises(RunError, match="does not exist; give the --output_dir of a run"):
        plot_run(tmp_path / "nowhere")
    with pytest.raises(DataError, match="got none"):
        plot_ranking([], tmp_path / "x")
    with pytest.raises(DataError, match=r"ranked row 0 needs 'completion' and a number 'score', has \['completion'\]"):
        plot_ranking([{"completion": "a"}], tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "columns", "lines", "expected"),
    [
        ("short", 10, 1, "short"),
        ("one two three four", 9, 1, "one two…"),
        ("one two three four", 9, 2, "one two\nthree…"),
        ("一二三四五", 10, 1, "一二三四五"),
        ("一二三四五六", 10, 1, "一二三四…"),
        ("", 10, 2, ""),
    ],
)
def test_snippets_fit_their_columns(text: str, columns: int, lines: int, expected: str) -> None:
    assert snippet(text, columns, lines=lines) == expected
