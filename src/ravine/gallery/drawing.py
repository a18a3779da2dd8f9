"""Figures of the gallery: Ravine's style, a band over seeds, and SVG that follows the reader's
theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ravine.report.figures import GRID, style
from ravine.storage.files import write_text
from ravine.study.panels import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    MARKERS,
    legend,
    log_axis,
    panels,
)

__all__ = [
    "COLOURS",
    "DASHES",
    "FAINT",
    "HATCHES",
    "INK",
    "MARKERS",
    "band",
    "legend",
    "log_axis",
    "panels",
    "save",
    "save_animation",
    "style",
]

HATCHES = ("", "///", "...")  # of bars, with white edges: colours alone are one grey in print

# Each colour of the light theme, and the colour that stands for it on a dark page: of the same hue
_DARK = dict(
    zip(
        COLOURS,
        ["#56aef0", "#ff8f4d", "#3fcb9f", "#dd93cc", "#edb63c", "#97d3f7", "#b5b5b5", "#cbbd55"],
        strict=True,
    )
) | {INK: "#e6e9ed", FAINT: "#98a2ae", GRID: "#2c323a"}

# white patches without an outline: the grounds of a figure and of its axes
_GROUND = re.compile(r'(<g id="patch_\d+">\s*<path d="[^"]*" style=")fill: #ffffff(?=")')


def band(
    axes: Axes, x: Any, values: Any, label: str, i: int, shade: float = 0.18, **options: Any
) -> None:
    """The mean of values [seeds, points] against x as line ``i``, and the range of the seeds, shaded (0 to 1)."""
    found = np.asarray(values, float)
    line = {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i % len(DASHES)], "label": label}
    axes.plot(x, found.mean(0), **line | options)
    if len(found) > 1:
        axes.fill_between(
            x, found.min(0), found.max(0), color=line["color"], alpha=shade, linewidth=0
        )


def save(figure: Figure, to: Path) -> None:
    """``to.svg``, whose colours follow the reader's light or dark theme, and ``to.png``."""
    to.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    with style():
        figure.savefig(to.with_suffix(".png"), dpi=110, metadata={"Software": None})
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    write_text(to.with_suffix(".svg"), in_both_themes(text.getvalue()))


def save_animation(figure: Figure, frame: Callable[[int], object], count: int, to: Path) -> None:
    """``to.gif``: ``frame(k)`` for every k, ten a second."""
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    moving = FuncAnimation(figure, frame, frames=count, init_func=lambda: ())  # type: ignore[arg-type]
    moving.save(to.with_suffix(".gif"), PillowWriter(fps=10), dpi=80)


def in_both_themes(svg: str) -> str:
    """An SVG whose colours are variables, which a style sheet inside it gives for both themes.

    >>> "var(--c0)" in in_both_themes('<svg><path style="stroke: #0072b2"/></svg>')
    True
    """
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = _GROUND.sub(r"\1fill: none", svg).replace("#000000", INK)
    svg = svg.replace("stroke: #ffffff", "stroke: var(--paper)")
    light, dark = "--paper:#ffffff;", "--paper:#1b1f25;"
    for i, (colour, other) in enumerate(_DARK.items()):
        svg = svg.replace(colour, f"var(--c{i})")
        light, dark = f"{light}--c{i}:{colour};", f"{dark}--c{i}:{other};"
    # texts without a colour of their own are black in matplotlib's SVG
    sheet = f"svg{{{light}fill:var(--c{len(COLOURS)})}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    head = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:head]}<style>{sheet}</style>{svg[head:]}"
