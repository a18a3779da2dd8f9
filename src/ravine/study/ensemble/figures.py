"""The pictures and the page of an ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ravine import measures
from ravine.study.directory import Study
from ravine.study.page import Page, PageTable
from ravine.study.panels import (
    COLOURS,
    DASHES,
    FAINT,
    legend,
    log_axis,
    metric_axis,
    panels,
    scaled,
    style,
)


def page_of(study: Study, summary: dict[str, Any]) -> Page:
    joint, mean = summary["table"][0], summary["table"][1]
    names = [name for name in joint if name != "who"][:2]
    values = "; ".join(
        f"{_name(n)} {measures.show(n, joint[n])} (mean member {measures.show(n, mean[n])})"
        for n in names
    )
    figures = {}
    sentences = [f"The ensemble of {summary['members']} on the {summary['split']} data: {values}."]
    if "reliability" in summary:
        sentences.append(
            f"Two members give different classes for {100 * summary['disagreement']:.2f} % of the samples."
        )
        figures = {
            "grown": ("More members", grown_figure(summary)),
            "reliability": ("Reliability", reliability_figure(summary)),
        }
    sentences.append(f"It predicts as one model: ravine predict {study.path} INPUT.")
    return Page(
        title=f"Ensemble for {study.recipe.name}",
        sentences=sentences,
        figures=figures,
        tables=[PageTable(f"On the {summary['split']} data", summary["table"])],
        reading=[
            "The gain comes from disagreement: members that make the same mistakes gain nothing from each other.",
            "In the reliability diagram, below the diagonal is over-confident. Averaging lowers confidence: one that is too sure "
            "gains, one that was calibrated becomes underconfident.",
            "The curve of more members flattens early; where it is flat, further members only cost.",
        ],
    )


def _name(metric: str) -> str:
    return {"ece": "calibration error", "log_loss": "log-loss", "rmse": "RMSE"}.get(
        metric, metric.replace("_", " ")
    )


def grown_figure(summary: dict[str, Any]) -> Figure:
    """Accuracy and log-loss of the first k members together, beside each member alone."""
    with style():
        figure, axes = panels(1, 2, 3.6, 2.9)
        for axis, metric in zip(axes, ("accuracy", "log_loss"), strict=True):
            together = scaled(metric, [row[metric] for row in summary["grown"]])
            alone = scaled(metric, [row[metric] for row in summary["single"]])
            x = np.arange(1, len(together) + 1)
            axis.plot(x, alone, "o", color=FAINT, ms=4, label="member k alone")
            axis.plot(x, together, "-o", color=COLOURS[0], ms=4, label="first k together")
            axis.set_xlabel("members, k")
            metric_axis(axis, metric)
        axes[1].set_ylabel("Log-loss in nats")
        legend(axes[0], 2)
    return figure


def reliability_figure(summary: dict[str, Any]) -> Figure:
    """Accuracy against confidence, and how many samples have that confidence."""
    with style():
        figure, axes = panels(2, 1, 4.2, 1.9, sharex=True, height_ratios=(3, 1))
        axes[0].plot([0, 100], [0, 100], color=FAINT, lw=0.8, ls=(0, (2, 2)), label="calibrated")
        _line(
            axes[0],
            summary["reliability"]["members"],
            COLOURS[1],
            DASHES[1],
            1.6,
            "members, pooled",
        )
        _line(axes[0], summary["reliability"]["ensemble"], COLOURS[0], "-", 2.2, "ensemble")
        axes[0].set_ylabel("Accuracy in %")
        whole = summary["reliability"]["ensemble"]
        axes[1].bar(
            [100 * b["confidence"] for b in whole],
            [b["count"] for b in whole],
            width=4,
            color=COLOURS[0],
        )
        log_axis(axes[1], "y")
        axes[1].minorticks_off()
        axes[1].set_ylabel("samples")
        axes[1].set_xlabel("confidence in %")
        legend(axes[0], 2)
    return figure


def _line(
    axes: Axes, bins: list[dict[str, Any]], colour: str, dash: Any, width: float, label: str | None
) -> None:
    enough = [b for b in bins if b["count"] >= 3]
    axes.plot(
        [100 * b["confidence"] for b in enough],
        [100 * b["accuracy"] for b in enough],
        color=colour,
        ls=dash,
        lw=width,
        marker="o",
        ms=2 + width,
        label=label,
    )
