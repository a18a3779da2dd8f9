"""The pictures and the page of lottery tickets."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ravine import measures
from ravine.study.directory import Study
from ravine.study.page import Page, PageTable, cell
from ravine.study.panels import (
    COLOURS,
    DASHES,
    FAINT,
    MARKERS,
    brief,
    legend,
    log_axis,
    metric_axis,
    panels,
    scaled,
    style,
)


def page_of(study: Study, summary: dict[str, Any]) -> Page:
    metric, dense, table = summary["metric"], summary["dense"], summary["table"]
    better = 1 if measures.better_is(metric) == "max" else -1
    good = [
        row
        for row in table
        if row["arm"] == "winning ticket" and better * (row[metric][0] - dense[metric][0]) >= 0
    ]
    sentences = [
        f"The dense network: {measures.title(metric).lower()} {cell(dense[metric], metric)} (mean ± standard deviation over seeds)."
    ]
    if good:
        least = min(good, key=lambda row: row["weights left in %"])
        sentences.append(
            f"The smallest ticket that is as good keeps {least['weights left in %']:.3g} % of the weights: "
            f"{cell(least[metric], metric)}."
        )
    sentences += [_against(table, metric)]
    figures = {
        "accuracy": (f"{measures.title(metric)} against sparsity", sparsity_figure(summary, metric))
    }
    # else there is no validation part
    if any(row["early stop"][0] == row["early stop"][0] for row in table):
        figures["early_stop"] = (
            "Iterations to early stopping",
            sparsity_figure(summary, "early stop"),
        )
    return Page(
        title=f"Lottery tickets of {study.recipe.name}",
        sentences=sentences,
        figures=figures,
        tables=[PageTable("By arm and round", table, best=None)],
        reading=[
            "A ticket that stays level to the right while its re-initialisation falls says that the mask fits these weights.",
            "If the random mask falls first, the structure that pruning found matters, not the number of weights alone.",
            "A ticket that stops earlier than the dense network learns faster; one whose early stop rises is starved.",
            "If tickets fall with their re-initialisation, rewind to an early step instead of to the initialisation.",
        ],
    )


def _against(table: list[dict[str, Any]], metric: str) -> str:
    last = max(row["round"] for row in table)
    rows = {row["arm"]: row for row in table if row["round"] == last}
    values = "; ".join(f"{arm} {cell(row[metric], metric)}" for arm, row in rows.items())
    return f"With {rows['winning ticket']['weights left in %']:.3g} % left: {values}."


def sparsity_figure(summary: dict[str, Any], metric: str) -> Figure:
    """Mean over seeds and the range from the least to the largest, against the weights that are
    left."""
    rows = summary["rows"]
    arms = [arm for arm in dict.fromkeys(row["arm"] for row in rows) if arm != "dense"]
    dense = scaled(metric, [row[metric] for row in rows if row["arm"] == "dense"])
    shown = [dense]
    with style():
        figure, (axes,) = panels(1, 1, 5.6, 3.5)
        axes.axhline(np.nanmean(dense), color=FAINT, lw=1, ls=(0, (2, 2)), label="dense")
        for i, arm in enumerate(arms):
            own = [row for row in rows if row["arm"] == arm]
            shown.append(_band(axes, own, metric, i, arm))
        axes.invert_xaxis()
        log_axis(axes)
        ticks = sorted(
            {
                round(100 * row["left"], 3)
                for row in rows
                if row["arm"] in ("winning ticket", "dense")
            }
        )
        axes.set_xticks(
            ticks[:: max(1, len(ticks) // 8)], [brief(t) for t in ticks[:: max(1, len(ticks) // 8)]]
        )
        axes.minorticks_off()
        axes.set_xlabel("weights left in %")
        if metric == "early stop":
            axes.set_ylabel("Step of the least validation loss")
            axes.set_ylim(bottom=0)
        else:
            metric_axis(axes, metric)
            _crop(axes, np.concatenate([v[np.isfinite(v)] for v in shown]), metric)
        legend(axes)
    return figure


def _band(axes: Axes, rows: list[dict[str, Any]], metric: str, i: int, label: str) -> np.ndarray:
    rounds = sorted({row["round"] for row in rows})
    values = [scaled(metric, [row[metric] for row in rows if row["round"] == r]) for r in rounds]
    x = [100 * np.mean([row["left"] for row in rows if row["round"] == r]) for r in rounds]
    mean = np.array([np.nanmean(v) for v in values])
    axes.plot(
        x, mean, color=COLOURS[i], ls=DASHES[i % len(DASHES)], marker=MARKERS[i], ms=4, label=label
    )
    axes.fill_between(
        x,
        [np.nanmin(v) for v in values],
        [np.nanmax(v) for v in values],
        color=COLOURS[i],
        alpha=0.15,
        lw=0,
    )
    return mean


def _crop(axes: Axes, values: np.ndarray, metric: str) -> None:
    if (
        measures.better_is(metric) == "max"
        and len(values)
        and np.median(values) - values.min() > 4 * (values.max() - np.median(values)) > 0
    ):
        reach = values.max() - np.median(values)
        axes.set_ylim(
            bottom=max(
                values.min() - 0.5,
                values.max() - max(8 * reach, 0.25 * (values.max() - values.min())),
            )
        )
