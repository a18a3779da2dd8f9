"""A run's measurements as TensorBoard logs (extra: tensorboard)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravine.errors import InputError, RavineError
from ravine.interop.tracking import Tracker, final_numbers
from ravine.rundir import RunDir
from ravine.rundir.rundir import draft_of
from ravine.storage.files import new_directory


@dataclass(frozen=True)
class TensorBoard(Tracker):
    """Logs in ``folder`` (RUN/tensorboard), a TensorBoard run for each member: ``member-0`` and so on.
    Metrics of training and validation data share a chart: ``loss/train`` beside ``loss/val``."""

    folder: str | Path | None = None

    def begin(self, rundir: RunDir, member: int) -> _Logs:
        """An event file of its own for this member."""
        folder = Path(self.folder) if self.folder is not None else rundir.path / "tensorboard"
        logs = _Logs(folder / f"member-{member}")
        logs.text("recipe", f"```toml\n{rundir.recipes[member].to_toml()}\n```", 0)
        return logs


class _Logs:
    def __init__(self, folder: Path):
        self.writer = _summary_writer()(str(folder))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def text(self, name: str, text: str, step: int) -> None:
        self.writer.add_text(name, text, step)

    def close(self, result: Mapping[str, Any] | None) -> None:
        for name, value in final_numbers(result).items():
            self.writer.add_scalar(name, value)
        self.writer.close()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard", expected="TensorBoard", repair="pip install 'ravine[tensorboard]'"
        ) from None
    return SummaryWriter


def write_logs(run: str | Path, out: str | Path | None = None) -> dict[str, Any]:
    """Write every member's step losses, epoch metrics and events into a new folder; gives the path and
    the number of values."""
    _summary_writer()
    with RunDir.open(run) as rundir:
        folder = Path(out) if out is not None else rundir.path / "tensorboard"
        with draft_of(new_directory(folder), "--out") as draft:
            follower = TensorBoard(draft).follow(rundir)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that of a training; here it is an error
                follower.close()
            if follower.failed:
                raise RavineError(f"{folder}: the logs could not be written: {follower.failed}")
        return {"path": str(folder), "members": len(rundir.recipes), "values": follower.values}
