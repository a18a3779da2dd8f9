"""Figures of measurements: one style, readable in greyscale and by the colour-blind; legends stand
above the data.

Colours follow Okabe and Ito (2008), in an order in which neighbours differ in lightness; lines
differ in their dashes too. Up to eight members are drawn one by one, more as their median and
bands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ravine import measures
from ravine.errors import InputError
from ravine.report.courses import (
    FEW,
    CourseGroup,
    confidence,
    envelope,
    gather,
    gather_steps,
    quantiles,
)
from ravine.rundir import RunDir

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a3508f", "#c98a00", "#3d9fd8", "#5a5a5a", "#7a6a00")
MARKERS = "osD^vP*X"
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.5)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (12, 2)),
    (0, (1.5, 4)),
    (0, (5, 1.5, 1.5, 1.5, 1.5, 1.5)),
    (0, (3, 3)),
)
INK, FAINT, GRID = "#1b1f24", "#6b7480", "#e4e7eb"
SIZE, SMALL = (5.6, 3.3), (3.5, 2.6)  # inches
PIXELS = 91  # of a page for an inch: labels are as large as those of the curves, 12 pixels
CAPTION = 8.75  # points of the smallest texts: 11 pixels

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "ravine",
    "savefig.dpi": 160,
    "figure.dpi": 100,
}


def style() -> AbstractContextManager[None]:
    """Within it, matplotlib draws and saves in Ravine's style."""
    return matplotlib.rc_context(STYLE)


# --- what is drawn --------------------------------------------------------------------------------


def curves(
    groups: Any,
    metric: str,
    path: str | Path | None = None,
    *,
    x: str = "epoch",
    title: str | None = None,
) -> Figure:
    """A metric's course over training, of one run or of several groups of members.

    ``groups`` is a run directory (or its path), a list of (run directory, member) pairs or of runs;
    or a mapping of labels to such. In a mapping each group of at least three is its mean with the
    95 % confidence band of the mean (Student's t); alone, up to eight members are lines of their
    own, and more are their median with the bands that hold 50 % and 90 % of them. ``path`` saves
    the figure in the format of its suffix; ``x`` is ``epoch``, ``step`` or ``seconds``.
    """
    named = groups if isinstance(groups, Mapping) else {"": groups}
    found = [gather(members, metric, x=x, label=str(label)) for label, members in named.items()]
    if not any(np.isfinite(group.values).any() for group in found):
        raise InputError("curves", got=metric, expected="a metric that these runs have measured")
    with style():
        figure, axes = _panel(metric, x)
        if isinstance(groups, Mapping):
            for i, group in enumerate(found):
                _draw_mean(axes, group, i)
        else:
            draw_members(axes, found[0])
        _finish(axes, metric, [group.values for group in found], title=title)
        if path is not None:
            figure.savefig(path)
    return figure


def training_curves(run: RunDir, metric: str, size: tuple[float, float] = SIZE) -> Figure | None:
    """A metric on training and validation data on the same axes, the best epoch marked; of all
    members of a run."""
    names = [name for name in (f"train_{metric}", f"val_{metric}") if name in run.metrics]
    if not names:
        return None
    found = [gather(run, name, label=measures.title(name).split()[0].lower()) for name in names]
    with style():
        figure, axes = _panel(names[-1], "epoch", measures.title(metric), size)
        if len(run.recipes) == 1:
            for name, group in zip(names, found, strict=True):
                i = int(name.startswith("train"))
                values = _scale(names[-1], group.values[0])
                axes.plot(group.x, values, color=COLOURS[i], ls=DASHES[i], label=group.label)
            _mark_best(axes, run, names[-1])
        else:
            draw_members(axes, found[-1])
            if len(found) == 2:
                _draw_faintly(axes, found[0])
        _finish(axes, names[-1], [group.values for group in found])
    return figure


def single_curve(run: RunDir, metric: str) -> Figure | None:
    """One quantity of training, such as the learning rate or the gradient's norm, as a small
    figure."""
    if metric not in run.metrics:
        return None
    group = gather(run, metric)
    with style():
        figure, axes = _panel(metric, "epoch", size=SMALL)
        draw_members(axes, group)
        _finish(axes, metric, [group.values], legend=False)
    return figure


def step_losses(run: RunDir) -> Figure | None:
    """The loss of every step: its range, and its running mean over 4 % of the run."""
    course = gather_steps(run)
    if len(course.x) < 2:
        return None
    with style():
        figure, axes = _panel("loss", "step", "Loss of a step", SMALL)
        if course.size == 1:
            _draw_steps(axes, _scale("loss", run.steps(0)))
            axes.plot(
                course.x, _scale("loss", course.values[0]), color=COLOURS[0], label="running mean"
            )
        else:
            draw_members(axes, course)
        _finish(axes, "loss", [course.values], legend=course.size == 1)
    return figure


def by_field(path: str, values: Sequence[float], results: Sequence[float], metric: str) -> Figure:
    """The final metric of members against the field in which they differ; diverged members are drawn
    separately."""
    x, y = np.array(values, float), _scale(metric, np.array(results, float))
    fine = np.isfinite(y)
    with style():
        figure, axes = _panel(metric, path, size=SMALL)
        axes.plot(x[fine], y[fine], "o", color=COLOURS[0], ms=4.5, label="member")
        if not fine.all():
            blended = axes.get_xaxis_transform()
            low = np.full((~fine).sum(), 0.04)
            axes.plot(x[~fine], low, "x", color=COLOURS[1], transform=blended, label="diverged")
        if x.min() > 0 and x.max() > 30 * x.min():
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if fine.any():
            _fit(axes, metric, y[fine])
        _legend(axes)
    return figure


# --- drawing --------------------------------------------------------------------------------------


def draw_members(axes: Axes, group: CourseGroup) -> None:
    """Up to eight members as lines, more as their median and bands."""
    scaled = _scale(_metric_of(axes), group.values)
    if group.size <= FEW:
        for i, row in enumerate(scaled):
            label = f"member {i}" if group.size > 1 else None
            axes.plot(group.x, row, color=COLOURS[i], ls=DASHES[i % len(DASHES)], label=label)
        return
    low, lower, middle, upper, high = quantiles(scaled, (5, 25, 50, 75, 95))
    axes.fill_between(group.x, low, high, color=COLOURS[0], alpha=0.15, lw=0, label="90 %")
    axes.fill_between(group.x, lower, upper, color=COLOURS[0], alpha=0.35, lw=0, label="50 %")
    axes.plot(group.x, middle, color=COLOURS[0], lw=2, label=f"median of {group.size} members")


def _draw_steps(axes: Axes, losses: np.ndarray) -> None:
    """The single steps themselves, or where they are many, their range."""
    if len(losses) <= 300:
        axes.plot(
            np.arange(1, len(losses) + 1),
            losses,
            color=COLOURS[0],
            alpha=0.45,
            lw=0.8,
            label="single steps",
        )
        return
    low, high, at = envelope(losses)
    axes.fill_between(
        at, low, high, color=COLOURS[0], alpha=0.3, lw=0, label="range of single steps"
    )


def _draw_mean(axes: Axes, group: CourseGroup, i: int) -> None:
    scaled = _scale(_metric_of(axes), group.values)
    count = np.isfinite(scaled).sum(0)
    enough = count >= max(1, group.size / 2)
    x, scaled, count = group.x[enough], scaled[:, enough], count[enough]
    if not len(x):
        return
    colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
    finite = np.where(np.isfinite(scaled), scaled, np.nan)
    mean = np.nanmean(finite, 0)
    label = group.label + (f" (n = {group.size})" if group.size > 1 else "")
    axes.plot(x, mean, color=colour, ls=dash, label=label)
    if group.size >= 3:
        half = confidence(finite)
        axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, lw=0)


def _draw_faintly(axes: Axes, group: CourseGroup) -> None:
    scaled = _scale(_metric_of(axes), group.values)
    if group.size > FEW:
        middle = quantiles(scaled, (50,))[0]
        axes.plot(group.x, middle, color=COLOURS[1], ls=DASHES[1], lw=1.2, label="median, training")
        return
    for i, row in enumerate(scaled):
        label = "thin: training" if i == 0 else None
        axes.plot(
            group.x,
            row,
            color=COLOURS[i],
            ls=DASHES[i % len(DASHES)],
            lw=0.7,
            alpha=0.7,
            label=label,
        )


def _mark_best(axes: Axes, run: RunDir, metric: str) -> None:
    row = measures.best(run.epochs(0), metric) if metric.startswith("val_") else None
    if row is None:
        return
    value, label = (
        row[metric],
        f"best: {measures.show(metric, row[metric])} at epoch {row['epoch']:g}",
    )
    axes.axvline(row["epoch"], color=FAINT, lw=0.8, ls=(0, (2, 2)), zorder=1)
    scaled = float(_scale(metric, np.array(value)))
    axes.plot([row["epoch"]], [scaled], "o", ms=6, mfc="none", mew=1.6, color=INK, label=label)


def _panel(
    metric: str, x: str, name: str | None = None, size: tuple[float, float] = SIZE
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_gid(metric)
    axes.set_xlabel({"epoch": "epoch", "step": "step", "seconds": "time in seconds"}.get(x, x))
    axes.set_ylabel(
        (name or measures.title(metric)) + (" in %" if measures.is_percent(metric) else "")
    )
    axes.xaxis.set_major_locator(
        MaxNLocator(8 if size == SIZE else 5, steps=[1, 2, 5, 10], integer=x != "seconds")
    )
    axes.margins(x=0.02)
    return figure, axes


def _metric_of(axes: Axes) -> str:
    return axes.get_gid() or ""


def _scale(metric: str, values: np.ndarray) -> np.ndarray:
    # beyond, axes overflow
    return 100 * values if measures.is_percent(metric) else np.clip(values, -1e30, 1e30)


def _finish(
    axes: Axes,
    metric: str,
    values: Sequence[np.ndarray],
    *,
    title: str | None = None,
    legend: bool = True,
) -> None:
    """Choose the axis' scale and limits, and put the legend above the data."""
    if metric == "lr":  # a schedule's course is linear; rates that differ by powers are not
        values = [np.nanmax(v, axis=1) if v.size else v for v in values]
    drawn = np.concatenate([_scale(metric, v[np.isfinite(v)]) for v in values])
    if len(drawn):
        _fit(axes, metric, drawn)
    axes.set_xlim(left=0)
    for line in axes.get_lines():
        if (
            np.isfinite(np.asarray(line.get_ydata(), float)).sum() == 1
            and line.get_marker() == "None"
        ):
            line.set_marker("o")
    rows = _legend(axes) if legend else 0
    if title:
        axes.set_title(title, loc="left", fontweight="bold", pad=8 + 14 * rows)


def _legend(axes: Axes) -> int:
    """The legend above the axes, read from left to right; the number of its rows."""
    entries = list(zip(*axes.get_legend_handles_labels(), strict=True))
    if not entries:
        return 0
    entries.sort(key=lambda entry: not isinstance(entry[0], Line2D))  # lines before bands
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = figure.get_figwidth() - 0.5
    widths = [len(label) * 0.064 + 0.62 for _, label in entries]  # inches
    fits = [
        n for n in range(1, len(entries) + 1) if sum(max(widths[c::n]) for c in range(n)) < room
    ]
    columns = max(fits, default=1)
    rows = math.ceil(len(entries) / columns)
    blank = (Line2D([], [], alpha=0), "")
    padded = entries + [blank] * (rows * columns - len(entries))
    handles, labels = zip(
        *(padded[r * columns + c] for c in range(columns) for r in range(rows)), strict=True
    )
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        borderpad=0.2,
        columnspacing=1.4,
        handlelength=2.2,
        borderaxespad=0.2,
    )
    return rows


def _fit(axes: Axes, metric: str, drawn: np.ndarray) -> None:
    low, high = np.percentile(drawn, [0, 97])
    top = drawn.max()
    if low > 0 and high > 20 * low and not measures.is_percent(metric):
        axes.set_yscale("log")
        subs = (1.0, 2.0, 5.0) if high < 2000 * low else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        if top > 100 * high:
            axes.set_ylim(low / 1.5, high * 10)
        return
    # a member that exploded must not flatten all the others
    if high > low and top > low + 3 * (high - low):
        axes.set_ylim(low - 0.05 * (high - low), high + 0.5 * (high - low))
    if metric == "lr":
        axes.set_ylim(0, 1.05 * top if top > 0 else 1)
