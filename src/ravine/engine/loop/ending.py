"""What members come to: the weights and buffers with which they end, and their results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ravine.engine.loop.state import Borrowed, clones
from ravine.engine.rows.evaluate import evaluate

if TYPE_CHECKING:
    from ravine.engine.loop.trainer import Trainer

Final = tuple[Tensor, dict[str, Tensor]]  # rows [P, D], and stacked buffers


def weights(trainer: Trainer) -> Final:
    """The weights and buffers with which each member would end now."""
    rows = trainer.evaluated().clone()
    buffers = clones(trainer.population.saved_buffers())
    if trainer.best is not None:
        for i, stop in enumerate(trainer.stops):
            if stop.keeps_best and stop.best is not None:
                rows[i].copy_(trainer.best[i])
                for name, stacked in buffers.items():
                    stacked[i].copy_(trainer.best_buffers[name][i])
    return rows, buffers


def results(trainer: Trainer, final: Final, rows: list[int]) -> list[dict[str, Any]]:
    """Evaluate these rows at the weights with which they end, on every part of the data but the
    training part."""
    columns: dict[str, np.ndarray] = {}
    objectives = [trainer.population.objectives[row] for row in rows]
    with Borrowed(trainer.population, *final):
        _refresh_batch_norm(trainer, rows, final[1])
        for split, short in (("validation", "val"), ("test", "test")):
            if not trainer.pipeline.has(split) or (split == "test" and not trainer.program.test):
                continue
            found = evaluate(
                objectives, trainer.pipeline, split, trainer.metrics, trainer.population.call
            )
            columns |= {f"{short}_{name}": values for name, values in found.items()}
    train = (
        np.concatenate(trainer._losses).mean(0)[rows]
        if trainer._losses
        else _last_train_loss(trainer, rows)
    )
    steps = [trainer.step - trainer.schedules.starts[row] for row in rows]
    stops = [trainer.stops[row] for row in rows]
    return [
        {
            "steps": own,
            "epochs": trainer.calendar.epochs(own),
            "seconds": trainer.seconds,
            "train_loss": float(train[k]),
            "stopped": stop.reason,
            "best_step": stop.best_step if stop.keeps_best else own,
        }
        | {name: float(values[k]) for name, values in columns.items()}
        for k, (own, stop) in enumerate(zip(steps, stops, strict=True))
    ]


def _last_train_loss(trainer: Trainer, rows: list[int]) -> np.ndarray:
    last = [trainer.rundir.epochs(trainer.members[row])[-1] for row in rows]
    return np.array(
        [row["train_loss"] if row["train_loss"] is not None else math.nan for row in last]
    )


def _refresh_batch_norm(trainer: Trainer, rows: list[int], buffers: dict[str, Tensor]) -> None:
    """An averaged network's running statistics are computed anew from the training data (SWA,
    2018)."""
    norms = torch.nn.modules.batchnorm._BatchNorm
    for row in rows:
        model = trainer.population.objectives[row].model
        averaged = trainer.swa_counts[row] > 0 and not trainer.stops[row].keeps_best
        if averaged and any(isinstance(m, norms) for m in model.modules()):
            torch.optim.swa_utils.update_bn(
                (batch.x for batch in trainer.pipeline.split("train")), model
            )
            trainer.population.gather_buffers()
            for name, stacked in trainer.population.saved_buffers().items():
                buffers[name][row].copy_(stacked[row])
