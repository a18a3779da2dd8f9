"""The progress of training: one line in a terminal or a notebook; in a file a line every 10 %.

Fields that do not fit are left out whole, the bar first, then the rate, then measurements. A
population has a second line, its leaders.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.text import Text

from ravine import measures
from ravine.recipe import Recipe, fields
from ravine.report.overview import show_value, varying
from ravine.terminal import (
    GAP,
    Console,
    Field,
    can_show,
    console,
    display,
    fitted,
    in_notebook,
    sparkline,
)

if TYPE_CHECKING:
    from ravine.engine.loop.progress import Progress as Now

LARGE = 1e5  # losses from which digits are cut
EVERY = 10  # per cent between two lines of a log
LONG = 300.0  # seconds after which a log has a line in any case
_PAUSE = 0.1  # seconds between two pictures in a terminal
_LEAST_BAR, _MOST_BAR = 8, 40  # columns
_HISTORY = 240  # losses that the sparkline is drawn from
_LEADERS = 4


@contextmanager
def progress_bar(quiet: bool, recipes: Sequence[Recipe] = ()) -> Iterator[Callable[[Now], None]]:
    """Give a function that shows where training stands: on standard error, so that output can be
    piped. ``recipes`` are those of the members, which name the leaders."""
    if quiet:
        yield lambda now: None
        return
    out = console()
    course = Course(recipes)
    if in_notebook():
        yield from _notebook(course)
    elif out.is_terminal:
        yield from _terminal(course, out)
    else:
        yield from _log(course, out)


def _terminal(course: Course, out: Console) -> Iterator[Callable[[Now], None]]:
    drawn = 0.0
    # drawn when training reports, by no thread of its own
    with Live(console=out, auto_refresh=False, transient=False) as live:

        def draw() -> None:
            text = Text(no_wrap=True, overflow="crop")
            for number, line in enumerate(course.lines(out.width - 1, out)):
                text.append(("\n" if number else "") + line, style="dim" if number else "")
            live.update(text, refresh=True)

        def show(now: Now) -> None:
            nonlocal drawn
            course.add(now)
            if time.monotonic() - drawn > _PAUSE or now.step >= now.total:
                draw()
                drawn = time.monotonic()

        yield show
        if course.now is not None:
            draw()


def _log(course: Course, out: Console) -> Iterator[Callable[[Now], None]]:
    shown, said = -1, time.monotonic()

    def show(now: Now) -> None:
        nonlocal shown, said
        if course.add(now):
            shown = -1  # another program begins
        part = int(100 * now.step / max(now.total, 1)) // EVERY
        if part > max(shown, 0) or time.monotonic() - said > LONG:
            fields = [field.text for field in course.fields() if field.text]
            out.print((" " * GAP).join(fields), markup=False, highlight=False, soft_wrap=True)
            shown, said = part, time.monotonic()

    yield show


def _notebook(course: Course) -> Iterator[Callable[[Now], None]]:
    handle, drawn = None, 0.0

    def show(now: Now) -> None:
        nonlocal handle, drawn
        course.add(now)
        if time.monotonic() - drawn > 3 * _PAUSE or now.step >= now.total:
            handle = display("\n".join(course.lines(96, None)), handle)
            drawn = time.monotonic()

    yield show


class Course:
    """How training has gone so far, and the lines that say it."""

    def __init__(self, recipes: Sequence[Recipe] = ()):
        self.now: Now | None = None
        self.losses: list[float] = []
        self.leaders: dict[int, dict[str, Any]] = {}
        self._labels = _labels(recipes)
        self._began, self._first = time.monotonic(), 0
        self._seen, self._stride = 0, 1  # of the reports, one in ``stride`` is kept for the curve

    def add(self, now: Now) -> bool:
        """Take note of what training reports; gives whether another program has begun."""
        other = self.now is None or now.step < self.now.step
        if other:
            self._began, self._first, self.losses = time.monotonic(), now.step, []
            self._seen, self._stride = 0, 1
        self.now = now
        loss = now.metrics.get("loss", now.metrics.get("train_loss", math.nan))
        if self._seen % self._stride == 0:
            self.losses.append(loss)
        self._seen += 1
        if len(self.losses) > _HISTORY:  # every other one: the curve keeps its beginning
            self.losses, self._stride = self.losses[::2], 2 * self._stride
        self.leaders |= {row["member"]: row for row in now.rows}
        return other

    def fields(self) -> list[Field]:
        """The pieces of the line, each with its worth; the bar is not among them."""
        now = self.now
        if now is None:
            return []
        part = now.step / max(now.total, 1)
        shown = _metrics(now)
        return [
            Field(f"epoch {_epoch(now)}", 9),
            Field(f"{part:.0%}".replace("%", " %"), 7),
            Field(shown.get("loss", ""), 5),
            Field(shown.get("val_loss", ""), 4),
            Field(shown.get("judged", ""), 8),
            Field(_rate(now), 3),
            Field(self._left(now), 6),
        ]

    def lines(self, width: int, out: Console | None) -> list[str]:
        """The line, with a bar and a curve of the loss where there is room; and the leaders of a
        population."""
        fields = self.fields()
        if not fields:
            return []
        curve = sparkline(self.losses)
        if curve and (out is None or can_show(curve, out)):
            fields.insert(3, Field(curve, 2))
        kept = fitted(fields, width)
        room = width - sum(len(f.text) for f in kept) - GAP * len(kept)
        texts = [field.text for field in kept]
        if room >= _LEAST_BAR and self.now is not None:
            done = self.now.step / max(self.now.total, 1)
            texts.insert(1, _bar(done, min(room, _MOST_BAR), out))
        first = (" " * GAP).join(texts)
        return [first, *self._leading(width)]

    def _left(self, now: Now) -> str:
        spent, steps = time.monotonic() - self._began, now.step - self._first
        if now.step >= now.total:
            return ""
        if steps < 1 or spent < 0.5:
            return ""
        return f"{measures.duration(spent / steps * (now.total - now.step))} left"

    def _leading(self, width: int) -> list[str]:
        if len(self.leaders) < 2:
            return []
        rows = list(self.leaders.values())
        names = {name for row in rows for name in row if name.startswith("val_")}
        metric = f"val_{measures.judged_by(names)}" if names else "train_loss"
        known = [row for row in rows if math.isfinite(row.get(metric, math.nan))]
        known.sort(key=lambda row: measures.sign(metric) * row[metric])
        fields = [Field(f"{measures.title(metric)}:", 99)]
        for place, row in enumerate(known[:_LEADERS]):
            label = self._labels.get(row["member"], f"member {row['member']}")
            fields.append(Field(f"{label} {measures.show(metric, row[metric])}", 50 - place))
        kept = fitted(fields, width)
        return [(" " * GAP).join(f.text for f in kept)] if len(kept) > 1 else []


def _labels(recipes: Sequence[Recipe]) -> dict[int, str]:
    """What tells members apart: the fields in which they differ."""
    if len(recipes) < 2:
        return {}
    paths = varying(list(recipes))
    paths = [path for path in paths if path != "seed"] or paths
    labels = {}
    for member, recipe in enumerate(recipes):
        found = {path: value for path, value, _ in fields(recipe)}
        own = [(path.rpartition(".")[2], found.get(path)) for path in paths[:2]]
        shown = (
            f"{name}={f'{v:.3g}' if isinstance(v, float) else show_value(v)}" for name, v in own
        )
        labels[member] = " ".join(shown) or f"member {member}"
    return labels


def _bar(done: float, width: int, out: Console | None) -> str:
    full, empty = ("━", "─") if out is None or can_show("━─", out) else ("=", "-")
    filled = round(min(max(done, 0.0), 1.0) * width)
    return full * filled + empty * (width - filled)


def _epoch(now: Now) -> str:
    return f"{_epochs(now.step, now.epoch_steps)}/{_epochs(now.total, now.epoch_steps)}"


def _epochs(steps: int, of_one: int) -> str:
    """
    >>> _epochs(34, 17), _epochs(42, 17)
    ('2', '2.5')
    """
    digits = 0 if steps % of_one == 0 else 1
    return f"{steps / of_one:.{digits}f}"


def _rate(now: Now) -> str:
    members = f" x {now.live}" if now.live > 1 else ""
    if not now.rate:
        return ""
    digits = ",.0f" if now.rate >= 10 else ".1f"
    return f"{now.rate:{digits}} step/s{members}"


def _metrics(now: Now) -> dict[str, str]:
    """What was measured, as people read it; between epochs the loss is the last one's mean."""
    measured = {"loss": now.metrics.get("train_loss")} | now.metrics
    judge = measures.judged_by(name for name in measured if name.startswith("val_"))
    shown = [("loss", "loss", "loss"), ("val_loss", "val_loss", "val loss")]
    if judge not in (None, "loss"):
        title = "val acc" if judge == "accuracy" else f"val {measures.find(str(judge)).title}"
        shown.append(("judged", f"val_{judge}", title))
    return {
        key: f"{label} {_value(name, value)}"
        for key, name, label in shown
        if (value := measured.get(name)) is not None
    }


def _value(name: str, value: float) -> str:
    if measures.is_percent(name) or not math.isfinite(value):
        return measures.show(name, value)
    return f"{value:.3f}" if abs(value) < LARGE else f"{value:.3g}"
