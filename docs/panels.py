"""The site's figures of several panels, each panel as a picture of its own: they stand side by side as far as a page has room,
so that their labels are as large on a phone as on a wide page.

A hook of mkdocs (mkdocs.yml). It reads the SVGs that matplotlib wrote: figures are drawn once, and a panel is cut out of
its figure with the numbers and labels that it shares with the others of its row and column.
"""

from __future__ import annotations

import copy
import itertools
import posixpath
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import cos, radians, sin
from pathlib import Path
from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

SVG, XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
ET.register_namespace("", SVG)
ET.register_namespace("xlink", XLINK[1:-6])

WIDE = 400.0  # points: narrower figures fit a phone as they are
LEAST, BAR = 80.0, 14.0  # points: a panel is no narrower, a colour bar is no wider
MOST = 12  # panels: more are a table of pictures
EDGE, GAP = 2.0, 4.0  # points around a panel; between it and a label that it did not have
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
IMAGE = re.compile(r'<img alt="([^"]*)" src="([^"]*)\.svg" />')


# --- the hook -------------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Add the panels of every wide figure to the site's files."""
    from mkdocs.structure.files import File

    for one in list(files):
        if one.src_uri.endswith(".svg"):
            for name, panel in split(Path(one.abs_src_path)).items():
                place = one.src_uri.removesuffix(".svg")
                files.append(File.generated(config, f"{place}-{name}.svg", content=panel))
    return files


def on_page_content(text: str, page: Any, config: Any, files: Any) -> str:
    """Where a page shows such a figure, its panels are what a page shows that is too narrow for it."""

    def shown(found: re.Match[str]) -> str:
        alt, place = found.groups()
        where = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), place))
        parts = ["".join(_images(files, where, place, alt, kind)) for kind in ("legend-", "")]
        if not parts[1]:
            return found[0]
        panels = "".join(f'<span class="panels">{part}</span>' for part in parts if part)
        return f'<img class="whole" loading="lazy" alt="{alt}" src="{place}.svg" />{panels}'

    return IMAGE.sub(shown, text)


def _images(files: Any, where: str, place: str, alt: str, kind: str) -> Iterator[str]:
    for n in itertools.count(1):
        if not files.get_file_from_path(f"{where}-{kind}{n}.svg"):
            return
        said = f"{alt}: {'legend' if kind else 'part'} {n}"
        yield f'<img loading="lazy" alt="{said}" src="{place}-{kind}{n}.svg" />'


# --- cutting --------------------------------------------------------------------------------------


@dataclass
class Box:
    """A rectangle in points, y downwards; empty until something is added."""

    left: float = float("inf")
    top: float = float("inf")
    right: float = float("-inf")
    bottom: float = float("-inf")

    def add(self, other: Box) -> None:
        self.left, self.top = min(self.left, other.left), min(self.top, other.top)
        self.right, self.bottom = max(self.right, other.right), max(self.bottom, other.bottom)

    def moved(self, x: float, y: float) -> Box:
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def overlaps(self, other: Box) -> bool:
        return (
            min(self.right, other.right) - max(self.left, other.left) > 1
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 1
        )

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass
class Panel:
    """Axes that lie on one another, their frame, and what is drawn with them."""

    frame: Box
    groups: list[ET.Element] = field(default_factory=list)

    def reach(self) -> Box:
        found = Box(**vars(self.frame))
        for group in self.groups:
            for box in _texts(group):
                found.add(box)
        return found


def split(path: Path) -> dict[str, str]:
    """The panels of a figure as SVGs, from left to right and from above, by their numbers, after the entries of its legend;
    none of a figure that is narrow, has one panel, or is a table of pictures."""
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    figure = root.find(f"{{{SVG}}}g[@id='figure_1']")
    if figure is None or float(root.get("viewBox", "0 0 0 0").split()[2]) <= WIDE:
        return {}
    if any(part.get("id", "").startswith("pane3d") for part in figure):
        return {}  # what belongs to a surface is not held together
    panels, bars = _panels(figure)
    if not 1 < len(panels) <= MOST or min(panel.frame.width for panel in panels) < LEAST:
        return {}
    borrowed = [[*_shared_labels(panel, panels), *_shared_title(panel, panels)] for panel in panels]
    for panel, labels in zip(panels, borrowed, strict=True):
        panel.groups += labels
    for panel in panels:
        panel.groups += _bar_beside(panel, panels, bars)
    heads = []
    lowest = max(panel.frame.bottom for panel in panels)
    for part in figure:
        kind = part.get("id", "").rstrip("0123456789")
        if kind == "legend_":
            heads += _entries(part)
        elif kind == "text_":
            box = next(_texts(part))
            if (box.height > box.width and box.width < 20) or box.top > lowest:
                for panel in panels:
                    panel.groups.append(_label_beside(panel, part, box))
            else:
                heads.append(part)
    ids = {one.get("id"): one for one in root.iter() if one.get("id")}
    parts = {f"legend-{n}": ([head], _whole(head)) for n, head in enumerate(heads, 1)}
    parts |= {str(n): (panel.groups, panel.reach()) for n, panel in enumerate(panels, 1)}
    return {name: _written(root, groups, box, ids) for name, (groups, box) in parts.items()}


def _entries(legend: ET.Element) -> list[ET.Element]:
    """The entries of a figure's legend, each by itself: a page sets as many beside one another as it has room for."""
    entries, marks = [], []
    for part in legend:
        marks.append(part)
        if part.get("id", "").startswith("text_"):
            entries.append(ET.Element(f"{{{SVG}}}g"))
            entries[-1].extend(marks)
            marks = []
    return entries


def _panels(figure: ET.Element) -> tuple[list[Panel], list[Panel]]:
    """The panels of a figure, and its colour bars."""
    panels: list[Panel] = []
    bars: list[Panel] = []
    for group in figure:
        if not group.get("id", "").startswith("axes_"):
            continue
        frame = _frame(group)
        if min(frame.width, frame.height) < BAR:
            bars.append(Panel(frame, [group]))
            continue
        under = next((panel for panel in panels if panel.frame.overlaps(frame)), None)
        if under is None:
            panels.append(Panel(frame, [group]))
        else:
            under.groups.append(group)
    panels.sort(key=lambda panel: (round(panel.frame.top / 8), panel.frame.left))
    return panels, bars


def _frame(axes: ET.Element) -> Box:
    """The rectangle of axes, which is the first thing that they draw; where it is not drawn, what is in it."""
    first, found = axes.find(f"{{{SVG}}}g"), Box()
    if first is not None and first.get("id", "").startswith("patch_"):
        for path in first.iter(f"{{{SVG}}}path"):
            found.add(_reach(path))
        return found
    for image in axes.iter(f"{{{SVG}}}image"):
        found.add(_image_box(image))
    if found.width < 0:
        for part in axes.iter(f"{{{SVG}}}path"):
            found.add(_reach(part))
    return found


def _image_box(image: ET.Element) -> Box:
    x, y, width, height = (float(image.get(name, 0)) for name in ("x", "y", "width", "height"))
    way = image.get("transform", "")
    if flip := re.fullmatch(r"scale\(1 -1\) translate\(0 (-?[\d.]+)\)", way):
        return Box(x, -float(flip[1]) - y - height, x + width, -float(flip[1]) - y)
    if way.startswith("matrix"):
        a, _, _, d, left, top = map(float, NUMBER.findall(way))
        return Box(left + a * x, top + d * y, left + a * (x + width), top + d * (y + height))
    return Box(x, y, x + width, y + height)


def _reach(path: ET.Element) -> Box:
    found = Box()
    for x, y in _points(path):
        found.add(Box(x, y, x, y))
    return found


def _shared_labels(panel: Panel, panels: Sequence[Panel]) -> Iterator[ET.Element]:
    """The numbers and labels that a panel shares with the first of its row or the last of its column."""
    row = [p for p in panels if abs(p.frame.top - panel.frame.top) < 1]
    column = [p for p in panels if abs(p.frame.left - panel.frame.left) < 1]
    for which, others in ((1, row), (0, column[::-1])):
        own = _axis(panel, which)
        if own is None or _has_text(own):
            continue
        for other in others:
            found = _axis(other, which)
            # a panel without ticks has no numbers
            if found is not None and _has_text(found) and _ticked(found) == _ticked(own):
                x = panel.frame.left - other.frame.left
                y = panel.frame.bottom - other.frame.bottom
                yield _moved(_texts_alone(found), x, y)
                break


def _shared_title(panel: Panel, panels: Sequence[Panel]) -> list[ET.Element]:
    """The title of the column, where the first of it has one and this panel has none."""
    column = [p for p in panels if abs(p.frame.left - panel.frame.left) < 1]
    if _titles(panel) or len(column) < 2:
        return []
    shift = panel.frame.top - column[0].frame.top
    return [_moved(copy.deepcopy(title), 0, shift) for title in _titles(column[0])]


def _axis(panel: Panel, which: int) -> ET.Element | None:
    axes = [g for g in panel.groups[0] if g.get("id", "").startswith("matplotlib.axis_")]
    return axes[which] if which < len(axes) else None


def _ticked(axis: ET.Element) -> bool:
    return bool(axis.findall(f"{{{SVG}}}g/{{{SVG}}}g"))


def _titles(panel: Panel) -> list[ET.Element]:
    """What is written above a panel's frame."""
    texts = [part for part in panel.groups[0] if part.get("id", "").startswith("text_")]
    top = panel.frame.top + 1
    return [part for part in texts if any(box.bottom <= top for box in _texts(part))]


def _has_text(group: ET.Element) -> bool:
    return next(group.iter(f"{{{SVG}}}text"), None) is not None


def _texts_alone(axis: ET.Element) -> ET.Element:
    found = ET.Element(f"{{{SVG}}}g")
    for part in axis.iter():
        if part.get("id", "").startswith("text_"):
            found.append(copy.deepcopy(part))
    return found


def _bar_beside(panel: Panel, panels: Sequence[Panel], bars: Sequence[Panel]) -> list[ET.Element]:
    """The colour bar of a panel: the next on its right, which may belong to several panels of the row."""
    beside = [
        bar
        for bar in bars
        if bar.frame.left > panel.frame.right - 1
        and bar.frame.top < panel.frame.bottom
        and bar.frame.bottom > panel.frame.top
    ]
    if not beside:
        return []
    bar = min(beside, key=lambda bar: bar.frame.left)
    own = max(
        (
            p
            for p in panels
            if p.frame.right <= bar.frame.left + 1
            and p.frame.overlaps(Box(0, panel.frame.top, 1e9, panel.frame.bottom))
        ),
        key=lambda p: p.frame.right,
    )
    shift = panel.frame.right - own.frame.right
    return [group if not shift else _moved(group, shift, 0) for group in bar.groups]


def _label_beside(panel: Panel, label: ET.Element, box: Box) -> ET.Element:
    """A label of the whole figure at the side of one of its panels."""
    reach, frame = panel.reach(), panel.frame
    if box.height > box.width:
        y = (frame.top + frame.bottom) / 2 - (box.top + box.bottom) / 2
        return _moved(label, reach.left - GAP - box.right, y)
    x = (frame.left + frame.right) / 2 - (box.left + box.right) / 2
    return _moved(label, x, reach.bottom + GAP - box.top)


def _moved(group: ET.Element, x: float, y: float) -> ET.Element:
    found = ET.Element(f"{{{SVG}}}g", {"transform": f"translate({x:.2f} {y:.2f})"})
    found.append(group)
    return found


# --- extents --------------------------------------------------------------------------------------


def _whole(group: ET.Element) -> Box:
    """A legend's extent: its texts, and the lines before them."""
    found = Box()
    for box in _texts(group):
        found.add(box)
    for part in group.iter():
        for x, y in _points(part):
            found.add(Box(x, y, x, y))
    return found


def _points(part: ET.Element) -> Iterable[tuple[float, float]]:
    if part.tag == f"{{{SVG}}}path" and not part.get("id"):
        numbers = [float(n) for n in NUMBER.findall(part.get("d", ""))]
        return zip(numbers[::2], numbers[1::2], strict=False)
    if part.tag == f"{{{SVG}}}use":
        return [(float(part.get("x", 0)), float(part.get("y", 0)))]
    return []


def _texts(group: ET.Element, x: float = 0, y: float = 0) -> Iterator[Box]:
    """Where the texts within a group stand; it may be moved."""
    shift = re.fullmatch(r"translate\((\S+) (\S+)\)", group.get("transform", ""))
    if shift:
        x, y = x + float(shift[1]), y + float(shift[2])
    for part in group:
        if part.tag == f"{{{SVG}}}text":
            yield _text_box(part, group.get("transform", "") if not shift else "").moved(x, y)
        else:
            yield from _texts(part, x, y)


def _text_box(text: ET.Element, around: str) -> Box:
    """The box of a text: matplotlib's own measures of its words, turned as the text is."""
    style = text.get("style", "")
    size = re.search(r"font-size: ([\d.]+)px", style) or re.search(r"font: ([\d.]+)px", style)
    points = float(size[1]) if size else 9.5
    font = FontProperties(size=points, weight="bold" if "bold" in style else "normal")
    words = " ".join("".join(text.itertext()).split())
    width, height, depth = text_to_path.get_text_width_height_descent(words, font, ismath=False)
    back = {"middle": width / 2, "end": width}.get(
        (re.search(r"text-anchor: (\w+)", style) or ["", "start"])[1], 0.0
    )
    box = Box(-back, depth - height, width - back, depth)
    way = text.get("transform", "") or around
    turn = re.search(r"rotate\((-?[\d.]+)", way)
    place = re.search(r"translate\(([-\d.]+)[ ,]([-\d.]+)", way)
    x = float(text.get("x", 0)) if not place else float(place[1])
    y = float(text.get("y", 0)) if not place else float(place[2])
    angle = -float(turn[1]) % 360 if turn else 0.0
    return _turned(box, angle).moved(x, y)


def _turned(box: Box, degrees: float) -> Box:
    """A box turned counter-clockwise about the origin."""
    c, s, found = cos(radians(degrees)), sin(radians(degrees)), Box()
    for x in (box.left, box.right):
        for y in (box.top, box.bottom):
            found.add(Box(c * x + s * y, c * y - s * x, c * x + s * y, c * y - s * x))
    return found


# --- writing --------------------------------------------------------------------------------------


def _written(
    root: ET.Element, groups: Sequence[ET.Element], box: Box, ids: dict[str | None, ET.Element]
) -> str:
    left, top = box.left - EDGE, box.top - EDGE
    width, height = box.width + 2 * EDGE, box.height + 2 * EDGE
    svg = ET.Element(
        f"{{{SVG}}}svg",
        {
            "width": f"{width:.1f}pt",
            "height": f"{height:.1f}pt",
            "viewBox": f"{left:.1f} {top:.1f} {width:.1f} {height:.1f}",
        },
    )
    svg.extend([*root.iter(f"{{{SVG}}}style"), *groups])
    held = {one.get("id") for one in svg.iter()}
    asked = set(re.findall(r"#([\w-]+)", ET.tostring(svg, encoding="unicode")))
    needed = [ids[name] for name in sorted(asked - held) if name in ids]
    if needed:
        ET.SubElement(svg, f"{{{SVG}}}defs").extend(needed)
    return ET.tostring(svg, encoding="unicode")
