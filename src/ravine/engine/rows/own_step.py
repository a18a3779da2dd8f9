"""A step of a person's own: (model, batch) -> the loss, in place of the model's output and a loss on it.

It gives a loss (one number, or [B]), or a dictionary with ``loss`` and further numbers, which are
recorded as the epoch's means. Or it is a generator of (name, loss): each loss is for the part of the
model of that name, whose optimiser steps before the generator goes on, as in a GAN.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine.data.objects.fields import Fields
from ravine.data.objects.stream import seeded
from ravine.data.source import Batch
from ravine.engine.rows.members import Column, Facts, Newcomers
from ravine.errors import InputError, RavineError, first_line
from ravine.randomness import key
from ravine.records import Record, fields_of, made

OwnStep = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class SampleForm:
    """In which form the data give a sample: of several inputs, with or without a target."""

    fields: Fields | None = None
    labelled: bool = True
    one_each: bool = False  # targets are numbers [B], which the rest of Ravine holds as [B, 1]
    target_fields: Fields | None = None  # of targets of several kinds
    record: str = ""  # the class of the objects that samples are (`records`)
    names: tuple[str, ...] = ()  # of one input and, where it has one, its target, given by name

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> SampleForm:
        """That of data with these facts."""
        form = facts.get("form", {})
        parts = [facts.get(name) for name in ("fields", "target_fields")]
        fields, targets = [None if part is None else Fields.from_dict(part) for part in parts]
        names = [form[name] for name in ("input", "target") if form.get(name)]
        return cls(
            fields,
            labelled=not facts.get("unlabelled"),
            one_each=bool(facts.get("one_each")),
            target_fields=targets,
            record=form.get("record", ""),
            names=tuple(names),
        )

    @property
    def by_name(self) -> bool:
        """Whether samples are given by name."""
        return bool(self.names or (self.fields is not None and self.fields.names))

    @property
    def target_name(self) -> str:
        """What the target of samples by name is called."""
        if self.fields is not None:
            return self.fields.target
        return self.names[1] if len(self.names) > 1 else ""

    def target(self, y: Tensor) -> Any:
        """Targets as the data give them."""
        if self.target_fields is not None:
            return self.target_fields.given(y)
        return y[:, 0] if self.one_each and y.dim() == 2 else y


LABELLED = SampleForm()


class StepBatch(tuple[Any, ...]):
    """The samples of a step, in the form in which the data give them: ``x, y = batch``,
    ``anchor, positive, negative = batch``, without targets ``(x,) = batch``. ``batch.x`` and ``batch.y``
    are the inputs and the targets in any form.

    >>> batch = StepBatch(Batch(torch.zeros(2, 3), torch.ones(2), torch.arange(2)))
    >>> x, y = batch
    >>> x.shape, len(y), batch.size, batch["x"] is batch[0]
    (torch.Size([2, 3]), 2, 2, True)
    """

    x: Tensor
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # the place of each sample in the training part
    named: dict[str, Any]

    def __new__(cls, batch: Batch, form: SampleForm = LABELLED) -> StepBatch:
        made = super().__new__(cls, _in_order(batch, form))
        made.x, made.y, made.index = batch.x, form.target(batch.y), batch.index
        made.named = _by_name(batch, form)
        return made

    @property
    def size(self) -> int:
        return len(self.index)

    def keys(self) -> Any:
        return self.named.keys()

    def __getitem__(self, place: Any) -> Any:
        return self.named[place] if isinstance(place, str) else super().__getitem__(place)


class NamedBatch(Record):
    """The samples of a step by name, as a dictionary batch of Hugging Face: ``batch["labels"]``,
    ``batch.labels``, ``batch.pop("labels")``, ``model(**batch)``; where no field is called so, ``batch.x``
    are the inputs as rows of numbers, ``batch.y`` the target."""

    def __init__(self, batch: Batch, form: SampleForm):
        super().__init__(_by_name(batch, form))
        more = {"x": batch.x, "y": form.target(batch.y), "index": batch.index}
        more["size"] = len(batch.index)
        vars(self).update({name: each for name, each in more.items() if name not in self})

    def to(self, *where: Any, **how: Any) -> NamedBatch:
        """The same: a batch is on the model's device already."""
        return self


def in_form(batch: Batch, form: SampleForm) -> Any:
    """A batch as a step is given it: a `StepBatch`, a `NamedBatch`, or an object of the data's class."""
    if form.record and form.by_name:
        return made(form.record, _by_name(batch, form))
    if form.by_name:
        return NamedBatch(batch, form)
    ordered = StepBatch(batch, form)
    return made(form.record, tuple(ordered)) if form.record else ordered


def _by_name(batch: Batch, form: SampleForm) -> dict[str, Any]:
    y, fields = form.target(batch.y), form.fields
    if fields is None:
        names = form.names or ("x", "y")
        return dict(zip(names, (batch.x, y), strict=False))
    ordered, named = fields.unpack(batch.x)
    named = named or {f"x{place + 1}": each for place, each in enumerate(ordered)}
    return {**named, fields.target: y} if fields.target and form.labelled else named


def _in_order(batch: Batch, form: SampleForm) -> tuple[Any, ...]:
    y, fields = form.target(batch.y), form.fields
    if fields is None:
        return (batch.x, y) if form.labelled else (batch.x,)
    inputs = fields.given(batch.x)
    return (*inputs, y) if fields.flat else (inputs, y)


def gives_loss(model: nn.Module, form: SampleForm) -> bool:
    """Whether a model computes its loss itself from the ``labels`` of a dictionary batch, as those of
    Hugging Face do (which may shift them first)."""
    if form.target_name != "labels" or not form.by_name:
        return False
    return "labels" in inspect.signature(model.forward).parameters


def model_loss(model: nn.Module, batch: Any) -> Any:
    """The loss that a model gives for a batch with ``labels``."""
    found = fields_of(model(**(fields_of(batch) or {}))) or {}
    return found.get("loss")


def is_in_parts(step: OwnStep | None) -> bool:
    """Whether a step is a generator of (name, loss)."""
    function = getattr(step, "func", step)
    return step is not None and inspect.isgeneratorfunction(function)


def losses_of(
    step: OwnStep, model: nn.Module, batch: Batch, form: SampleForm
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, a number or [B], and the other numbers of a step in one piece."""
    found = step(model, in_form(batch, form))
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
    step: OwnStep, model: nn.Module, batch: Batch, form: SampleForm
) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Name, part of the model, and loss of each turn of a step in parts."""
    parts = dict(model.named_children())
    for turn in step(model, in_form(batch, form)):
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
            "step",
            got=f"{name} = {type(value).__name__}",
            expected="numbers beside the loss",
            repair="leave it out, or give one number of it: .mean()",
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
    with _untouched(objectives):
        for place, batch in enumerate(batches):
            count += len(batch.y)
            for own, objective in zip(sums, objectives, strict=True):
                for name, value in _measured(objective, batch, place).items():
                    own[name] = own.get(name, 0.0) + value * len(batch.y)
    names = sums[0] if sums else {}
    return {name: np.array([own[name] / max(count, 1) for own in sums]) for name in names}


@contextmanager
def _untouched(objectives: Sequence[nn.Module]) -> Iterator[None]:
    """What a step itself moves, as the weights of a teacher, is afterwards what it was."""
    held = [
        (tensor, tensor.detach().clone())
        for objective in objectives
        for tensor in (*objective.buffers(), *objective.parameters())
        if not tensor.requires_grad
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in held:
                tensor.copy_(before)


def _measured(objective: Any, batch: Batch, place: int) -> dict[str, float]:
    modes = [(part, part.training) for part in objective.modules()]
    objective.eval()
    try:
        # a step may take derivatives of its own, by its inputs for example
        with seeded(key("step", place)), torch.enable_grad():
            if is_in_parts(objective.own_step):
                turns = parts_of(objective.own_step, objective.model, batch, objective.form)
                named = {f"{name}_loss": float(loss.detach()) for name, _, loss in turns}
                return {"loss": sum(named.values()), **named}
            loss, numbers = losses_of(objective.own_step, objective.model, batch, objective.form)
            return {"loss": float(loss.detach().mean()), **numbers}
    finally:
        for part, mode in modes:
            part.training = mode


def _check_gradient(objective: Any, batch: Batch) -> None:
    """The loss of a step has a gradient, and the step leaves taking it to Ravine."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    for parameter in parameters:  # of the run that measured
        parameter.grad = None
    with seeded(key("step", 0)), torch.enable_grad():
        losses, _ = losses_of(objective.own_step, objective.model, batch, objective.form)
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
        with _untouched([objective]):
            measured = list(_measured(objective, batch, 0))
            if not is_in_parts(objective.own_step):
                _check_gradient(objective, batch)
        return measured
    except RavineError:
        raise
    except Exception as error:  # a person's step may fail in any way
        given, form = in_form(batch, objective.form), objective.form
        what = _shapes(given) if form.by_name else f"({', '.join(map(_shapes, given))})"
        such = form.record.rpartition(".")[2] or "dictionary"
        raise InputError(
            "step",
            got=f"a step that fails on a batch of {what}",
            expected="a function of (model, batch), where batch is such a "
            + (such if form.by_name else "tuple, and batch.x and batch.y are the samples"),
            repair=f"{type(error).__name__}: {first_line(error)}",
        ) from None


def _shapes(value: Any) -> str:
    """What a batch holds."""
    if isinstance(value, Tensor):
        return f"[{', '.join(map(str, value.shape))}]"
    named = None if isinstance(value, tuple) else fields_of(value)
    if named is not None:
        return ", ".join(f"{name} {_shapes(each)}" for name, each in named.items())
    return f"({', '.join(map(_shapes, value))})"
