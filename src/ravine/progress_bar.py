"""The progress bar of training: epoch, steps a second, time left, loss, validation accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TimeRemainingColumn
from rich.table import Column

from ravine.terminal import console, text_column

if TYPE_CHECKING:
    from ravine.engine.loop.progress import Progress as Now

LARGE = 1e5  # losses from which digits are cut


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[Now], None]]:
    """Give a function that shows where training stands; on standard error, so that output can be
    piped."""
    if quiet:
        yield lambda now: None
        return
    columns = (
        text_column("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=None),
        text_column("{task.percentage:3.0f} %"),
        text_column("{task.fields[rate]}"),
        text_column("{task.fields[metrics]}"),
        TimeRemainingColumn(compact=True, table_column=Column(min_width=5, no_wrap=True)),
        text_column("left"),
    )
    with Progress(*columns, console=console()) as bar:
        task = bar.add_task("", total=None, epoch="0", rate="", metrics="")

        def show(now: Now) -> None:
            bar.update(
                task,
                completed=now.step,
                total=now.total,
                epoch=_epoch(now),
                rate=_rate(now),
                metrics=_metrics(now),
            )

        yield show


def _epoch(now: Now) -> str:
    return f"{now.step / now.epoch_steps:.{0 if now.step % now.epoch_steps == 0 else 1}f}/{now.total / now.epoch_steps:g}"


def _rate(now: Now) -> str:
    members = f" x {now.live}" if now.live > 1 else ""
    return (
        f"{now.rate:,.0f} step/s{members}" if now.rate >= 10 else f"{now.rate:.1f} step/s{members}"
    )


def _metrics(now: Now) -> str:
    measured = {
        "loss": now.metrics.get("train_loss")
    } | now.metrics  # between epochs: the last one's mean
    shown = [
        ("loss", "loss", ".3f"),
        ("val_loss", "val loss", ".3f"),
        ("val_accuracy", "val acc", ".2%"),
    ]
    known = [
        (label, value, form)
        for name, label, form in shown
        if (value := measured.get(name)) is not None
    ]
    return "  ".join(
        f"{label} {value:{form if abs(value) < LARGE else '.3g'}}" for label, value, form in known
    )
