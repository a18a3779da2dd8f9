"""The pictures and the page of features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ravine.study.directory import Study
from ravine.study.page import Page, PageTable
from ravine.study.panels import CAPTION, COLOURS, style

MOST = 64


def page_of(study: Study, summary: dict[str, Any], found: dict[str, Any]) -> Page:
    weights = found["filters"]
    figures: dict[str, tuple[str, Figure]] = {}
    if weights.shape[2] > 1:
        figures["filters"] = (
            f"Weights of the first layer ({summary['first layer']})",
            filters_figure(weights),
        )
    else:
        figures["filters"] = ("Weights of the first layer", matrix_figure(weights[:, 0, 0]))
    if "units" in found:
        figures["patches"] = (
            f"What excites units of {found['layer']} most",
            patches_figure(found["units"]),
        )
    if "maps" in found["saliency"]:
        figures["saliency"] = (
            "Saliency: where the class's score would change most",
            saliency_figure(found["saliency"]),
        )
    elif found["saliency"].get("features"):
        figures["saliency"] = (
            "Mean saliency of each feature",
            importance_figure(found["saliency"]["features"], found["columns"]),
        )
    idle = summary["idle filters"]
    sentence = (
        f"{idle} of {summary['filters']} filters of the first layer are nearly empty."
        if idle
        else f"None of the {summary['filters']} filters of the first layer is empty."
    )
    return Page(
        title=f"Features of {study.recipe.name}",
        sentences=[sentence, f"Patches are those of units of layer {found['layer']}."]
        if "units" in found
        else [sentence],
        figures=figures,
        tables=[PageTable("Units", summary["units"], best=None)] if summary["units"] else [],
        reading=[
            "Smooth, varied filters are a sign of good training; noisy ones of too little training or regularisation.",
            "Patches of one unit should have something in common: that is its feature. Units with the same patches are redundant.",
            "Saliency that lies off the object says that the network uses the background.",
        ],
    )


def _show(axes: Axes, image: np.ndarray, low: float, high: float, cmap: str = "gray") -> None:
    pixels = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
    if pixels.ndim == 3 and len(pixels) == 3:
        axes.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
    else:
        axes.imshow(
            pixels[0] if pixels.ndim == 3 else pixels,
            cmap=cmap,
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _sheet(rows: int, columns: int, size: float = 0.85) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(max(3.0, size * columns), max(1.0, size * rows)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        _bare(axis)
    return figure, axes


def filters_figure(weights: np.ndarray) -> Figure:
    """Filters as images, each on its own scale around zero (grey is zero)."""
    shown = weights[np.argsort(-(weights**2).sum((1, 2, 3)))][:MOST]
    columns = min(len(shown), 8 if len(shown) > 8 else len(shown))
    with style():
        figure, axes = _sheet(math.ceil(len(shown) / columns), columns)
        for axis, one in zip(axes.flat, shown, strict=False):
            top = np.abs(one).max()
            _show(axis, one if len(one) == 3 else one.mean(0, keepdims=True), -top, top)
    return figure


def matrix_figure(weights: np.ndarray) -> Figure:
    """A dense layer's weights as a picture: units down, inputs across."""
    top = np.abs(weights).max()
    with style():
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        shown = axes.imshow(
            weights[:MOST],
            cmap="RdBu_r",
            vmin=-top,
            vmax=top,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_xlabel("input")
        axes.set_ylabel("unit")
        axes.grid(False)
        figure.colorbar(shown, label="weight")
    return figure


def patches_figure(units: list[dict[str, Any]]) -> Figure:
    """A row for each unit, the most exciting patch first."""
    columns = max(len(one["patches"]) for one in units)
    everything = np.concatenate([patch.ravel() for one in units for patch in one["patches"]])
    low, high = float(everything.min()), float(everything.max())
    with style():
        figure, axes = _sheet(len(units), columns)
        for row, one in zip(axes, units, strict=True):
            for axis, patch in zip(row, one["patches"], strict=False):
                _show(axis, patch, low, high)
            row[0].set_ylabel(
                f"unit {one['unit']}", fontsize=CAPTION, rotation=0, ha="right", va="center"
            )
    return figure


def saliency_figure(found: dict[str, Any]) -> Figure:
    """Each input above its saliency map (bright is large)."""
    images, maps = found["images"], found["maps"]
    with style():
        figure, axes = _sheet(2, len(images), 1.1)
        low, high = float(images.min()), float(images.max())
        for i, (image, salient) in enumerate(zip(images, maps, strict=True)):
            _show(axes[0, i], image, low, high)
            axes[0, i].set_title(found["names"][i], fontsize=CAPTION)
            _show(axes[1, i], salient, 0.0, float(np.percentile(salient, 99.5)) or 1.0, "magma")
    return figure


def importance_figure(values: list[float], columns: Any, most: int = 20) -> Figure:
    """The mean size of the score's derivative by each feature, the largest first."""
    order = np.argsort(values)[::-1][:most]
    names = [
        str(columns[i]) if columns and len(columns) == len(values) else f"input {i}" for i in order
    ]
    with style():
        figure = Figure(figsize=(5.0, 0.8 + 0.22 * len(order)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(range(len(order)), [values[i] for i in order], color=COLOURS[0])
        axes.set_yticks(range(len(order)), names)
        axes.invert_yaxis()
        axes.set_xlabel("mean |d score / d input|")
    return figure
