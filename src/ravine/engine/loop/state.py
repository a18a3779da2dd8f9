"""The state of a trainer as arrays and facts, and the lending of other weights to a population."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ravine.engine.rows.population import Population
from ravine.errors import InputError

if TYPE_CHECKING:
    from ravine.engine.loop.trainer import Trainer


class Borrowed:
    """Within it, theta (and the buffers) hold other rows."""

    def __init__(
        self, population: Population, rows: Tensor, buffers: dict[str, Tensor] | None = None
    ):
        self.population, self.rows, self.buffers = population, rows, buffers or {}

    def __enter__(self) -> None:
        self._idle = self.rows is self.population.theta
        if not self._idle:
            self._swap()

    def __exit__(self, *_: object) -> None:
        if not self._idle:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        held = self.population.buffers
        pairs = [(self.population.theta, self.rows)] + [
            (held[name], other) for name, other in self.buffers.items()
        ]
        for here, there in pairs:
            kept = here.detach().clone()
            here.copy_(there)
            there.copy_(kept)


class State:
    """The state of some of a trainer's rows, as arrays and facts."""

    def __init__(self, trainer: Trainer, rows: list[int]):
        self.trainer, self.rows = trainer, rows

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        t, rows = self.trainer, self.rows
        whole = rows == list(range(len(t.members)))
        optimizer, schedules = (
            (t.stepper.optimizer, t.schedules)
            if whole
            else copy.deepcopy((t.stepper.optimizer, t.schedules))
        )
        if not whole:
            optimizer.keep(rows)
            schedules.keep(rows)
        arrays = {name: tensor[rows] for name, tensor in self._tensors().items()}
        arrays |= {f"optimizer/{name}": tensor for name, tensor in optimizer.state().items()}
        arrays["epoch_losses"] = joined(t._losses, len(t.members))[:, rows]
        arrays["epoch_norms"] = joined(t._norms, len(t.members))[:, rows]
        good = t.rollback.state([t.members[row] for row in rows])
        arrays |= good[0]
        facts = {
            "step": t.step,
            "members": [t.members[row] for row in rows],
            "recipes": [t.recipes[row].hash for row in rows],
            "stops": [t.stops[row].state() for row in rows],
            "swa_counts": [t.swa_counts[row] for row in rows],
            "schedules": schedules.state(),
            "starts": [t.schedules.starts[row] for row in rows],
            "rollback": good[1],
            "execution": t.program.execution.to_dict(),
            "seconds": t.seconds,
        }
        return arrays, facts

    def load(self, arrays: dict[str, Tensor], facts: dict[str, Any]) -> None:
        t = self.trainer
        if "mask" in arrays:
            t.stepper.mask = arrays["mask"].to(t.population.theta.device)
        for name, tensor in self._tensors().items():
            if name not in arrays or arrays[name].shape != tensor.shape:
                stored = tuple(arrays[name].shape) if name in arrays else "none"
                expected = f"the run's own model, for which {stored} is stored"
                raise InputError(
                    "model", got=f"{name} of shape {tuple(tensor.shape)}", expected=expected
                )
            tensor.copy_(arrays[name])
        prefix = "optimizer/"
        slots = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        t.stepper.optimizer.load_state(slots)
        t.schedules.load_state(facts["schedules"])
        t.schedules.starts = list(facts["starts"])
        t.stepper.starts.copy_(torch.tensor(facts["starts"]))
        for stop, state in zip(t.stops, facts["stops"], strict=True):
            stop.load_state(state)
        t.swa_counts = list(facts["swa_counts"])
        t.rollback.load_state(arrays, facts.get("rollback", {}))
        t.step, t._seconds_before = facts["step"], facts["seconds"]
        t._losses = [arrays["epoch_losses"].numpy()] if len(arrays["epoch_losses"]) else []
        t._norms = [arrays["epoch_norms"].numpy()] if len(arrays["epoch_norms"]) else []

    def _tensors(self) -> dict[str, Tensor]:
        """Every array with one row a member, live: reading gives the state, copying into it
        restores."""
        t = self.trainer
        found = {"theta": t.population.theta, "alive": t.stepper.alive}
        found |= {
            f"buffer/{name}": stacked for name, stacked in t.population.saved_buffers().items()
        }
        optional = {"average": t.stepper.average, "best": t.best, "mask": t.stepper.mask}
        found |= {name: tensor for name, tensor in optional.items() if tensor is not None}
        return found | {f"best_buffer/{name}": stacked for name, stacked in t.best_buffers.items()}


def joined(blocks: list[np.ndarray], members: int) -> Tensor:
    return (
        torch.from_numpy(np.concatenate(blocks))
        if blocks
        else torch.zeros(0, members, dtype=torch.float64)
    )


def clones(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
