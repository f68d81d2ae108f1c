"""The report's plots: paired differences of every method, the sweep as a heat map, reward model against gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.replicate.intervals import Interval, interval
from bench.replicate.rows import Row
from bench.replicate_str.claims import difference_of
from rlsft.evaluation.figures import BLUE, GREY, ORANGE, RED, figure_with_axes, save

LABELS = {
    "full_more": "full, more steps", "lora": "LoRA", "adapter": "adapter", "bitfit": "BitFit", "str": "STR",
    "str_noise": "STR + noise", "str_no_isodata": "STR, no ISODATA", "str_ours": "STR, our ranker",
    "str_rloo": "critic-free STR",
}  # fmt: skip
LIGHT = ("lora", "adapter", "bitfit")  # may lie far off: they do not set the scale
AXES = {
    ("sorting", "true_reward"): "sorting: true reward",
    ("wordnet", "meteor"): "WordNet: METEOR",
    ("dialogues", "meteor"): "dialogues: METEOR",
    ("dialogues", "win_rate"): "dialogues: win rate, %",
}


def draw_all(rows: list[Row], sweep: list[Row], folder: Path) -> list[Path]:
    """Every plot that has rows; the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[str, Callable[[], Any]]] = []
    if any(gain(rows, *axis, method) for axis in AXES for method in LABELS):
        drawn.append(("str_methods", lambda: methods_figure(rows)))
    if sweep:
        drawn.append(("str_sweep", lambda: sweep_figure(sweep)))
    return [next(path for path in save(draw, folder / name) if path.suffix == ".png") for name, draw in drawn]


def gain(rows: Sequence[Row], task: str, metric: str, method: str) -> Interval | None:
    """Over full fine-tuning, seed by seed."""
    return difference_of(rows, task, metric, method, "full")


def methods_figure(rows: list[Row]) -> Any:
    """A panel a task: the gain of every method over full fine-tuning with its interval."""
    panels = [axis for axis in AXES if any(gain(rows, *axis, method) for method in LABELS)]
    figure, axes = figure_with_axes(2.4 * len(panels) + 1.2, 3.4, columns=len(panels))
    for place, (ax, axis) in enumerate(zip(axes, panels, strict=True)):
        gains = {method: found for method in LABELS if (found := gain(rows, *axis, method)) is not None}
        limit = 1.25 * max(reach(gain) for method, gain in gains.items() if method not in LIGHT)
        for row, method in enumerate(LABELS):
            if method in gains:
                draw_gain(ax, row, method, gains[method], limit)
        ax.axvline(0, color=RED, linewidth=1, linestyle="--")
        ax.set_xlim(-limit, limit)
        ax.set_yticks(range(len(LABELS)), list(LABELS.values()) if place == 0 else [""] * len(LABELS))
        ax.set_ylim(len(LABELS) - 0.5, -0.5)
        ax.set_title(AXES[axis])
        ax.locator_params(axis="x", nbins=4)
        ax.set_xlabel("gain over full fine-tuning")
    return figure


def reach(gain: Interval) -> float:
    """The farthest end from 0; of one seed, the mean itself."""
    return abs(gain.mean) + (gain.half if gain.count > 1 else 0.0)


def draw_gain(ax: Any, row: int, method: str, gain: Interval, limit: float) -> None:
    """A point with its interval, or its number at the edge where it lies outside."""
    is_str = method.startswith("str")
    colour = GREY if not is_str else ORANGE if method == "str_ours" else BLUE
    if abs(gain.mean) > limit:
        side = -1 if gain.mean < 0 else 1
        ax.plot(side * 0.95 * limit, row, marker="<" if side < 0 else ">", color=colour, markersize=6)
        ax.text(side * 0.86 * limit, row, gain.text(2), va="center", ha="left" if side < 0 else "right", fontsize=8)
        return
    half = gain.half if gain.count > 1 else 0.0
    ax.errorbar(gain.mean, row, xerr=half, fmt="o" if is_str else "s", color=colour, capsize=2.5, markersize=5)


def sweep_cells(sweep: Sequence[Row]) -> tuple[list[int], list[float], dict[tuple[int, float], Interval]]:
    """Reward steps, KL coefficients, and the gain in true reward of each pair."""
    steps = sorted({row["reward_steps"] for row in sweep})
    kls = sorted({row["kl_coef"] for row in sweep})
    cells = {
        (step, kl): interval([
            row["true_reward"] - row["start_reward"]
            for row in sweep
            if (row["reward_steps"], row["kl_coef"]) == (step, kl)
        ] or [float("nan")])
        for step in steps
        for kl in kls
    }  # fmt: skip
    return steps, kls, cells


def sweep_figure(sweep: list[Row]) -> Any:
    """Heat map: blue above the start, brown below, the number in each cell."""
    steps, kls, cells = sweep_cells(sweep)
    figure, (ax,) = figure_with_axes(4.6, 3.4)
    values = [[cells[step, kl].mean for kl in kls] for step in steps]
    limit = max(abs(value) for line in values for value in line) or 1.0
    image = ax.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    for i, step in enumerate(steps):
        for j, kl in enumerate(kls):
            strong = abs(values[i][j]) > 0.6 * limit
            ax.text(j, i, cells[step, kl].text(3).replace(" ± ", "\n± "), ha="center", va="center", fontsize=8,
                    color="white" if strong else "black")  # fmt: skip
    ax.set_xticks(range(len(kls)), [f"{kl:g}" for kl in kls])
    ax.set_yticks(range(len(steps)), [str(step) for step in steps])
    ax.set_xlabel("beta: KL coefficient")
    ax.set_ylabel("K: steps of the reward model")
    ax.set_title("Gain in true reward over the fine-tuned policy")
    ax.grid(False)
    figure.colorbar(image, ax=ax, label="change of true reward")
    return figure
