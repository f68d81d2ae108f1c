"""One look for every plot: colours, sizes, text that survives any script, and saving as SVG and PNG."""

from __future__ import annotations

import io
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsft.artifacts import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart in print and by colour-blind readers. A meaning keeps its colour in
# every plot.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#7F7F7F",
)
BEFORE, AFTER = GREY, BLUE
CLUSTERS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, "#F0E442", "#8C564B", "#5B3A9B", "#17BECF")

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#4d4d4d",
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text: searchable, and shown in the reader's own fonts
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
_WIDE_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Source Han Sans",
    "IPAexGothic",
    "IPAGothic",
    "TakaoGothic",
    "VL Gothic",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)


def save(draw: Callable[[], Figure], stem: str | os.PathLike[str]) -> list[Path]:
    """Draw a figure in the common style and write `stem`.svg and `stem`.png, atomically; return both paths.

    Characters that no installed font has stay as they are in the SVG, which the reader's fonts show, and
    become a square in the PNG.
    """
    with _style(Path(stem).name):
        figure = draw()
        svg = _write(figure, Path(f"{stem}.svg"), metadata={"Date": None, "Creator": None})
        _replace_unknown_characters(figure)
        png = _write(figure, Path(f"{stem}.png"), metadata={"Software": None})
    return [svg, png]


def snippet(text: str, columns: int, *, lines: int = 1) -> str:
    """`text` on at most `lines` lines of `columns` columns (a wide character takes two), with an ellipsis if cut."""
    clean = " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in text).split())
    rows: list[str] = []
    while clean and len(rows) < lines:
        is_cut = _fitting(clean, columns) < len(clean)
        is_last = len(rows) == lines - 1
        cut = _whole_words(clean, columns - 1 if is_cut and is_last else columns)
        rows.append(clean[:cut].rstrip() + ("…" if is_cut and is_last else ""))
        clean = clean[cut:].lstrip()
    return "\n".join(rows)


def figure_with_axes(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure in inches and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _whole_words(text: str, columns: int) -> int:
    """How many characters fit, less a last word that is cut unless it fills half the line."""
    cut = _fitting(text, columns)
    if cut < len(text) and (space := text.rfind(" ", 1, cut + 1)) > cut // 2:
        return space
    return cut


def _fitting(text: str, columns: int) -> int:
    used = 0
    for index, char in enumerate(text):
        used += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used > columns:
            return index
    return len(text)


@contextmanager
def _style(name: str) -> Iterator[None]:
    import matplotlib

    # a fixed salt makes two runs write the same bytes; one a plot keeps ids apart on one page
    look = _STYLE | {"svg.hashsalt": name, "font.family": list(_families())}
    with matplotlib.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@lru_cache(maxsize=1)
def _families() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {entry.name for entry in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _WIDE_FONTS if name in installed))


@lru_cache(maxsize=1)
def _known_characters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    files = [findfont(FontProperties(family=name)) for name in _families()]
    return frozenset(code for file in files for code in get_font(file).get_charmap())


def _replace_unknown_characters(figure: Figure) -> None:
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator

    changed = False
    for item in figure.findobj(Text):
        if (plain := _drawable(item.get_text())) != item.get_text():
            item.set_text(plain)
            changed = True
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        if isinstance(axis.get_major_locator(), FixedLocator):  # else drawing would write the old labels again
            labels = [_drawable(item.get_text()) for item in axis.get_ticklabels()]
            axis.set_ticklabels(labels, parse_math=False)
    if changed:
        hint = "□: no font for this character on this machine; the .svg file shows it"
        figure.text(0.005, 0.005, hint, va="bottom", fontsize=6, color=GREY)


def _drawable(text: str) -> str:
    known = _known_characters()
    return "".join(char if ord(char) in known or char == "\n" else "□" for char in text)


def _write(figure: Figure, path: Path, *, metadata: dict[str, Any]) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], metadata=metadata)
    with atomic_path(path) as partial:
        partial.write_bytes(buffer.getvalue())
    return path
