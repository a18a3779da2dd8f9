"""The pictures and the page of a comparison."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ravine import measures
from ravine.report.courses import CourseGroup, confidence, gather
from ravine.study.compare.significance import LEVEL, MOST
from ravine.study.directory import Study
from ravine.study.page import Page, PageTable, cell
from ravine.study.panels import (
    CAPTION,
    COLOURS,
    DASHES,
    FAINT,
    INK,
    legend,
    log_axis,
    metric_axis,
    panels,
    scaled,
    style,
)

TOGETHER = 5  # variants that still share one panel
TITLE = 32  # letters that fit above a panel


def page_of(study: Study, summary: dict[str, Any], groups: dict[str, list[Any]]) -> Page:
    metric, final, table = summary["metric"], summary["final"], summary["table"]
    figures = {
        "curves": (measures.title(metric), curves_figure(groups, metric)),
        "finish": ("In the end", finish_figure(groups, final)),
    }
    if summary["tuning"]:
        path = next(name for name in summary["tuning"][0] if "." in name)
        figures["sensitivity"] = (
            f"Sensitivity to {path}",
            sensitivity_figure(summary["tuning"], path, metric),
        )
    tables = [
        PageTable(
            "In the end, best first",
            table,
            f"Mean ± standard deviation over {summary['seeds']} seeds. p: paired t-tests, "
            f"corrected for all pairs (Holm). Target: {measures.title(metric).lower()} {measures.show(metric, summary['target'])}; "
            "seconds are those of one run alone, without evaluation.",
            None if summary["rates"] == "not tuned" else 0,
        )
    ]
    if summary["baselines"]:
        tables.append(
            PageTable("Classical models on the same split", summary["baselines"], best=None)
        )
    tables.append(PageTable("All pairs", summary["pairs"], best=None))
    if summary["tuning"]:
        tables.append(PageTable("Tuning", summary["tuning"], best=None))
    together = f"{summary['programs']} programs" if summary["programs"] > 1 else "one population"
    return Page(
        title=f"Comparison on {study.recipe.name}",
        sentences=[
            *_answer(summary),
            f"{summary['runs']} runs trained as {together}; every variant saw the same seeds, split and batches.",
        ],
        figures=figures,
        tables=tables,
        reading=[
            "Bands hold the mean with 95 % confidence. Bands that overlap may still differ: the pairs are what is tested.",
            "A variant that is best at the end need not be the one that gets there first: see the columns on the target.",
            "A flat sensitivity curve forgives a bad guess; a narrow one has to be tuned again for each problem.",
        ],
    )


def _answer(summary: dict[str, Any]) -> list[str]:
    """What the comparison says: the best variant, unless rates are not tuned; and what cannot be
    told."""
    final, table = summary["final"], summary["table"]
    values = "; ".join(f"{row['variant']} {cell(row[final], final)}" for row in table)
    if len(table) == 1:
        return [f"{measures.title(final)}: {values}.", "There is nothing to compare it with."]
    if summary["rates"] == "not tuned":
        return [
            f"Rates are not tuned: at these rates, {measures.title(final).lower()} is {values}. "
            "Another rate may change the order, so no variant is called the best.",
            *_no_difference(summary),
        ]
    rates = {"tuned": "each at its tuned rate", "compared": "rates being compared"}[
        summary["rates"]
    ]
    best = table[0]
    like = [row["variant"] for row in table[1:] if (row["p against the best"] or 0) >= LEVEL]
    if len(like) == len(table) - 1:
        return [f"No variant is shown to be the best, {rates}: {values}.", *_no_difference(summary)]
    ahead = f"{measures.title(final).lower()} {cell(best[final], final)}"
    if open_ends := [name for name in _at_edges(summary) if name != best["variant"]]:
        listed = ", ".join(open_ends)
        return [
            f"{best['variant']} is ahead: {ahead}. It is not called the best: the best "
            f"{summary['tuned']} of {listed} is at the edge of those tried, and a better one may "
            "lie beyond: widen --rates.",
            *(
                [f"Not significantly different from it at p = {LEVEL:g}: {'; '.join(like)}."]
                * bool(like)
            ),
        ]
    rest = (
        f"Not significantly different from it at p = {LEVEL:g}: {'; '.join(like)}."
        if like
        else f"Every other variant is worse at p = {LEVEL:g}."
    )
    return [
        f"{best['variant']} finishes best, {rates}: {ahead}.",
        rest,
        *_edges(summary),
    ]


def _no_difference(summary: dict[str, Any]) -> list[str]:
    """If no pair differs: how many seeds the differences would need."""
    pairs = summary["pairs"]
    if any(row["p"] < LEVEL for row in pairs):
        clear = [f"{row['one']} and {row['other']}" for row in pairs if row["p"] < LEVEL]
        return [f"These differ at p = {LEVEL:g}: {'; '.join(clear[:6])}."]
    needed = [row for row in pairs if row["seeds needed"] is not None]
    if not needed:
        return [
            "No difference was found: the runs are alike."
            if summary["seeds"] > 1
            else "One seed cannot show a difference: use at least 3 (--seeds)."
        ]
    needed = sorted(needed, key=lambda row: row["seeds needed"])
    listed = "; ".join(
        f"{row['one']} and {row['other']} {_count(row['seeds needed'])}" for row in needed[:3]
    )
    return [
        f"No significant difference with {summary['seeds']} seeds. If the differences are as large as "
        f"they seem, about this many seeds would show them (80 % power): {listed}."
    ]


def _count(seeds: int) -> str:
    return f"more than {MOST:,}" if seeds >= MOST else f"{seeds:,}"


def _edges(summary: dict[str, Any]) -> list[str]:
    if not (found := _at_edges(summary)):
        return []
    return [
        f"The best {summary['tuned']} of {', '.join(found)} is at the edge of those tried: widen --rates."
    ]


def _at_edges(summary: dict[str, Any]) -> list[str]:
    """Variants whose best rate is the least or the greatest that was tried."""
    path, rows = summary["tuned"], summary["tuning"]
    if path is None or len(tried := {row[path] for row in rows}) < 3:
        return []
    ends = (min(tried), max(tried))
    return [row["variant"] for row in summary["table"] if row[path] in ends]


def curves_figure(groups: dict[str, list[Any]], metric: str) -> Figure:
    """Mean and 95 % band of each variant: in one panel if there are few, else each in its own
    before all others in grey."""
    found = [gather(runs, metric, label=label) for label, runs in groups.items()]
    means = [_mean(group, metric) for group in found]
    drawn = np.concatenate([mean[np.isfinite(mean)] for mean in means] or [np.zeros(1)])
    with style():
        if len(found) <= TOGETHER:
            figure, (axes,) = panels(1, 1, 5.6, 3.4)
            for i, (group, mean) in enumerate(zip(found, means, strict=True)):
                _draw(axes, group, mean, metric, COLOURS[i], DASHES[i % len(DASHES)], group.label)
            shown = [axes]
            legend(axes)
        else:
            columns = min(4, math.ceil(math.sqrt(len(found))))
            height = 1.85 + 0.15 * _lines(groups)
            figure, shown = panels(
                math.ceil(len(found) / columns), columns, 2.5, height, sharex=True, sharey=True
            )
            for i, axes in enumerate(shown):
                axes.set_visible(i < len(found))
                if i < len(found):
                    for group, mean in zip(found, means, strict=True):
                        axes.plot(group.x, mean, color=FAINT, lw=0.6, alpha=0.5)
                    _draw(axes, found[i], means[i], metric, COLOURS[0], "-")
                    axes.set_title(textwrap.fill(found[i].label, TITLE), fontsize=9.5)
            shown = shown[: len(found)]
        _fit(shown[0], drawn, metric)
        shown[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _outer_labels(figure, shown, "epoch", metric)
    return figure


def _lines(labels: Iterable[str]) -> int:
    """Lines of the longest title of a panel."""
    return max(len(textwrap.wrap(label, TITLE)) for label in labels)


def _mean(group: CourseGroup, metric: str) -> np.ndarray:
    values = scaled(metric, group.values)
    enough = np.isfinite(values).sum(0) * 2 >= max(1, group.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, 0) / np.isfinite(values).sum(0)
    return np.where(enough, mean, np.nan)


def _draw(
    axes: Axes,
    group: CourseGroup,
    mean: np.ndarray,
    metric: str,
    colour: str,
    dash: Any,
    label: str | None = None,
) -> None:
    axes.plot(group.x, mean, color=colour, ls=dash, label=label)
    if group.size >= 3:
        half = confidence(np.where(np.isfinite(group.values), scaled(metric, group.values), np.nan))
        axes.fill_between(group.x, mean - half, mean + half, color=colour, alpha=0.25, lw=0)


def _fit(axes: Axes, drawn: np.ndarray, metric: str) -> None:
    low, high = drawn.min(), drawn.max()
    if measures.better_is(metric) == "min" and low > 0 and high > 20 * low:
        log_axis(axes, "y")
    elif measures.better_is(metric) == "max" and measures.is_percent(metric):
        middle = np.percentile(drawn, 10)
        axes.set_ylim(
            max(low, middle - 0.5 * (high - middle)), min(100.5, high + 0.3 * (high - middle) + 0.2)
        )


def finish_figure(groups: dict[str, list[Any]], metric: str) -> Figure:
    """Every seed of every variant in the end, the mean marked; the best on top."""
    with style():
        names = [textwrap.fill(label, 2 * TITLE) for label in groups]
        longest = max(len(line) for name in names for line in name.splitlines())
        figure, (axes,) = panels(
            1, 1, 5.0 + 0.06 * longest, 0.9 + 0.3 * sum(1 + name.count("\n") for name in names)
        )
        for i, runs in enumerate(groups.values()):
            values = scaled(metric, [run.result.get(metric) for run in runs])
            values = values[np.isfinite(values)]
            shift = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else 0.0
            axes.plot(
                values,
                i + shift,
                "o",
                color=COLOURS[0],
                ms=3.5,
                alpha=0.55,
                label="one seed" if i == 0 else None,
            )
            if len(values):
                axes.plot(
                    [values.mean()], [i], "D", color=INK, ms=5, label="mean" if i == 0 else None
                )
        axes.set_yticks(range(len(groups)), names)
        axes.invert_yaxis()
        axes.grid(axis="x")
        metric_axis(axes, metric, which="x")
        legend(axes)
    return figure


def sensitivity_figure(tuning: list[dict[str, Any]], path: str, metric: str) -> Figure:
    """The metric against the tuned field, one panel for each variant, its best marked."""
    labels = list(dict.fromkeys(row["variant"] for row in tuning))
    columns = min(4, len(labels))
    with style():
        height = 1.85 + 0.15 * _lines(labels)
        figure, axes = panels(
            math.ceil(len(labels) / columns), columns, 2.5, height, sharex=True, sharey=True
        )
        for i, axis in enumerate(axes):
            axis.set_visible(i < len(labels))
            if i >= len(labels):
                continue
            own = [row for row in tuning if row["variant"] == labels[i]]
            x, y = [row[path] for row in own], scaled(metric, [row[metric] for row in own])
            lost = np.array([row["stopped"] == "diverged" for row in own])
            y = np.where(lost, np.nan, y)
            axis.plot(x, y, "-o", color=COLOURS[0], ms=3.5)
            if np.isfinite(y).any():
                at = int(
                    np.nanargmin(y) if measures.better_is(metric) == "min" else np.nanargmax(y)
                )
                axis.plot([x[at]], [y[at]], "o", ms=8, mfc="none", mew=1.4, color=INK)
            if lost.any():
                axis.plot(
                    np.array(x)[lost],
                    np.full(lost.sum(), 0.05),
                    "x",
                    color=COLOURS[1],
                    transform=axis.get_xaxis_transform(),
                )
            axis.set_title(textwrap.fill(labels[i], TITLE), fontsize=9.5)
        log_axis(axes[0])
        for axis in axes[: len(labels)]:
            axis.tick_params(axis="x", labelsize=CAPTION, which="both")
            axis.minorticks_off()
        _outer_labels(figure, axes[: len(labels)], path, metric)
    return figure


def _outer_labels(figure: Figure, axes: list[Axes], x: str, metric: str) -> None:
    """One label for all panels at each side; the lowest panel of every column shows its ticks."""
    if len(axes) == 1:
        metric_axis(axes[0], metric)
        axes[0].set_xlabel(x)
        return
    figure.supxlabel(x, fontsize=9.5)
    figure.supylabel(
        measures.title(metric) + (" in %" if measures.is_percent(metric) else ""), fontsize=9.5
    )
    spec = axes[0].get_gridspec()
    assert spec is not None
    columns = spec.ncols
    for i, axis in enumerate(axes):
        axis.tick_params(labelbottom=i + columns >= len(axes))
