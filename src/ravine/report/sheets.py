"""Sheets of samples: images by class, the columns of a table, lines of a text, sequences as
curves."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from ravine.errors import InputError
from ravine.report.figures import CAPTION, COLOURS, FAINT, INK, style
from ravine.storage.files import atomic, new_file

_PICTURES = (".png", ".svg", ".pdf")
Row = tuple[str, np.ndarray, Sequence[str]]  # a title, items [n, ...], captions of the items
_MOST_COLUMNS = 24  # of a table, drawn one by one


def place_of(out: Path | None, name: str) -> Path:
    """Where a sheet goes: ``out``, ``NAME.png`` in the directory ``out``, or a free name in the working
    directory; never over a file. Asked before the work: what cannot be written there is refused."""
    if out is not None and out.suffix.lower() in _PICTURES:
        path = out
    elif out is not None and out.suffix and not out.is_dir():
        raise InputError(
            "--out",
            got=str(out),
            expected=f"a name that ends in {', '.join(_PICTURES)}, or a directory",
        )
    else:
        path = _free(out or Path(), name)
    return new_file(path, parents=True)


def save(figure: Figure, path: Path) -> Path:
    """Save a sheet at a place that is free."""
    for text in figure.findobj(Text):  # names of classes and files, as they are
        text.set_parse_math(False)
        text.set_text(text.get_text().encode("utf-8", "backslashreplace").decode())
    with style(), atomic(path, new=True) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower())
    return path


def _free(directory: Path, name: str) -> Path:
    names = (directory / f"{name}{'' if i == 1 else f'-{i}'}.png" for i in range(1, 1_000_000))
    return next(path for path in names if not os.path.lexists(path))


# --- rows of small pictures -----------------------------------------------------------------------


def image_sheet(rows: Sequence[Row], title: str, *, last: np.ndarray | None = None) -> Figure:
    """Rows of images [n, C, H, W], each row with a title and perhaps a caption under each image.

    All are shown between the least and the largest value of the sheet; bytes between 0 and 255.
    ``last`` adds one image to each row, the last one as the network sees it, between its own least
    and largest value.
    """
    rows = [
        (name, images if images.ndim == 4 else images[:, None], captions)
        for name, images, captions in rows
    ]
    low, high = _range([images for _, images, _ in rows])
    if last is not None:
        seen = [
            low + (high - low) * (image - image.min()) / max(np.ptp(image), 1e-12) for image in last
        ]
        rows = [
            (name, np.concatenate([images, seen[i][None]]), [*captions, "…preprocessed"])
            for i, (name, images, captions) in enumerate(rows)
        ]

    def draw(axes: Axes, image: np.ndarray) -> None:
        pixels = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
        if len(pixels) == 3:
            axes.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
        else:
            axes.imshow(pixels[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")

    height, width = rows[0][1].shape[2:]
    return _grid(rows, title, draw, aspect=height / width)


def sequence_sheet(rows: Sequence[Row], title: str) -> Figure:
    """Rows of sequences [n, T, F] as curves, one for each feature."""
    known = np.concatenate([values[np.isfinite(values)].ravel() for _, values, _ in rows])
    low, high = known.min(), known.max()
    room = 0.05 * max(high - low, 1e-12)

    def draw(axes: Axes, values: np.ndarray) -> None:
        for i, feature in enumerate(values.T[:8]):
            axes.plot(feature, color=COLOURS[i % len(COLOURS)], lw=0.9)
        axes.set_ylim(low - room, high + room)

    return _grid(rows, title, draw, aspect=0.7)


def values_sheet(rows: Sequence[Row], names: Sequence[str], title: str) -> Figure:
    """Rows of a table [n, D], one original and its draws: the original's values as dots, the draws'
    as crosses; each column between its least and its largest value."""
    everything = np.concatenate([items.reshape(len(items), -1) for _, items, _ in rows])
    low, spread = np.nanmin(everything, 0), np.nanmax(everything, 0) - np.nanmin(everything, 0)
    with style():
        figure = Figure(
            figsize=(max(4.0, min(14.0, 1.2 + 0.3 * len(names))), 0.7 + 0.75 * len(rows)),
            layout="constrained",
        )
        figure.suptitle(
            f"{title} (dots: original)",
            x=0.01,
            ha="left",
            fontsize=9.5,
            fontweight="bold",
            color=INK,
        )
        panels = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, items, _) in zip(panels, rows, strict=True):
            scaled = (items.reshape(len(items), -1) - low) / np.where(spread > 0, spread, 1.0)
            for draw in scaled[1:]:
                axes.plot(draw, "x", color=COLOURS[1], ms=4, mew=0.8)
            axes.plot(scaled[0], "o", color=COLOURS[0], ms=4)
            axes.set(ylim=(-0.15, 1.15), yticks=[])
            axes.set_ylabel(_short(name, 10), fontsize=CAPTION, rotation=0, ha="right", va="center")
        shown = range(len(names)) if len(names) <= 60 else range(0, len(names), len(names) // 30)
        panels[-1].set_xticks(
            shown, [_short(names[i], 14) for i in shown], rotation=90, fontsize=CAPTION
        )
    return figure


def _range(images: Sequence[np.ndarray]) -> tuple[float, float]:
    low, high = min(float(i.min()) for i in images), max(float(i.max()) for i in images)
    whole = low >= 0 and 1 < high <= 255 and all(bool((i == np.round(i)).all()) for i in images)
    return (0.0, 255.0) if whole and high > 16 else (low, high)


def _grid(rows: Sequence[Row], title: str, draw: Any, aspect: float) -> Figure:
    """One small picture for each item of each row, the rows' titles on the left."""
    columns = max(len(items) for _, items, _ in rows)
    if len(rows) == 1 and columns > 10:
        rows = _broken(*rows[0], width=10)
        columns = 10
    cell = 0.85
    lines = [_lines(caption).count("\n") + 1 for _, _, some in rows for caption in some if caption]
    captioned = 0.04 + 0.15 * max(lines) if lines else 0.0
    left = 0.15 + 0.075 * max(len(_short(name)) for name, _, _ in rows)
    tall, top = cell * min(max(aspect, 0.3), 3.0) + captioned + 0.05, 0.45
    with style():
        figure = Figure(
            figsize=(max(left + columns * (cell + 0.05) + 0.1, 3.5), top + len(rows) * tall + 0.1)
        )
        wide, high = figure.get_size_inches()
        figure.text(0.1 / wide, 1 - 0.28 / high, title, fontweight="bold", color=INK)
        for r, (name, items, captions) in enumerate(rows):
            middle = high - top - r * tall - (tall - captioned) / 2
            figure.text(
                (left - 0.08) / wide,
                middle / high,
                _short(name),
                ha="right",
                va="center",
                fontsize=9,
                color=INK,
            )
            for c, item in enumerate(items):
                bottom = high - top - (r + 1) * tall + captioned + 0.05
                x = left + c * (cell + 0.05)
                axes = figure.add_axes(
                    (x / wide, bottom / high, cell / wide, (tall - captioned - 0.05) / high)
                )
                _bare(axes)
                draw(axes, item)
                if c < len(captions) and captions[c]:
                    axes.set_xlabel(
                        _lines(captions[c]), fontsize=CAPTION, labelpad=1.5, color=FAINT
                    )
    return figure


def _broken(name: str, items: np.ndarray, captions: Sequence[str], width: int) -> list[Row]:
    return [
        (name, items[i : i + width], captions[i : i + width]) for i in range(0, len(items), width)
    ]


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#d5d9de")
        spine.set_linewidth(0.5)


def _short(text: str, limit: int = 18) -> str:
    plain = text.replace("$", r"\$")
    return plain if len(text) <= limit else plain[: limit - 1] + "…"


def _lines(caption: str) -> str:
    """A caption in up to two lines, as wide as the picture above it."""
    return "\n".join(
        _short(line) for line in textwrap.wrap(caption, 12, max_lines=2, placeholder="…")
    )


# --- tables ---------------------------------------------------------------------------------------


def table_sheet(columns: Sequence[Any], targets: Sequence[Any], title: str) -> Figure:
    """The targets' balance or spread, and how the values of each column are spread, by class where
    there are few.

    Of a column: ``name``, ``values`` [N] with NaN where missing, and ``categories`` where the
    values are their codes.
    """
    shown = list(columns[:_MOST_COLUMNS])
    classes = (
        targets[0].categories
        if len(targets) == 1 and 1 < len(targets[0].categories) <= len(COLOURS)
        else ()
    )
    labels = targets[0].values if classes else None
    panels = [
        *((column, None, True) for column in targets[:4]),
        *((column, labels, False) for column in shown),
    ]
    if len(columns) == 2 and not any(column.categories for column in columns):
        return _plane(columns[0], columns[1], labels, classes, title)
    across = min(4, max(2, math.ceil(math.sqrt(len(panels)))))
    down = math.ceil(len(panels) / across)
    tall = 2.4 if any(len(column.categories) > 8 for column, _, _ in panels) else 1.8
    with style():
        figure = Figure(figsize=(2.6 * across, tall * down + 0.55), layout="constrained")
        more = (
            f", the first {len(shown)} of {len(columns)} columns"
            if len(columns) > len(shown)
            else ""
        )
        figure.suptitle(
            f"{title}{more}", x=0.01, ha="left", fontsize=9.5, fontweight="bold", color=INK
        )
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for axes, (column, by, is_target) in zip(grid, panels, strict=False):
            draw = _bars if column.categories else _histogram
            draw(axes, column, by, classes if by is not None or is_target else ())
            axes.set_title(
                f"{'target: ' if is_target else ''}{_short(column.name, 28)}",
                fontsize=CAPTION,
                loc="left",
                color=INK,
            )
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
    return figure


def _plane(x: Any, y: Any, labels: np.ndarray | None, classes: Sequence[str], title: str) -> Figure:
    """Two columns against each other, the classes by colour."""
    with style():
        figure = Figure(figsize=(4.6, 4.4), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold", color=INK)
        axes = figure.subplots()
        for k in range(max(1, len(classes))):
            of_class = slice(None) if labels is None else labels == k
            name = f"{classes[k]} ({int((labels == k).sum()):,})" if labels is not None else None
            axes.plot(
                x.values[of_class], y.values[of_class], ".", ms=4, color=COLOURS[k], label=name
            )
        axes.set(xlabel=x.name, ylabel=y.name)
        if classes:
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(-0.02, 1.0),
                ncols=4,
                handletextpad=0.1,
                columnspacing=0.8,
            )
    return figure


def _histogram(axes: Axes, column: Any, labels: np.ndarray | None, classes: Sequence[str]) -> None:
    known = np.isfinite(column.values)
    values = column.values[known]
    if not len(values):
        return
    if values.min() == values.max():
        text = f"constant {values[0]:.4g}"
        axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=FAINT)
        axes.set(xticks=[], yticks=[])
        return
    edges = np.linspace(values.min(), values.max(), 25).tolist()
    if labels is None:
        axes.hist(values, edges, color=COLOURS[0])
    else:
        for k in range(len(classes)):
            axes.hist(values[labels[known] == k], edges, histtype="step", color=COLOURS[k], lw=1.1)
    missing = int((~known).sum())
    axes.set_xlabel(
        f"{values.min():.4g} to {values.max():.4g}{f', {missing} missing' if missing else ''}",
        fontsize=CAPTION,
        color=FAINT,
    )
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=CAPTION)


def _bars(axes: Axes, column: Any, labels: np.ndarray | None, classes: Sequence[str]) -> None:
    """How often each category occurs, the most frequent first; of the target, in the order of the
    classes."""
    known = column.values[np.isfinite(column.values)].astype(int)
    counts = np.bincount(known[known >= 0], minlength=len(column.categories))
    order = np.arange(len(counts)) if labels is None else np.argsort(-counts, kind="stable")
    order = order[:12]
    colours = (
        [COLOURS[k] for k in order]
        if labels is None and len(classes) == len(counts)
        else COLOURS[0]
    )
    axes.barh(np.arange(len(order)), counts[order], color=colours, height=0.7)
    for place, k in enumerate(order):
        axes.text(counts[k], place, f" {counts[k]:,}", va="center", fontsize=CAPTION, color=FAINT)
    axes.set_yticks(np.arange(len(order)), [_short(column.categories[k], 14) for k in order])
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.grid(False)
    axes.set_xticks([])
    axes.tick_params(labelsize=CAPTION)
    notes = [f"{len(counts) - len(order)} more" if len(counts) > len(order) else ""]
    missing = len(column.values) - len(known)
    notes.append(f"{missing} missing" if missing else "")
    axes.set_xlabel(", ".join(note for note in notes if note), fontsize=CAPTION, color=FAINT)


# --- texts ----------------------------------------------------------------------------------------


def text_sheet(lines: Sequence[str], title: str) -> Figure:
    """Lines of a text, or rows of tokens, one below the other; a line's end inside is shown as
    ⏎."""
    shown = [_printable(line) for line in lines]
    with style():
        widest = min(110, max((len(line) for line in shown), default=1))
        figure = Figure(figsize=(max(4.0, 0.3 + 0.077 * widest), 0.55 + 0.21 * len(shown)))
        wide, high = figure.get_size_inches()
        figure.text(0.12 / wide, 1 - 0.28 / high, title, fontweight="bold", color=INK)
        for i, line in enumerate(shown):
            place = 1 - (0.55 + 0.21 * i) / high
            figure.text(
                0.12 / wide,
                place,
                _short(line, 110),
                family="monospace",
                fontsize=CAPTION,
                va="center",
                color=INK,
            )
    return figure


def _printable(line: str) -> str:
    return "".join("⏎" if c == "\n" else c if c.isprintable() else "·" for c in line)
