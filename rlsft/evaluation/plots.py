"""Plots of a run: reward, KL and loss curves, metrics before and after, the ranked answers to one prompt."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsft.errors import DataError
from rlsft.evaluation.comparison import Comparison, MetricRow
from rlsft.evaluation.figures import (
    AFTER,
    BEFORE,
    BLUE,
    CLUSTERS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    figure_with_axes,
    save,
    snippet,
)
from rlsft.evaluation.run_files import RunFiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_VERDICT_COLOUR = {"better": GREEN, "worse": RED}


@dataclass(frozen=True)
class _Line:
    key: str  # in metrics.jsonl
    label: str
    colour: str


@dataclass(frozen=True)
class _Panel:
    stage: str
    title: str
    y_label: str
    lines: tuple[_Line, ...]
    right: _Line | None = None  # drawn on an axis of its own


_REWARD = (
    _Panel(
        "ppo",
        "Reward during PPO",
        "reward (learned scale)",
        # not beside it: objective/rlhf_reward, which is on the whitened scale
        (_Line("objective/scores", "reward of the answers", BLUE),),
    ),
    _Panel(
        "reward",
        "Reward model: right about pairs",
        "accuracy (share of pairs)",
        (_Line("accuracy", "training", BLUE), _Line("eval_accuracy", "held out", ORANGE)),
    ),
    _Panel(
        "round",
        "Reward of held-out answers by round",
        "reward (that round's scale)",
        (_Line("policy/reward_before", "before the step", GREY), _Line("policy/reward_after", "after", BLUE)),
    ),
    _Panel(
        "round",
        "Reward model by round",
        "share of held-out pairs",
        (_Line("reward/accuracy", "right", BLUE), _Line("reward/saturation", "certain", ORANGE)),
    ),
)
_KL = (
    _Panel(
        "ppo",
        "Distance from the reference policy",
        "KL (nats an answer)",
        (_Line("objective/kl", "KL to the reference", BLUE),),
        _Line("objective/kl_coef", "KL coefficient", ORANGE),
    ),
    _Panel(
        "ppo",
        "Size of the policy steps",
        "importance ratio (1 = no change)",
        (_Line("val/ratio", "mean ratio to the sampling policy", GREEN),),
    ),
    _Panel(
        "round",
        "Distance from the reference by round",
        "KL (nats an answer)",
        (_Line("policy/kl", "KL after the step", BLUE),),
    ),
)
_LOSS = (
    _Panel(
        "sft",
        "Supervised fine-tuning",
        "loss (nats a token)",
        (_Line("loss", "training", BLUE), _Line("eval_loss", "held out", ORANGE)),
    ),
    _Panel(
        "reward",
        "Reward model",
        "pairwise loss (nats a pair)",
        (_Line("loss", "training", BLUE), _Line("eval_loss", "held out", ORANGE)),
    ),
    _Panel("ppo", "PPO: policy", "clipped policy loss", (_Line("loss/policy_avg", "policy", BLUE),)),
    _Panel("ppo", "PPO: value", "clipped value loss", (_Line("loss/value_avg", "value", BLUE),)),
)
_CURVES = {"reward": _REWARD, "kl": _KL, "loss": _LOSS}


def plot_run(run_dir: str | os.PathLike[str]) -> list[Path]:
    """Write what `run_dir` holds as plots/*.svg and *.png: curves, metrics before and after, one explained
    ranking.

    Returns the paths; what the run has not measured has no plot.

    Raises:
        DataError: the folder holds nothing to plot.
    """
    run = RunFiles(run_dir)
    folder = run.path / "plots"
    metrics = run.metrics()
    paths: list[Path] = []
    for name, panels in _CURVES.items():
        drawable = [panel for panel in panels if any(_points(metrics, panel.stage, line) for line in panel.lines)]
        if drawable:
            paths += save(lambda shown=drawable: _curves(metrics, shown), folder / name)  # type: ignore[misc]
    comparison = run.comparison()
    if comparison is not None:
        paths += plot_comparison(comparison, folder / "before_after")
    rows = run.ranked_example()
    if rows:
        paths += plot_ranking(rows, folder / "ranking")
    if not paths:
        raise DataError(
            f"nothing to plot in {run.path}: expected metrics.jsonl, evaluation/table.json or ranked/ranked.jsonl"
        )
    return paths


def plot_comparison(comparison: Comparison, stem: str | os.PathLike[str]) -> list[Path]:
    """Each metric before and after with its interval, on its own scale; writes `stem`.svg and .png.

    Raises:
        DataError: no metric has an interval.
    """
    rows = [row for row in comparison.rows if _has_spread(row)]
    if not rows:
        raise DataError(
            "the comparison has no metric with an interval to plot: it needs at least two prompts whose answers differ"
        )
    return save(lambda: _forest(comparison, rows), stem)


def plot_ranking(rows: Sequence[Mapping[str, Any]], stem: str | os.PathLike[str]) -> list[Path]:
    """The answers to one prompt as bars of their score, coloured by cluster; writes `stem`.svg and .png.

    Args:
        rows: mappings with `completion`, `score`, and where known `prompt`, `rank`, `cluster`,
        `representative`. stem: path without suffix.

    Raises:
        DataError: no rows, or a row without completion or score.
    """
    if not rows:
        raise DataError("rows must hold the ranked answers of one prompt, got none")
    for number, row in enumerate(rows):
        if not isinstance(row.get("completion"), str) or not isinstance(row.get("score"), (int, float)):
            raise DataError(f"ranked row {number} needs 'completion' and a number 'score', has {sorted(row)}")
    return save(lambda: _ranking(rows), stem)


def _points(metrics: Sequence[Mapping[str, Any]], stage: str, line: _Line) -> list[tuple[float, float]]:
    rows = [row for row in metrics if row.get("stage") == stage]
    pairs = [(row.get("step"), row.get(line.key)) for row in rows]
    return [(x, y) for x, y in pairs if _is_number(x) and _is_number(y)]  # type: ignore[misc]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _curves(metrics: Sequence[Mapping[str, Any]], panels: Sequence[_Panel]) -> Figure:
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = figure_with_axes(4.6 * columns, 2.9 * rows, rows, columns)
    for ax, panel in zip(axes, panels, strict=False):
        _draw_panel(ax, panel, metrics)
    for ax in axes[len(panels) :]:
        ax.remove()
    return figure


def _draw_panel(ax: Axes, panel: _Panel, metrics: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    handles = []
    for line in panel.lines:
        handles += _draw_line(ax, line, _points(metrics, panel.stage, line))
    if panel.right is not None and (points := _points(metrics, panel.stage, panel.right)):
        twin = ax.twinx()
        twin.grid(False)
        twin.spines["right"].set_visible(True)
        twin.set_ylabel(panel.right.label, color=panel.right.colour)
        twin.set_ylim(0, 1.3 * max(y for _, y in points) or 1)
        handles += _draw_line(twin, panel.right, points)
    ax.set_title(panel.title)
    ax.set_xlabel(f"{panel.stage.upper() if panel.stage != 'reward' else 'reward model'} step")
    ax.set_ylabel(panel.y_label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if len(handles) > 1:
        ax.legend(handles=handles)


def _draw_line(ax: Axes, line: _Line, points: Sequence[tuple[float, float]]) -> list[Any]:
    if not points:
        return []
    marker = "o" if len(points) <= 12 else None
    xs, ys = zip(*points, strict=True)
    return ax.plot(xs, ys, color=line.colour, label=line.label, marker=marker, markersize=3.5)


def _forest(comparison: Comparison, rows: Sequence[MetricRow]) -> Figure:
    columns = min(3, len(rows))
    height = math.ceil(len(rows) / columns)
    figure, axes = figure_with_axes(3.3 * columns, 1.25 * height + 0.5, height, columns)
    for ax, row in zip(axes, rows, strict=False):
        _draw_intervals(ax, row, comparison)
    for ax in axes[len(rows) :]:
        ax.remove()
    figure.suptitle(
        f"{comparison.before} and {comparison.after} on {comparison.num_prompts} held-out prompts: "
        f"mean and {rows[0].before.level:.0%} interval",
        fontsize=11,
        parse_math=False,
    )
    return figure


def _has_spread(row: MetricRow) -> bool:
    """Whether there is an interval to see: all answers without an exact match leave a dot at 0."""
    bounds = [bound for side in (row.before, row.after) if side.is_known for bound in (side.mean, side.low, side.high)]
    return bool(bounds) and max(bounds) - min(bounds) > 1e-6 * max(abs(bound) for bound in bounds)


def _draw_intervals(ax: Axes, row: MetricRow, comparison: Comparison) -> None:
    from matplotlib.ticker import MaxNLocator

    for y, interval, colour in ((1, row.before, BEFORE), (0, row.after, AFTER)):
        if interval.is_known:
            ax.plot([interval.low, interval.high], [y, y], color=colour, linewidth=3.5, solid_capstyle="round")
        ax.plot([interval.mean], [y], "o", color=colour, markersize=6, markeredgecolor="white")
    ax.set_yticks([1, 0], [snippet(comparison.before, 14), snippet(comparison.after, 14)], parse_math=False)
    ax.set_ylim(-0.6, 1.6)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.margins(x=0.12)
    ax.grid(visible=False, axis="y")
    unit = f" ({row.unit})" if row.unit else ""
    ax.set_title(snippet(row.name + unit, 40), fontsize=9, parse_math=False)
    ax.set_title(
        row.verdict, loc="right", fontsize=8, color=_VERDICT_COLOUR.get(row.verdict, GREY), fontweight="normal"
    )


def _ranking(rows: Sequence[Mapping[str, Any]]) -> Figure:
    ordered = sorted(rows, key=lambda row: -float(row["score"]))
    figure, (ax,) = figure_with_axes(10.0, 1.2 + 0.42 * len(ordered))
    positions = range(len(ordered))
    scores = [float(row["score"]) for row in ordered]
    bars = ax.barh(positions, scores, color=[_cluster_colour(row) for row in ordered], height=0.62)
    for bar, row in zip(bars, ordered, strict=True):
        mark = "  ★ representative" if row.get("representative") else ""
        end = (max(bar.get_width(), 0), bar.get_y() + bar.get_height() / 2)
        text = f"{bar.get_width():.4f}{mark}"
        ax.annotate(text, end, (4, 0), textcoords="offset points", va="center", fontsize=8)
    labels = [snippet(row["completion"], 58, lines=2) or "(empty answer)" for row in ordered]
    ax.set_yticks(positions, labels, parse_math=False)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.32 * max([*scores, 1e-12]))
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("TextRank score (share of the group's total)")
    prompt = snippet(last_turn(ordered[0].get("prompt")), 90)
    ax.set_title(f"Ranked answers to: {prompt}" if prompt else "Ranked answers", parse_math=False, x=0.0)
    _cluster_legend(figure, ordered)
    return figure


def last_turn(prompt: Any) -> str:
    """What was said last in a prompt: the last line of a text, the last message of a chat list."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], Mapping):
        return str(prompt[-1].get("content") or "")
    return str(prompt or "").strip().rsplit("\n", 1)[-1]


def _cluster_colour(row: Mapping[str, Any]) -> str:
    cluster = row.get("cluster")
    return CLUSTERS[int(cluster) % len(CLUSTERS)] if isinstance(cluster, int) and cluster >= 0 else GREY


def _cluster_legend(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.patches import Patch

    sizes: dict[Any, int] = {}
    for row in rows:
        sizes[row.get("cluster")] = sizes.get(row.get("cluster"), 0) + 1
    named = {row.get("cluster"): _cluster_colour(row) for row in rows if row.get("cluster") is not None}
    handles = [
        Patch(color=colour, label=f"cluster {cluster} ({sizes[cluster]})")
        for cluster, colour in sorted(named.items(), key=lambda item: str(item[0]))
    ]
    if 0 < len(handles) <= len(CLUSTERS):
        figure.legend(handles=handles, loc="outside right upper", title="cluster (answers)", title_fontsize=8)
