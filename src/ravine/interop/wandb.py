"""A run's measurements in Weights & Biases, through its own client (extra: wandb)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravine.errors import InputError
from ravine.interop.tracking import Tracker, fields_of, final_numbers
from ravine.rundir import RunDir


@dataclass(frozen=True)
class WandB(Tracker):
    """A W&B run for each member, in one group. ``mode``: ``online``, ``offline``; by default what
    ``WANDB_MODE`` says. A run that is resumed goes on in the same W&B run."""

    project: str = "ravine"
    mode: str | None = None
    folder: str | Path = "."  # of W&B's own files; not RUN: they hold links, which a run may not

    def begin(self, rundir: RunDir, member: int) -> _WandBRun:
        """The W&B run of a member, with the recipe's fields as its configuration."""
        try:
            import wandb
        except ImportError:
            raise InputError(
                "wandb", expected="wandb", repair="pip install 'ravine[wandb]'"
            ) from None
        recipe = rundir.recipes[member]
        told = f"{rundir.path.resolve()} {rundir.created} {member}"
        run = wandb.init(
            project=self.project,
            dir=str(self.folder),
            mode=self.mode,  # type: ignore[arg-type]
            id=hashlib.sha256(told.encode()).hexdigest()[:16],
            resume="allow",
            reinit="create_new",
            group=rundir.path.name,
            name=f"{recipe.name}-{member}" if len(rundir.recipes) > 1 else recipe.name,
            config=fields_of(recipe),
            settings=wandb.Settings(silent=True, console="off"),
        )
        return _WandBRun(run)


class _WandBRun:
    def __init__(self, run: Any):
        self.run = run

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def text(self, name: str, text: str, step: int) -> None:
        self.run.summary[name] = f"step {step}: {text}"

    def close(self, result: Mapping[str, Any] | None) -> None:
        for name, value in final_numbers(result).items():
            self.run.summary[name] = value
        diverged = (result or {}).get("stopped") == "diverged"
        self.run.finish(exit_code=1 if diverged else 0)
