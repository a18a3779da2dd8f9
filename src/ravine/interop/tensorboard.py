"""A run's measurements as TensorBoard logs (extra: tensorboard)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ravine.errors import InputError
from ravine.files import new_directory
from ravine.rundir import RunDir

LOSSES = 2000  # single steps at most, evenly spaced


def write_logs(run: str | Path, out: str | Path | None = None) -> dict[str, Any]:
    """Write every member's step losses, epoch metrics and events; gives the path and the number of
    values.

    Each member is a TensorBoard run of its own, ``member-0`` and so on. Metrics of training and
    validation data share a chart: ``loss/train`` beside ``loss/val``.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard", expected="TensorBoard", repair="pip install ravine[tensorboard]"
        ) from None
    with RunDir.open(run) as rundir:
        folder = Path(out) if out is not None else rundir.path / "tensorboard"
        new_directory(folder)
        count = 0
        for member in range(len(rundir.recipes)):
            with SummaryWriter(str(folder / f"member-{member}")) as writer:
                count += _member(rundir, member, writer)
    return {"path": str(folder), "members": len(rundir.recipes), "values": count}


def _member(rundir: RunDir, member: int, writer: Any) -> int:
    count = 0
    losses = rundir.steps(member)
    for step in (
        np.unique(np.linspace(0, len(losses) - 1, min(len(losses), LOSSES)).astype(int))
        if len(losses)
        else ()
    ):
        writer.add_scalar("loss/step", losses[step], int(step) + 1)
        count += 1
    for row in rundir.epochs(member):
        for name, value in row.items():
            if (
                name not in ("member", "epoch", "step")
                and isinstance(value, int | float)
                and math.isfinite(value)
            ):
                writer.add_scalar(tag(name), value, row["step"])
                count += 1
    writer.add_text("recipe", f"```toml\n{rundir.recipes[member].to_toml()}\n```")
    for event in rundir.events(member=member):
        writer.add_text(f"event/{event['kind']}", event["text"], event["step"])
    return count


def tag(name: str) -> str:
    """The chart and the line of a metric.

    >>> tag("val_accuracy"), tag("lr")
    ('accuracy/val', 'training/lr')
    """
    split, _, what = name.partition("_")
    return f"{what}/{split}" if split in ("train", "val", "test") and what else f"training/{name}"
