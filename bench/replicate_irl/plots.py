"""The report's plots: reward over the share of bad demonstrations, the gap of Figure 1, gains on dialogues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.replicate.intervals import Interval, interval
from bench.replicate.rows import Row
from bench.replicate_irl.claims import DIALOGUES, NAMES, REGIMES, Place, difference_of
from bench.replicate_irl.run import CURVES
from rlsft.evaluation.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, figure_with_axes, save

LOOK = {  # a method keeps colour and mark in every plot
    "sft_steps": (GREY, "o"), "sft_tokens": ("#000000", "s"), "spin": (SKY, "^"), "irft_2": (BLUE, "v"),
    "irft_5": (PURPLE, "D"), "irft_2_sft": ("#8C564B", "h"),
    "dpo": (ORANGE, "P"), "rft": (GREEN, "X"), "rft_ppo": (RED, "*"),
}  # fmt: skip
SHARES = (0.0, 0.2, 0.4)
ROUNDS = {"spin": 1, "irft_2": 2, "irft_5": 5}


def draw_all(rows: list[Row], folder: Path) -> list[Path]:
    """Every plot that has rows; the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Callable[[], Any]] = {}
    if any(row["task"] == "sorting" for row in rows):
        drawn["irl_sorting"] = lambda: sorting_figure(rows)
        drawn["irl_rounds"] = lambda: rounds_figure(rows)
    if any(curves_of(rows, place) for _, place in gap_places(rows)):
        drawn["irl_gap"] = lambda: gap_figure(rows)
    if any(row["task"] != "sorting" for row in rows):
        drawn["irl_dialogues"] = lambda: dialogue_figure(rows)
    return [next(path for path in save(draw, folder / name) if path.suffix == ".png") for name, draw in drawn.items()]


def regimes_of(rows: Sequence[Row]) -> list[str]:
    """Starts that have rows."""
    return [regime for regime in REGIMES if any(row.get("regime") == regime for row in rows)]


def gain(rows: Sequence[Row], regime: str, bad: float, method: str, metric: str = "reward") -> Interval | None:
    """Over SFT of as many steps."""
    facts = {"task": "sorting", "regime": regime, "bad": bad}
    return difference_of(Place("", "", facts, metric).rows(rows), metric, method, "sft_steps")


def sorting_figure(rows: list[Row]) -> Any:
    """A panel a start: what each method gains over SFT, by the share of bad demonstrations."""
    regimes = regimes_of(rows)
    figure, axes = figure_with_axes(4.2 * len(regimes) + 1.6, 3.6, columns=len(regimes))
    methods = [name for name in LOOK if name != "sft_steps"]
    for ax, regime in zip(axes, regimes, strict=True):
        for place, name in enumerate(methods):
            found = {bad: gain(rows, regime, bad, name) for bad in SHARES}
            points = [(100 * bad + 1.5 * (place - 3.5), value) for bad, value in found.items() if value]
            if points:
                colour, mark = LOOK[name]
                ax.errorbar(
                    [x for x, _ in points], [value.mean for _, value in points], fmt=mark, color=colour, capsize=2,
                    yerr=[half_of(value) for _, value in points], markersize=5, linewidth=1, label=NAMES[name],
                )  # fmt: skip
        ax.axhline(0, color=GREY, linewidth=1.2, linestyle="--")
        ax.set_xticks([100 * bad for bad in SHARES])
        ax.set_xlabel("bad demonstrations (%)")
        ax.set_title(f"From {REGIMES[regime]}")
    axes[0].set_ylabel("true reward, gain over SFT of equal steps")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    return figure


def rounds_figure(rows: list[Row]) -> Any:
    """The T sweep at fixed data and steps."""
    regimes = regimes_of(rows)
    figure, axes = figure_with_axes(3.6 * len(regimes) + 0.6, 3.2, columns=len(regimes))
    for ax, regime in zip(axes, regimes, strict=True):
        for place, (bad, colour, mark) in enumerate(zip(SHARES, (BLUE, ORANGE, RED), "osD", strict=True)):
            found = {count: gain(rows, regime, bad, name) for name, count in ROUNDS.items()}
            points = [(count * (0.96 + 0.04 * place), value) for count, value in found.items() if value]
            if points:
                ax.errorbar(
                    [x for x, _ in points], [value.mean for _, value in points], fmt=f"-{mark}", color=colour,
                    yerr=[half_of(value) for _, value in points], capsize=2.5, markersize=5, label=f"{bad:.0%} bad",
                )  # fmt: skip
        ax.axhline(0, color=GREY, linewidth=1.2, linestyle="--")
        ax.set_xscale("log")
        ax.set_xticks(list(ROUNDS.values()), [str(count) for count in ROUNDS.values()])
        ax.minorticks_off()
        ax.set_xlabel("T: rounds of drawing answers, all steps equal")
        ax.set_title(f"From {REGIMES[regime]}")
        ax.legend()
    axes[0].set_ylabel("true reward, gain over SFT")
    return figure


def gap_places(rows: Sequence[Row]) -> list[tuple[str, Place]]:
    """Where the training data hold right answers only."""
    found = [
        (f"Sorting, {regime} start", Place("", "", {"task": "sorting", "regime": regime, "bad": 0.0}, "gap"))
        for regime in regimes_of(rows)
    ]
    return [*found, *((place.short.capitalize(), place) for place in DIALOGUES if place.rows(rows))]


def curves_of(rows: Sequence[Row], place: Place) -> dict[str, dict[float, list[list[float]]]]:
    """By method and step: [right, wrong] log-probability of every seed, less that at its start."""
    found: dict[str, dict[float, list[list[float]]]] = {}
    for row in place.rows(rows):
        if row["method"] in CURVES:
            for step, right, wrong in row["curve"]:
                change = [right - row["curve"][0][1], wrong - row["curve"][0][2]]
                found.setdefault(row["method"], {}).setdefault(step, []).append(change)
    return found


def gap_figure(rows: list[Row]) -> Any:
    """How the gap changes over the steps (above) and the log-probability of the right answers alone (below)."""
    places = [(title, place) for title, place in gap_places(rows) if curves_of(rows, place)]
    figure, axes = figure_with_axes(max(5.2, 2.9 * len(places) + 1.0), 5.0, rows=2, columns=len(places))
    for column, (title, place) in enumerate(places):
        for method, by_step in curves_of(rows, place).items():
            colour, mark = LOOK[method]
            steps = sorted(by_step)
            for row, value_of in enumerate((lambda pair: pair[0] - pair[1], lambda pair: pair[0])):
                values = [interval([value_of(pair) for pair in by_step[step]]) for step in steps]
                ax = axes[row * len(places) + column]
                means = [value.mean for value in values]
                ax.plot(steps, means, color=colour, marker=mark, markersize=3, label=NAMES[method])
                low, high = ([value.mean + sign * half_of(value) for value in values] for sign in (-1, 1))
                ax.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes[column].set_title(title)
        axes[len(places) + column].set_xlabel("optimizer steps")
    axes[0].set_ylabel("gap of log-probabilities,\nright − wrong: change (nats)")
    axes[len(places)].set_ylabel("log-probability of right\nanswers: change (nats)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def dialogue_figure(rows: list[Row]) -> Any:
    """For each size of model what a method gains over SFT in the judge's eyes and in likelihood."""
    from matplotlib.ticker import MaxNLocator

    panels = [
        (place, metric, label)
        for place in DIALOGUES
        for metric, label in (("win_rate", "win rate (% over 50)"), ("loglik", "log-lik. (nats a token)"))
        if any(difference_of(place.rows(rows), metric, name, "sft_steps") for name in LOOK)
    ]
    figure, axes = figure_with_axes(2.7 * max(1, len(panels)) + 1.4, 3.0, columns=max(1, len(panels)))
    chats = [row for row in rows if row["task"] != "sorting"]
    methods = [name for name in LOOK if name != "sft_steps" and any(row["method"] == name for row in chats)]
    for column, (ax, (place, metric, label)) in enumerate(zip(axes, panels, strict=False)):
        for row, name in enumerate(methods):
            found = difference_of(place.rows(rows), metric, name, "sft_steps")
            if found:
                colour, mark = LOOK[name]
                ax.errorbar(found.mean, row, xerr=half_of(found), fmt=mark, color=colour, capsize=2.5, markersize=6)
        ax.axvline(0, color=GREY, linewidth=1.2, linestyle="--")
        ax.set_yticks(range(len(methods)), [NAMES[name] for name in methods] if column == 0 else [""] * len(methods))
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.set_xlabel(f"gain in {label}")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(place.short.capitalize() if place.short.islower() else place.short)
    return figure


def half_of(value: Interval) -> float:
    """Half an interval, none for one seed."""
    return value.half if value.count > 1 else 0.0
