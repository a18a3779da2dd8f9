"""A step of a person's own: (model, batch) -> the loss, in place of the model's output and a loss on it.

It gives a loss (one number, or [B]), or a dictionary with ``loss`` and further numbers, which are
recorded as the epoch's means. Or it is a generator of (name, loss): each loss is for the part of the
model of that name, whose optimiser steps before the generator goes on, as in a GAN.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine.data.objects.fields import Fields
from ravine.data.source import Batch
from ravine.engine.rows.members import Column, Facts, Newcomers
from ravine.errors import InputError, RavineError, first_line
from ravine.randomness import key

OwnStep = Callable[[nn.Module, Any], Any]


class StepBatch(Mapping[str, Tensor]):
    """What a step is given: ``batch.x`` and ``batch.y``, or ``x, y = batch``; samples of several inputs
    by their names too: ``batch["input_ids"]``, ``model(**batch)``.

    >>> batch = StepBatch(Batch(torch.zeros(2, 3), torch.ones(2), torch.arange(2)))
    >>> x, y = batch
    >>> x.shape, len(y), batch.size
    (torch.Size([2, 3]), 2, 2)
    """

    def __init__(self, batch: Batch, fields: Fields | None = None):
        self.x: Any = batch.x
        self.fields = fields
        self.y: Any = batch.y
        self.index = batch.index  # the place of each sample in the training part

    @property
    def size(self) -> int:
        return len(self.y)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.x, self.y))

    def keys(self) -> Any:
        return self._named().keys()

    def __getitem__(self, name: str) -> Tensor:
        return self._named()[name]

    def __len__(self) -> int:
        return 2

    def _named(self) -> dict[str, Tensor]:
        if self.fields is None:
            return {"x": self.x, "y": self.y}
        ordered, named = self.fields.unpack(self.x)
        named = named or {f"x{place + 1}": each for place, each in enumerate(ordered)}
        return {**named, self.fields.target: self.y}


def gives_loss(model: nn.Module, fields: Fields | None) -> bool:
    """Whether a model computes its loss itself from the ``labels`` of a dictionary batch, as those of
    Hugging Face do (which may shift them first)."""
    if fields is None or not fields.names or fields.target != "labels":
        return False
    return "labels" in inspect.signature(model.forward).parameters


def model_loss(model: nn.Module, batch: Any) -> Any:
    """The loss that a model gives for a dictionary with ``labels``."""
    return model(**batch)["loss"]


def is_in_parts(step: OwnStep | None) -> bool:
    """Whether a step is a generator of (name, loss)."""
    function = getattr(step, "func", step)
    return step is not None and inspect.isgeneratorfunction(function)


def losses_of(
    step: OwnStep, model: nn.Module, batch: Batch, fields: Fields | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, a number or [B], and the other numbers of a step in one piece."""
    found = step(model, StepBatch(batch, fields))
    loss = found.get("loss") if isinstance(found, Mapping) else found
    if not isinstance(loss, Tensor) or (loss.dim() and loss.shape != (len(batch.y),)):
        got = f"a {type(found).__name__}"
        if isinstance(loss, Tensor):
            got = f"a loss of shape {tuple(loss.shape)} for {len(batch.y)} samples"
        elif isinstance(found, Mapping):
            got = f"a dictionary with {', '.join(map(str, found))}"
        raise InputError(
            "step",
            got=got,
            expected='the loss (one number, or [B]), or a dictionary with "loss"',
            repair="return loss, or {'loss': loss, 'kl': kl}",
        )
    numbers = found.items() if isinstance(found, Mapping) else ()
    return loss, {str(name): _number(name, v) for name, v in numbers if name != "loss"}


def parts_of(
    step: OwnStep, model: nn.Module, batch: Batch, fields: Fields | None = None
) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Name, part of the model, and loss of each turn of a step in parts."""
    parts = dict(model.named_children())
    for turn in step(model, StepBatch(batch, fields)):
        name, loss = turn if isinstance(turn, tuple) and len(turn) == 2 else (turn, None)
        if name not in parts or not isinstance(loss, Tensor) or loss.dim():
            raise InputError(
                "step",
                got=f"{name!r} with {type(loss).__name__}",
                expected=f"(name, loss), a loss of one number and a name of {', '.join(parts)}",
                repair="yield 'discriminator', loss where model.discriminator is a module",
            )
        yield name, parts[name], loss


def _number(name: Any, value: Any) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            "step", got=f"{name} = {type(value).__name__}", expected="numbers beside the loss"
        ) from None


class Recorded(Column):
    """What the steps of an epoch have recorded besides their loss: of each member, by name, the sum
    over the samples and their number. It is kept at the objectives, which are a column already."""

    name = "recorded"

    def __init__(self, owner: Any):
        self.owner = owner  # has objectives
        for objective in owner.objectives:
            objective.recorded = {}

    def keep(self, rows: Sequence[int]) -> None:
        pass

    def grow(self, new: Newcomers) -> None:
        pass

    def facts(self, rows: Sequence[int]) -> Facts:
        held = [self.owner.objectives[row].recorded for row in rows]
        return {self.name: held} if any(held) else {}

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        for objective, held in zip(self.owner.objectives, facts.get(self.name, ()), strict=False):
            objective.recorded = {name: list(pair) for name, pair in held.items()}


def record(objective: Any, numbers: Mapping[str, float], samples: int) -> None:
    """Add a step's numbers to those of the epoch."""
    for name, value in numbers.items():
        pair = objective.recorded.setdefault(name, [0.0, 0])
        pair[0] += value * samples
        pair[1] += samples


def recorded_means(objectives: Sequence[Any]) -> dict[str, np.ndarray]:
    """The means of an epoch's steps by name [P], which are then forgotten."""
    names = dict.fromkeys(name for objective in objectives for name in objective.recorded)
    found = {}
    for name in names:
        pairs = [objective.recorded.get(name, [math.nan, 1]) for objective in objectives]
        found[name] = np.array([total / count for total, count in pairs])
    for objective in objectives:
        objective.recorded = {}
    return found


def evaluate_steps(objectives: Sequence[Any], batches: Iterator[Batch]) -> dict[str, np.ndarray]:
    """``{"loss": [P], …}`` of a split: what the step gives for it in evaluation mode, without an
    optimiser. Its random draws are a function of the batch's place."""
    sums: list[dict[str, float]] = [{} for _ in objectives]
    count = 0
    for place, batch in enumerate(batches):
        count += len(batch.y)
        for own, objective in zip(sums, objectives, strict=True):
            for name, value in _measured(objective, batch, place).items():
                own[name] = own.get(name, 0.0) + value * len(batch.y)
    names = sums[0] if sums else {}
    return {name: np.array([own[name] / max(count, 1) for own in sums]) for name in names}


def _measured(objective: Any, batch: Batch, place: int) -> dict[str, float]:
    modes = [(part, part.training) for part in objective.modules()]
    objective.eval()
    try:
        # a step may take derivatives of its own, by its inputs for example
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(key("step", place))
            if is_in_parts(objective.own_step):
                turns = parts_of(objective.own_step, objective.model, batch, objective.fields)
                named = {f"{name}_loss": float(loss.detach()) for name, _, loss in turns}
                return {"loss": sum(named.values()), **named}
            loss, numbers = losses_of(objective.own_step, objective.model, batch, objective.fields)
            return {"loss": float(loss.detach().mean()), **numbers}
    finally:
        for part, mode in modes:
            part.training = mode


def _check_gradient(objective: Any, batch: Batch) -> None:
    """The loss of a step has a gradient, and the step leaves taking it to Ravine."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    for parameter in parameters:  # of the run that measured
        parameter.grad = None
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(key("step", 0))
        losses, _ = losses_of(objective.own_step, objective.model, batch, objective.fields)
        stepped = any(parameter.grad is not None for parameter in parameters)
        if stepped or not losses.requires_grad:
            raise InputError(
                "step",
                got="a step that calls backward()"
                if stepped
                else "a loss that does not depend on the parameters",
                expected="the loss alone, as a tensor that the model's parameters are in",
                repair="return the loss; gradients and the optimiser's step are taken afterwards, "
                "for several parts yield (name, loss)",
            )


def check_step(objective: Any, batch: Batch) -> list[str]:
    """Run a step on a few samples; what it measures. What fails is an InputError."""
    try:
        measured = list(_measured(objective, batch, 0))
        if not is_in_parts(objective.own_step):
            _check_gradient(objective, batch)
        return measured
    except RavineError:
        raise
    except Exception as error:  # a person's step may fail in any way
        shape = tuple(batch.x.shape) if isinstance(batch.x, Tensor) else type(batch.x).__name__
        raise InputError(
            "step",
            got=f"a step that fails on inputs {shape}",
            expected="a function of (model, batch), where batch.x and batch.y are the samples",
            repair=f"{type(error).__name__}: {first_line(error)}",
        ) from None
