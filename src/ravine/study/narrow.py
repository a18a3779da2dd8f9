"""Figures for a narrow page, their labels as large as on a wide one. A figure of several panels has its
panels below one another: views of the parts of one SVG, so that nothing is drawn twice. A figure of one
panel is laid out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import BboxBase

from ravine.report.figures import PIXELS
from ravine.study.panels import legend

NARROW = 3.5  # inches that a phone has room for
EDGE = 3.0  # points around what is cut out
BESIDE = 6.0  # points by which the first label below a panel may reach to its left


class Box(NamedTuple):
    """A part of the figure in points; y downwards, as in SVG."""

    x: float
    y: float
    width: float
    height: float


def refit(figure: Figure, width: float = NARROW) -> None:
    """Lay a figure of one panel out again for another width (inches): its legend in as many columns as
    fit, fewer ticks where their labels would touch."""
    figure.set_layout_engine("constrained")
    figure.set_figwidth(width)
    for axes in figure.axes:
        if axes.get_legend() is not None:
            legend(axes)
    figure.draw_without_rendering()
    for axes in figure.axes:
        if axes.xaxis.get_visible() and _touching(axes):
            if isinstance(axes.xaxis.get_major_locator(), FixedLocator):
                axes.tick_params(axis="x", labelrotation=50)
                for label in axes.get_xticklabels():
                    label.set(ha="right", rotation_mode="anchor")
            else:
                ticks = axes.get_xticks()
                axes.set_xticks(ticks[:: 2 if len(ticks) < 9 else 3])


def _touching(axes: Axes) -> bool:
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    boxes = [box for box in boxes if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1]
    return any(b.x0 - a.x1 < 2 for a, b in pairwise(sorted(boxes, key=lambda box: box.x0)))


def narrow(figure: Figure, prefix: str) -> Markup:
    """The views of a figure whose layout is final, and whose SVG has its ids with this prefix."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    found = {axes: axes.get_tightbbox(renderer) for axes in drawn}
    outer = {a: _box(figure, bounds) for a, bounds in found.items() if bounds is not None}
    inner = {axes: _box(figure, axes.get_window_extent(renderer)) for axes in outer}
    parts = [
        _view(prefix, [_placed(_box(figure, legend.get_window_extent(renderer)))])
        for legend in figure.legends
    ]
    if parts:
        parts.append(Markup("<i></i>"))  # panels begin on a line of their own
    for axes in outer:
        pieces = list(_pieces(axes, inner, outer)) if axes.get_subplotspec() else []
        parts.append(_view(prefix, pieces or [_placed(outer[axes])]))
    return Markup("").join(parts)


class Piece(NamedTuple):
    """A part of the figure, and where it stands in a view."""

    box: Box
    x: float
    y: float


def _placed(box: Box) -> Piece:
    wider = Box(box.x - EDGE, box.y - EDGE, box.width + 2 * EDGE, box.height + 2 * EDGE)
    return Piece(wider, 0, 0)


def _pieces(axes: Axes, inner: dict[Axes, Box], outer: dict[Axes, Box]) -> Iterator[Piece]:
    """A panel with its title; on its left and below it the labels, which panels share with the first of
    their row and the last of their column."""
    own, whole = inner[axes], outer[axes]
    if not own.width or not own.height:
        return
    row = [a for a in inner if abs(inner[a].y - own.y) < 1 and a.get_subplotspec()]
    column = [a for a in inner if abs(inner[a].x - own.x) < 1 and a.get_subplotspec()]
    first = axes if _labelled(axes.yaxis) else min(row, key=lambda a: inner[a].x)
    last = axes if _labelled(axes.xaxis) else max(column, key=lambda a: inner[a].y)
    top = min(whole.y, own.y) - EDGE
    height = own.y + own.height - top
    left = inner[first].x - outer[first].x + EDGE
    width = whole.x + whole.width - own.x + EDGE
    edge = inner[last].y + inner[last].height
    below = outer[last].y + outer[last].height - edge + EDGE
    yield Piece(Box(outer[first].x - EDGE, top, left, height + below), 0, 0)
    yield Piece(Box(own.x, top, width, height), left, 0)
    yield Piece(Box(inner[last].x - BESIDE, edge, width + BESIDE, below), left - BESIDE, height)


def _labelled(axis: Axis) -> bool:
    return bool(axis.get_majorticklabels() or axis.get_label_text())


def _box(figure: Figure, bounds: BboxBase) -> Box:
    points = 72 / figure.dpi
    top = figure.get_figheight() * 72 - bounds.y1 * points
    return Box(bounds.x0 * points, top, bounds.width * points, bounds.height * points)


def _view(prefix: str, pieces: Sequence[Piece]) -> Markup:
    width = max(piece.x + piece.box.width for piece in pieces)
    height = max(piece.y + piece.box.height for piece in pieces)
    inside = Markup("").join(
        Markup(
            '<svg x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" viewBox="{:.1f} {:.1f} {:.1f} {:.1f}">'
            '<use href="#{}-figure_1"/></svg>'
        ).format(piece.x, piece.y, *piece.box[2:], *piece.box, prefix)
        for piece in pieces
    )
    return Markup(
        '<svg class="view" aria-hidden="true" viewBox="0 0 {:.1f} {:.1f}" width="{:.0f}">{}</svg>'
    ).format(width, height, PIXELS / 72 * width, inside)
