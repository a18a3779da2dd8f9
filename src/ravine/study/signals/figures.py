"""The pictures and the page of signals before training."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ravine.study.directory import Study
from ravine.study.page import Page, PageTable
from ravine.study.panels import (
    CAPTION,
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    brief,
    log_axis,
    panels,
    style,
)

FLOOR = 1e-30


def page_of(study: Study, summary: dict[str, Any]) -> Page:
    table = summary["table"]
    rated = [
        (
            abs(np.log10(max(row["signal, last / first layer"] or FLOOR, FLOOR)))
            + abs(np.log10(max(row["gradient, first / last layer"] or FLOOR, FLOOR))),
            row,
        )
        for row in table
    ]
    _, best = min(rated, key=lambda pair: pair[0])
    _, worst = max(rated, key=lambda pair: pair[0])

    def say(row: dict[str, Any]) -> str:
        forward, back = row["signal, last / first layer"], row["gradient, first / last layer"]
        shown = [f"{value:.3g}" if value is not None else "nothing" for value in (forward, back)]
        kind = row["activation"] if row["activation"] != "own" else "the model's own activations"
        return f"{row['initializer']} with {kind} (signal x {shown[0]} forward, gradient x {shown[1]} back)"

    return Page(
        title=f"Signals before training on {study.recipe.name}",
        sentences=[
            f"Size is kept best by {say(best)}, worst by {say(worst)}.",
            "Factors are of standard deviations between the first and the last hidden layer.",
        ],
        figures={
            "forward": (
                "Variance before the activation, by depth",
                depth_figure(summary["networks"], "z variance"),
            ),
            "backward": (
                "Variance of the gradient, by depth",
                depth_figure(summary["networks"], "gradient variance"),
            ),
            "histograms": (
                "Activations of the first, a middle and the last hidden layer (deeper is darker; zeros of ReLU left out)",
                histogram_figure(summary["networks"]),
            ),
        },
        tables=[PageTable("By initialiser and activation", table, best=None)],
        reading=[
            "Level lines train from the first step; falling ones vanish, rising ones explode with depth.",
            "Points are measured, dashes are the theory of wide layers: where they part, layers are narrow or inputs correlated.",
            "Many dead units waste width; saturated ones pass no gradient back.",
        ],
    )


def depth_figure(networks: list[dict[str, Any]], name: str) -> Figure:
    """A variance against depth, one panel for each activation, one line for each initialiser,
    theory dashed."""
    activations = list(dict.fromkeys(one["activation"] for one in networks))
    initializers = list(dict.fromkeys(one["initializer"] for one in networks))
    label = "Variance before the activation" if name == "z variance" else "Variance of the gradient"
    with style():
        figure, axes = panels(1, len(activations), 3.2, 3.0, sharey=True)
        values: list[float] = []
        for axis, activation in zip(axes, activations, strict=True):
            for one in (n for n in networks if n["activation"] == activation):
                i = initializers.index(one["initializer"])
                y = [layer[name] for layer in one["layers"]]
                y = [v if v is not None and v > FLOOR else np.nan for v in y]
                values += [v for v in y if np.isfinite(v)]
                x = np.arange(1, len(y) + 1)
                axis.plot(
                    x,
                    y,
                    MARKERS[i],
                    color=COLOURS[i],
                    ms=4,
                    ls="-",
                    lw=0.6,
                    label=one["initializer"],
                )
                if one["theory"]:
                    axis.plot(
                        x, one["theory"][name], color=COLOURS[i], ls=DASHES[1], lw=1.4, alpha=0.8
                    )
            axis.set_title(
                activation if activation != "own" else "its own activations", fontsize=9.5
            )
            axis.set_xlabel("layer")
        log_axis(axes[0], "y")
        axes[0].set_ylabel(label)
        axes[0].plot([], [], color=INK, ls=DASHES[1], label="theory")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper left", ncols=min(3, len(labels)), frameon=False
        )
    return figure


def histogram_figure(networks: list[dict[str, Any]]) -> Figure:
    """Histograms of activations: a row for each activation, a column for each initialiser, deeper
    layers darker."""
    activations = list(dict.fromkeys(one["activation"] for one in networks))
    initializers = list(dict.fromkeys(one["initializer"] for one in networks))
    with style():
        figure, axes = panels(len(activations), len(initializers), 2.2, 1.7)
        for axis, one in zip(
            axes,
            sorted(
                networks,
                key=lambda n: (
                    activations.index(n["activation"]),
                    initializers.index(n["initializer"]),
                ),
            ),
            strict=True,
        ):
            _histograms(axis, one["layers"][:-1] or one["layers"])
            axis.set_yticks([])
            axis.tick_params(labelsize=CAPTION)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.xaxis.set_major_formatter(lambda value, _: brief(value))
        for i, initializer in enumerate(initializers):
            axes[i].set_title(initializer, fontsize=9)
        for j, activation in enumerate(activations):
            axes[j * len(initializers)].set_ylabel(f"{activation}\ndensity", fontsize=9)
        figure.supxlabel("activation", fontsize=9.5)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=9
        )
    return figure


def _histograms(axes: Axes, layers: list[dict[str, Any]]) -> None:
    shown = sorted({0, len(layers) // 2, len(layers) - 1})
    for shade, place in zip((0.35, 0.65, 1.0), shown, strict=False):
        edges, density = (
            np.asarray(layers[place]["histogram"]["edges"]),
            np.asarray(layers[place]["histogram"]["density"]),
        )
        top = density.max() or 1.0
        axes.stairs(
            density / top, edges, color=COLOURS[0], alpha=shade, lw=1.2, label=f"layer {place + 1}"
        )
