"""The pictures and the page of the learning-rate panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ravine.study.directory import Study
from ravine.study.page import Page, PageTable
from ravine.study.panels import COLOURS, FAINT, INK, brief, legend, log_axis, panels, style


def page_of(
    study: Study, summary: dict[str, Any], rates: Sequence[float], courses: Sequence[np.ndarray]
) -> Page:
    sentences = ["No rate lowers the loss: look for what else is wrong (ravine doctor)."]
    if summary["suggested"] is not None:
        low, high = (brief(rate) for rate in summary["range"])
        sentences = [
            f"Try a learning rate of {brief(summary['suggested'])}; all from {low} to {high} come within a tenth of its fall."
        ]
    if summary["edge"]:
        below, above = summary["edge"]
        at = f"between {brief(below)} and {brief(above)}" if below else f"below {brief(above)}"
        sentences.append(f"Training diverges from a rate {at} on.")
    else:
        sentences.append("No rate diverged.")
    sentences.append(
        f"{len(rates)} rates trained as one population for {summary['steps']:,} steps, with {study.recipe.optimizer.kind}."
    )
    best = rates.index(summary["suggested"]) if summary["suggested"] is not None else None
    return Page(
        title=f"Learning rates of {study.recipe.name}",
        sentences=sentences,
        figures={
            "curves": ("Loss of each rate", curves_figure(rates, courses, summary)),
            "final": ("Loss in the end", final_figure(rates, summary)),
        },
        tables=[
            PageTable(
                "Rates",
                summary["table"],
                "Fall: how far the loss fell from its first value, in per cent of the best rate's fall.",
                best,
            )
        ],
        reading=[
            "Dark curves hardly move: too low. Bright ones fall fastest, until they shake, rise or leave (dashed: diverged).",
            "The suggested rate falls furthest in this short run. For a long run, start near it or up to three times lower.",
            "If the best rate is close to the edge of divergence, use a warm-up or a smaller rate.",
        ],
    )


def curves_figure(
    rates: Sequence[float], courses: Sequence[np.ndarray], summary: dict[str, Any]
) -> Figure:
    """Smoothed loss over steps, coloured from the lowest rate to the highest; what diverged is
    dashed."""
    # its lightest is lost on white
    colours = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))
    norm = LogNorm(rates[0], rates[-1])
    first = summary["first_loss"]
    with style():
        figure, (axes,) = panels(1, 1, 5.6, 3.5)
        lowest = first
        for rate, course, row in zip(rates, courses, summary["table"], strict=True):
            lost = row["verdict"] == "diverged"
            shown = np.where(course < 3 * first, course, np.nan)
            lowest = min(lowest, np.nanmin(shown)) if np.isfinite(shown).any() else lowest
            axes.plot(
                np.arange(1, len(shown) + 1),
                shown,
                color=colours(norm(rate)),
                ls=(0, (3, 1.2)) if lost else "-",
                lw=1.4,
            )
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_ylabel("Training loss, smoothed")
        axes.set_ylim(bottom=lowest / 1.3 if lowest > 0 else None, top=1.6 * first)
        if 0 < lowest < first / 10:
            log_axis(axes, "y")
        bar = figure.colorbar(
            matplotlib.cm.ScalarMappable(norm, colours), ax=axes, label="learning rate", pad=0.02
        )
        bar.set_label(
            "learning rate" if summary["suggested"] is None else "learning rate (line: suggested)"
        )
        bar.ax.yaxis.set_major_formatter(lambda value, _: brief(value))
        bar.ax.minorticks_off()
        if summary["suggested"] is not None:
            bar.ax.axhline(summary["suggested"], color="white", lw=3)
            bar.ax.axhline(summary["suggested"], color=INK, lw=1.2)
    return figure


def final_figure(rates: Sequence[float], summary: dict[str, Any]) -> Figure:
    """The loss in the end against the rate; the suggested range shaded, the edge of divergence
    marked."""
    finals = np.array([row["final loss"] for row in summary["table"]], float)
    lost = np.array([row["verdict"] == "diverged" for row in summary["table"]])
    x = np.array(rates)
    with style():
        figure, (axes,) = panels(1, 1, 5.0, 3.5)
        shown = np.where(lost, np.nan, finals)
        axes.plot(x, shown, "-o", color=COLOURS[0], ms=4, label="loss in the end")
        axes.axhline(summary["first_loss"], color=FAINT, lw=0.8, ls=(0, (2, 2)), label="first loss")
        if lost.any():
            axes.plot(
                x[lost],
                np.full(lost.sum(), 0.96),
                "x",
                color=COLOURS[1],
                transform=axes.get_xaxis_transform(),
                label="diverged",
            )
            axes.margins(y=0.12)  # between the crosses and the first loss
        if summary["range"]:
            axes.axvspan(
                *summary["range"], color=COLOURS[0], alpha=0.15, lw=0, label="suggested range"
            )
        log_axis(axes)
        values = shown[np.isfinite(shown)]
        if len(values) and values.min() > 0 and values.max() > 20 * values.min():
            log_axis(axes, "y")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("Training loss in the end")
        legend(axes, 2)
    return figure
