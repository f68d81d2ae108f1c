"""The report's plots: paired differences of every method, the sweep as a heat map, reward model against gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.replicate.intervals import Interval, interval
from bench.replicate.rows import Row
from bench.replicate_str.claims import MAIN, difference_of
from rlsft.evaluation.figures import BLUE, GREY, ORANGE, RED, figure_with_axes, save

LABELS = {
    "full_more": "full, more steps", "lora": "LoRA", "adapter": "adapter", "bitfit": "BitFit", "str": "STR",
    "str_noise": "STR + noise", "str_no_isodata": "STR, no ISODATA", "str_ours": "STR, our ranker",
    "str_rloo": "critic-free STR",
}  # fmt: skip
AXES = {
    "sorting": "sorting: true reward", "wordnet": "WordNet: METEOR", "dialogues": "dialogues: win rate − 50 (%)",
}  # fmt: skip


def draw_all(rows: list[Row], sweep: list[Row], folder: Path) -> list[Path]:
    """Every plot that has rows; the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[str, Callable[[], Any]]] = []
    if any(row["task"] in AXES for row in rows):
        drawn.append(("str_methods", lambda: methods_figure(rows)))
    if sweep:
        drawn.append(("str_sweep", lambda: sweep_figure(sweep)))
    return [next(path for path in save(draw, folder / name) if path.suffix == ".png") for name, draw in drawn]


def gain(rows: Sequence[Row], task: str, method: str) -> Interval | None:
    """Over full fine-tuning, in the task's own number."""
    return difference_of(rows, task, MAIN[task], method, "full")


def methods_figure(rows: list[Row]) -> Any:
    """A panel a task: the gain of every method over full fine-tuning with its interval."""
    tasks = [task for task in AXES if any(gain(rows, task, method) for method in LABELS)]
    figure, axes = figure_with_axes(3.1 * len(tasks) + 1.2, 3.4, columns=len(tasks))
    for place, (ax, task) in enumerate(zip(axes, tasks, strict=True)):
        for row, method in enumerate(LABELS):
            found = gain(rows, task, method)
            if found is not None:
                half = found.half if found.count > 1 else 0.0
                colour = GREY if not method.startswith("str") else ORANGE if method == "str_ours" else BLUE
                marker = "s" if not method.startswith("str") else "o"
                ax.errorbar(found.mean, row, xerr=half, fmt=marker, color=colour, capsize=2.5, markersize=5)
        ax.axvline(0, color=RED, linewidth=1, linestyle="--")
        ax.set_yticks(range(len(LABELS)), list(LABELS.values()) if place == 0 else [""] * len(LABELS))
        ax.set_ylim(len(LABELS) - 0.5, -0.5)
        ax.set_title(AXES[task])
        ax.set_xlabel("gain over full fine-tuning")
    return figure


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
