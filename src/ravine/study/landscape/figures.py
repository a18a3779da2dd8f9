"""The pictures and the page of a landscape: contours, surfaces, profiles, and a surface to turn by
hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d import Axes3D

from ravine.storage.files import plain, write_text
from ravine.study.directory import Study
from ravine.study.page import Page, PageTable
from ravine.study.panels import (
    CAPTION,
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    brief,
    legend,
    log_axis,
    panels,
    style,
)

_PAGE = Path(__file__).parent / "surface.html"


def page_of(
    study: Study, summary: dict[str, Any], found: list[dict[str, Any]], pictures: Sequence[str]
) -> Page:
    kind = summary["landscape"]
    plane = len(found[0]["y"]) > 1
    surfaces = summary["surfaces"]
    roughest = max(surfaces, key=lambda row: row["roughness"])
    listed = "; ".join(f"{row['roughness']:.3f} for {row['name']}" for row in surfaces)
    sentences = [
        f"Roughness {listed}."
        if kind != "line" or roughest["roughness"]
        else "The loss only falls and then only rises."
    ]
    if kind == "between":
        sentences = [_barrier(found[0])]
    elif len({row["roughness"] for row in surfaces}) > 1:
        sentences.insert(0, f"The surface of {roughest['name']} is the rougher one.")
    if kind == "path":
        share = sum(found[0]["explained"])
        sentences.append(f"The plane holds {100 * share:.0f} % of the path's variance.")
    way, taken, single = (
        surfaces[0][name]
        for name in ("evaluated", "seconds a point", "seconds a point, one at a time")
    )
    gain = f"; one at a time it would take {1000 * single:.3g} ms" if way != "one at a time" else ""
    sentences.append(
        f"{found[0]['loss'].size} points on {summary['samples']:,} samples of the {summary['split']} data; a point takes "
        f"{1000 * taken:.3g} ms, evaluated {way}{gain}."
    )
    figures = {"profile": ("Loss along the line", profile_figure(found, kind))}
    if plane:
        figures = {
            "contour": ("Contours of equal loss", contour_figure(found, kind)),
            "surface": ("The surface", surface_figure(found)),
        }
    return Page(
        title=f"Landscape of {study.recipe.name}",
        sentences=sentences,
        figures=figures,
        pictures=pictures,
        tables=[
            PageTable(
                "Surfaces",
                surfaces,
                "Roughness: excess variation of log loss over the grid's lines; 0 is a single valley.",
                None,
            )
        ],
        reading=[
            "Directions are as large as the weights filter by filter, so that networks of different scale can be compared.",
            "Wide, round contours are a flat minimum; narrow, broken ones a sharp or chaotic one.",
            "A plane shows two of very many directions: it can show that a landscape is rough, not that it is smooth everywhere.",
        ],
    )


def _barrier(one: dict[str, Any]) -> str:
    x, loss = one["x"], one["loss"][0]
    ends = np.interp([0.0, 1.0], x, loss)
    inside = (x > 0) & (x < 1)
    height = float(np.nanmax(loss[inside]) - max(ends))
    return f"Between them the loss rises by {height:.3g} above the higher end: " + (
        "they lie in different valleys."
        if height > 0.1 * max(ends[0], ends[1], 1e-12)
        else "hardly a barrier."
    )


DARK = "#101318"  # on the colours of a surface, which are the same in both themes


LEVELS, SHARES = 12, 10  # contours evenly in the logarithm; and where equal shares of a surface lie
CLOSEST = 1.008  # factor between two levels, unless a surface has hardly any range


def _levels(found: list[dict[str, Any]]) -> np.ndarray:
    """Levels evenly in the logarithm, from the least loss to where nearly all of the surface lies, and
    between them those that part each surface into equal shares: a plateau is more than one colour."""
    surfaces = [one["loss"][np.isfinite(one["loss"])] for one in found]
    values = np.concatenate(surfaces)
    low, high = max(values.min(), 1e-6), np.percentile(values, 98)
    low, high = low * 0.999, max(high, low * 1.01)
    shares = [np.percentile(s, np.linspace(0, 100, SHARES + 1)[1:-1]) for s in surfaces]
    levels, apart = [low], min(CLOSEST, (high / low) ** (1 / LEVELS / 4))
    for level in sorted([*np.geomspace(low, high, LEVELS), *np.concatenate(shares)]):
        if levels[-1] * apart < level < high / apart:
            levels.append(float(level))
    return np.array([*levels, high])


def contour_figure(found: list[dict[str, Any]], kind: str) -> Figure:
    """Filled contours, a step of lightness from each level to the next, some of them labelled."""
    levels = _levels(found)
    colours = colormaps["viridis_r"]
    norm = BoundaryNorm(levels, colours.N)
    with style():
        figure, axes = panels(1, len(found), 4.2, 3.6, sharex=kind != "path", sharey=kind != "path")
        for axis, one in zip(axes, found, strict=True):
            loss = np.clip(
                np.where(np.isfinite(one["loss"]), one["loss"], levels[-1]), levels[0], levels[-1]
            )
            filled = axis.contourf(one["x"], one["y"], loss, levels=levels, cmap=colours, norm=norm)
            lines = axis.contour(
                one["x"],
                one["y"],
                loss,
                levels=levels[1:-1:2],
                colors=DARK,
                linewidths=0.5,
            )
            named = _named(np.asarray(lines.levels), found)
            spots = _off(np.array(one["path"]), lines, named, axis) if "path" in one else False
            for text in axis.clabel(
                lines,
                named,
                fmt=lambda v: brief(float(f"{v:.3g}")),
                fontsize=CAPTION,
                colors=DARK,
                manual=spots,
            ):
                text.set_path_effects([withStroke(linewidth=1.8, foreground="white")])
            if "path" in one:
                path = np.array(one["path"])
                halo = [withStroke(linewidth=3.2, foreground="white")]
                axis.plot(
                    path[:, 0],
                    path[:, 1],
                    "-o",
                    color=DARK,
                    ms=2.5,
                    lw=1.2,
                    path_effects=halo,
                    label="training path",
                )
                axis.plot(*path[-1], "*", color="white", mec=DARK, ms=11, label="end")
                legend(axis)
            else:
                axis.plot([0], [0], "*", color="white", mec=DARK, ms=9)
            axis.grid(False)
            axis.set_xlabel(_label("first", one))
            if len(found) > 1:
                axis.set_title(one["name"], fontsize=9)
        axes[0].set_ylabel(_label("second", found[0]))
        shown = levels[:: max(1, len(levels) // 5)]
        bar = figure.colorbar(filled, ax=axes, label="loss", ticks=shown, spacing="uniform")
        bar.ax.set_yticks(shown, [brief(float(f"{v:.3g}")) for v in shown])
        bar.ax.minorticks_off()
    return figure


def _named(levels: np.ndarray, found: list[dict[str, Any]], most: int = 5) -> np.ndarray:
    """Those of the contours that are labelled: a few, and none where a surface is so steep that its contours touch."""
    values = np.concatenate([one["loss"][np.isfinite(one["loss"])] for one in found])
    apart = levels[levels < np.percentile(values, 72)]
    return apart[:: max(1, math.ceil(len(apart) / most))] if len(apart) else levels[:1]


def _label(which: str, one: dict[str, Any]) -> str:
    if "explained" in one:
        return f"{which} principal direction ({100 * one['explained'][which == 'second']:.0f} % of the variance)"
    return f"{which} random direction, in sizes of the filters"


def surface_figure(found: list[dict[str, Any]]) -> Figure:
    """The logarithm of the loss as a surface."""
    levels = _levels(found)
    with style():
        figure = Figure(figsize=(4.2 * len(found), 3.6), layout="constrained")
        for i, one in enumerate(found):
            axes: Axes3D = figure.add_subplot(1, len(found), i + 1, projection="3d")
            loss = np.clip(
                np.where(np.isfinite(one["loss"]), one["loss"], levels[-1]), levels[0], levels[-1]
            )
            x, y = np.meshgrid(one["x"], one["y"])
            axes.plot_surface(
                x,
                y,
                np.log10(loss),
                cmap="viridis_r",
                rstride=1,
                cstride=1,
                lw=0.15,
                edgecolor="#00000030",
            )
            axes.set_zlim(np.log10(levels[0]), np.log10(levels[-1]))
            axes.set_zlabel("log10 loss")
            axes.set_xlabel("first direction")
            axes.set_ylabel("second direction")
            axes.view_init(35, -60)
            axes.set_box_aspect(None, zoom=0.85)
            axes.tick_params(labelsize=CAPTION)
            axes.locator_params(nbins=4)
            if len(found) > 1:
                axes.set_title(one["name"], fontsize=9)
    return figure


def profile_figure(found: list[dict[str, Any]], kind: str) -> Figure:
    """Loss, and accuracy where there is one, along a line."""
    metrics = ["loss", *(["accuracy"] if "accuracy" in found[0] else [])]
    with style():
        figure, axes = panels(1, len(metrics), 3.8, 3.0)
        for axis, metric in zip(axes, metrics, strict=True):
            for i, one in enumerate(found):
                values = np.array(one[metric], float)[0] * (100 if metric == "accuracy" else 1)
                label = one["name"] if len(found) > 1 else None
                axis.plot(
                    one["x"],
                    values,
                    color=COLOURS[i],
                    ls=DASHES[i],
                    marker=MARKERS[i],
                    ms=3,
                    label=label,
                )
            _ends(axis, kind)
            axis.set_ylabel("Accuracy in %" if metric == "accuracy" else "Loss")
            axis.set_xlabel(
                "from the first network (0) to the second (1)"
                if kind == "between"
                else "random direction, in sizes of the filters"
            )
        values = np.concatenate([one["loss"][np.isfinite(one["loss"])] for one in found])
        if values.min() > 0 and values.max() > 20 * values.min():
            log_axis(axes[0], "y")
        legend(axes[0], 1)
    return figure


def _off(path: np.ndarray, lines: Any, named: np.ndarray, axes: Axes) -> list[tuple[float, float]]:
    """For each contour that is labelled its place inside the axes that is farthest from the path [T, 2]."""
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    scaled, spots = (path - low) / (high - low), []
    steps = np.linspace(0, 1, 20)[:, None, None]
    course = (scaled[:-1] + steps * np.diff(scaled, axis=0)).reshape(-1, 2)
    for level, segments in zip(lines.levels, lines.allsegs, strict=True):
        if level not in named:
            continue
        points = np.concatenate([*segments, np.empty((0, 2))])
        inside = (points - low) / (high - low)
        inside = inside[((inside > 0.08) & (inside < 0.92)).all(1)]
        if len(inside):
            gaps = np.linalg.norm(inside[:, None] - course, axis=-1).min(1)
            spots.append(tuple(low + inside[gaps.argmax()] * (high - low)))
    return spots


def _ends(axes: Axes, kind: str) -> None:
    for place in (0.0, 1.0) if kind == "between" else (0.0,):
        axes.axvline(place, color=INK, lw=0.7, ls=(0, (2, 2)))


def write_interactive(folder: Path, title: str, found: list[dict[str, Any]]) -> str:
    """``surface.html``: the surfaces to turn by hand; nothing is fetched from elsewhere."""
    levels = _levels(found)
    surfaces = [
        {
            "name": one["name"],
            "x": one["x"],
            "y": one["y"],
            "z": np.log10(
                np.clip(
                    np.where(np.isfinite(one["loss"]), one["loss"], levels[-1]),
                    levels[0],
                    levels[-1],
                )
            ),
        }
        for one in found
    ]
    data = json.dumps(
        plain(
            {
                "title": title,
                "surfaces": surfaces,
                "low": np.log10(levels[0]),
                "high": np.log10(levels[-1]),
            }
        )
    )
    write_text(
        folder / "surface.html",
        _PAGE.read_text(encoding="utf-8").replace("/*DATA*/null", data.replace("<", "\\u003c")),
    )
    return "surface.html"
