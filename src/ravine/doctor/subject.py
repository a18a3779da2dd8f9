"""A PyTorch training that exists already, as the doctor sees it: a model, its data, its loss and its
optimiser, said as a recipe."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ravine.doctor.finding import Diagnosis, Finding
from ravine.doctor.findings.learners import explained
from ravine.doctor.judgement import baseline_of, diagnosed, inspected, stretched
from ravine.doctor.measure.baseline import Baseline
from ravine.doctor.measure.course import Course, Stepping
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.probes import Seen, look
from ravine.doctor.measure.untrained import Untrained, probe_batch
from ravine.doctor.own_steps import Stepped, by_loss_alone, judge_steps, step_course
from ravine.doctor.table import before_training
from ravine.engine.held_optimizer import described, unmoved
from ravine.engine.inputs import resolve_inputs
from ravine.engine.loop.calendar import plan_steps
from ravine.engine.programs import Model, programs_of
from ravine.engine.rows.evaluate import evaluation
from ravine.errors import InputError
from ravine.nn.build import build_loss
from ravine.recipe import Recipe

_FOREVER = 10**9  # steps of a plan that is not known, of a loop that runs
_USUAL = 5000  # steps that such a plan is taken to have where other rates are compared with its own
_BATCH = 32  # samples of a batch where neither a loader nor ``batch`` says it
# PyTorch's losses that the catalogue has, where their options are the defaults
_LOSSES: dict[Any, str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll",
    nn.MSELoss: "squared",
    nn.L1Loss: "absolute",
    nn.BCEWithLogitsLoss: "binary_cross_entropy",
    functional.cross_entropy: "cross_entropy",
    functional.nll_loss: "nll",
    functional.mse_loss: "squared",
    functional.l1_loss: "absolute",
    functional.binary_cross_entropy_with_logits: "binary_cross_entropy",
}


def as_recipe(
    model: nn.Module, data: Any, loss: Any, optimizer: Any, fields: dict[str, Any]
) -> tuple[Recipe, Model, Any]:
    """The recipe of an existing training, a copy of its model, and its data.

    The data are used as they are: nothing is held out of them or preprocessed. ``fields`` are keywords
    of ``train``; a plan that they do not name is taken to be long, so that its length is not blamed.
    """
    module, still = copy.deepcopy(model), []
    if isinstance(optimizer, Optimizer):
        held, unheld = described(optimizer, model), set(unmoved(optimizer, model))
        optimizer = held
        still = [n for n, p in model.named_parameters() if p.requires_grad and n in unheld]
    first = next(model.parameters(), None)
    if first is None:
        got = f"{type(model).__name__} without parameters"
        raise InputError("model", got=got, expected="a module with parameters to train")
    given: dict[str, Any] = {
        "data.validation": 0.0,
        "data.test": 0.0,
        "device": "cuda" if first.is_cuda else "cpu",
        "precision": "float64" if first.dtype == torch.float64 else "float32",
    }
    if still:
        given["start.freeze"] = still
    if not names_plan(fields):
        given["stop.after"] = f"{_USUAL}it"
    if not _loads(data):
        given["data.batch"] = _BATCH if _count(data) >= _BATCH else "full"

    def with_loss(each: Any) -> tuple[Recipe, Model, Any]:
        named = {"loss": each, "optimizer": optimizer}
        keywords = {name: value for name, value in named.items() if value is not None} | fields
        return resolve_inputs(Recipe().edit(given), module, data, keywords)

    known = known_loss(loss)
    if known is loss and callable(loss) and "step" not in fields:
        known = _same_loss(*with_loss(loss)) or loss
    found = with_loss(known)
    return found if known is loss or _runs(*found) else with_loss(loss)


def names_plan(fields: dict[str, Any]) -> bool:
    """Whether keywords of ``train`` say how long it trains.

    >>> names_plan({"epochs": 3}), names_plan({"batch": 32})
    (True, False)
    """
    return any(name in fields for name in ("epochs", "steps", "after", "minutes", "stop"))


def _loads(data: Any) -> bool:
    """Whether the data come in batches."""
    first = data[0] if isinstance(data, tuple | list) and len(data) else data
    return isinstance(first, DataLoader)


def _count(data: Any) -> int:
    """How many samples there are, of a pair (inputs, targets) or a ``Dataset``; 0 where that is not
    known."""
    try:
        return len(data[-1] if isinstance(data, tuple) and not isinstance(data, Tensor) else data)
    except TypeError:
        return 0


def known_loss(loss: Any) -> Any:
    """The catalogue's name of a loss of PyTorch's, of which the doctor knows what it reads; any other
    loss as it is.

    >>> known_loss(nn.CrossEntropyLoss()), known_loss(functional.mse_loss)
    ('cross_entropy', 'squared')
    """
    if not isinstance(loss, nn.Module):
        return _LOSSES.get(loss, loss) if callable(loss) else loss
    if type(loss) not in _LOSSES or next(loss.buffers(), None) is not None:
        return loss
    plain = type(loss)()
    same = {name: value for name, value in vars(plain).items() if not name.startswith("_")}
    return _LOSSES[type(loss)] if same.items() <= vars(loss).items() else loss


def _same_loss(recipe: Recipe, module: Model, arrays: Any) -> str | None:
    """The catalogue's loss that gives the same numbers as a function of a person's own, for drawn outputs:
    of it the doctor knows what it reads."""
    program = programs_of([recipe], module, arrays, test=False)[0]
    objective, task = program.population.objectives[0], program.pipeline.task
    batch = probe_batch(program.pipeline, _BATCH)
    with evaluation([objective]):
        output = objective.model(batch.x)
    if not isinstance(output, Tensor):
        return None
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(output.shape, generator=generator).to(output) * size for size in (1, 3)]
    for name in dict.fromkeys(_LOSSES.values()):
        try:
            theirs, ours = objective.loss, build_loss(name, task).to(output.device)
            pairs = [(float(f(draw, batch.y).mean()) for f in (theirs, ours)) for draw in draws]
            if all(math.isclose(*pair, rel_tol=1e-5) for pair in pairs):
                return name
        except Exception:  # a function, or the catalogue's loss, may refuse what is drawn
            continue
    return None


def _runs(recipe: Recipe, module: Model, arrays: Any) -> bool:
    """Whether the catalogue's loss takes the shapes that PyTorch's takes here."""
    try:
        programs_of([recipe], module, arrays, test=False)
    except InputError:
        return False
    return True


@dataclass
class Observed:
    """What a watch has seen of a loop."""

    losses: Sequence[float]  # of all its steps, or evenly spaced ones
    norms: Sequence[float]  # of the gradient, at sampled steps
    steps: int
    total: int | None = None  # of the plan; None: not known
    validations: Sequence[float] = field(default_factory=list)
    stepping: Stepping | None = None


@dataclass
class Subject:
    """What is known of a training before its first step."""

    recipe: Recipe
    known: Untrained | Stepped
    found: list[Finding]
    steps: int  # of the plan

    @classmethod
    def of(
        cls, model: nn.Module, data: Any, loss: Any, optimizer: Any, fields: dict[str, Any]
    ) -> Subject:
        """Look at a model, its data, its loss and its optimiser before they train."""
        recipe, module, arrays = as_recipe(model, data, loss, optimizer, fields)
        program = programs_of([recipe], module, arrays, test=False)[0]
        if by_loss_alone(program):
            stepped = Stepped.of(program)
            return cls(recipe, stepped, [], stepped.steps)
        untrained = inspected(program)
        steps = plan_steps(recipe, program.pipeline)
        return cls(recipe, untrained, before_training(untrained), steps)

    def judge(self, model: nn.Module, seen: Observed) -> Diagnosis:
        """The diagnosis of what a loop did with the model, by the rules for runs."""
        total = seen.total or _FOREVER
        losses = np.asarray(seen.losses, dtype=float)
        if isinstance(self.known, Stepped):
            course = step_course(model, self.known, self.recipe, losses, list(seen.norms))
            course.stepping = seen.stepping
            return judge_steps(course, self.known, seen.total)
        untrained = self.known
        norms = np.array([norm for norm in seen.norms if np.isfinite(norm)] or [0.0])
        each = np.repeat(norms, -(-len(losses) // len(norms)))[: len(losses)]
        thinned = max(1, seen.steps // max(1, len(losses)))
        curve = Curve(self.recipe, max(total // thinned, 1), losses, each, base=self._base)
        curve.network = lambda: nullcontext(model)
        stretched(curve)
        if seen.validations:
            curve.val_loss = list(seen.validations)
            curve.val_metric = [-loss for loss in seen.validations]
            curve.val_samples = len(untrained.targets)

        def last() -> list[Seen]:
            few = slice(0, 256 if untrained.probe.x[0].numel() < 500 else 32)
            return [look(model, untrained.loss, untrained.probe.x[few], untrained.probe.y[few])]

        first = [] if untrained.seen is None else [untrained.seen]
        course = Course(
            untrained.case, [curve], last, lambda: first, simple=lambda: explained(untrained)
        )
        course.stepping = seen.stepping
        diagnosis = diagnosed(untrained, self.found, course)
        diagnosis.measured = course.measured
        return diagnosis

    @cached_property
    def _base(self) -> Baseline:
        assert isinstance(self.known, Untrained)
        return baseline_of(self.known)
