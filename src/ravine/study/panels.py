"""What the pictures of studies share: panels in Ravine's style, axes of metrics, scales of
values."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ravine import measures
from ravine.report.figures import CAPTION, COLOURS, DASHES, FAINT, INK, MARKERS, style

__all__ = [
    "CAPTION",
    "COLOURS",
    "DASHES",
    "FAINT",
    "INK",
    "MARKERS",
    "legend",
    "log_axis",
    "metric_axis",
    "panels",
    "scaled",
    "style",
]


def panels(
    rows: int, columns: int, width: float = 3.6, height: float = 2.9, **share: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of rows x columns panels (inches each), and its axes from left to right; call it
    within ``style()``."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **share)
    return figure, list(axes.flat)


def scaled(metric: str, values: Sequence[float | None] | np.ndarray) -> np.ndarray:
    """Values as they are drawn: fractions that people read as percentages are percentages."""
    given = np.asarray(values, dtype=object)
    found = np.array([math.nan if v is None else v for v in given.ravel()], float).reshape(
        given.shape
    )
    return 100 * found if measures.is_percent(metric) else found


def metric_axis(axes: Axes, metric: str, *, which: str = "y") -> None:
    """Label an axis with a metric and its unit."""
    text = measures.title(metric) + (" in %" if measures.is_percent(metric) else "")
    axes.set_ylabel(text) if which == "y" else axes.set_xlabel(text)


def log_axis(axes: Axes, which: str = "x") -> None:
    """A logarithmic axis with readable numbers: powers of ten, and between them 2 and 5 where it is short."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(_Powers())
    axis.set_major_formatter(FuncFormatter(lambda value, _: brief(value)))
    axis.set_minor_formatter(NullFormatter())


class _Powers(LogLocator):
    """Which numbers are written is known when the axis has its limits."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        self.set_params(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,))
        return super().tick_values(vmin, vmax)


def brief(value: float) -> str:
    """A tick's number: 1e-4, 0.01, 100.

    >>> brief(1e-4), brief(0.01), brief(100.0), brief(1e12)
    ('1e-4', '0.01', '100', '1e12')
    """
    if value == 0 or 1e-3 < abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    number, _, power = f"{value:.1e}".partition("e")
    return f"{number.removesuffix('.0')}e{int(power)}"


def legend(axes: Axes, columns: int = 3) -> None:
    """A legend above the axes, off the data; fewer columns where its labels are long."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        labels = [textwrap.fill(label, 60) for label in labels]
        longest = max(len(line) for label in labels for line in label.splitlines())
        width = axes.get_window_extent().width / axes.figure.dpi  # inches
        columns = max(1, min(columns, int((width + 0.3) / (0.6 + 0.075 * longest))))
        axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=columns,
            borderpad=0.2,
            columnspacing=1.2,
            handlelength=1.8,
            borderaxespad=0.2,
        )
