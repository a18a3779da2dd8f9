"""The doctor on runs with a step of a person's own, or a loss that no constant answer can be measured by:
as far as it can be judged without knowing what they do.

The losses are those that the step gives, judged as a loop's; the layers are looked at while it runs; the
data are checked where its loss depends on the targets. Before training other learning rates are
tried where the loss does not fall.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ravine.data.objects.stream import seeded
from ravine.data.source import Batch
from ravine.doctor.declaration import Evidence, Kind
from ravine.doctor.finding import SHOWN, Diagnosis, Finding
from ravine.doctor.findings.rates import DESCENT, LrTooHigh, LrTooLow
from ravine.doctor.loops import judge_loop, loop_course, moved
from ravine.doctor.measure.comparable import incomparable
from ravine.doctor.measure.course import Course, Loop
from ravine.doctor.measure.probes import Seen, look_at
from ravine.doctor.measure.untrained import Untrained, probe_batch
from ravine.doctor.table import declarations, is_of, ranked
from ravine.engine.execute import running
from ravine.engine.loop.calendar import plan_steps
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.loop.record import Memory
from ravine.engine.programs import Program
from ravine.engine.rows.own_step import OwnStep, SampleForm, is_in_parts, losses_of, parts_of
from ravine.nn.outputs import judged
from ravine.randomness import key
from ravine.recipe import Recipe

LOOKED_AT = 256  # samples on which layers are looked at
FACTORS = (
    10.0,
    100.0,
    1e3,
    1e4,
    1e5,
    0.1,
    0.01,
)  # of the learning rate, where the loss does not fall


@dataclass(frozen=True)
class StepProbe:
    """A step or a loss of one's own, and the samples on which a network is looked at while it runs."""

    step: OwnStep | None
    loss: nn.Module  # where there is no step
    form: SampleForm
    batch: Batch

    @classmethod
    def of(cls, program: Program) -> StepProbe:
        """That of a program with a step or a loss of one's own."""
        first = program.population.objectives[0]
        batch = probe_batch(program.pipeline, LOOKED_AT)
        return cls(first.own_step, copy.deepcopy(first.loss), first.form, batch)

    def look(self, model: nn.Module, y: Tensor | None = None) -> Seen:
        """What a probe sees in the layers while the step runs, perhaps with other targets."""
        batch = self.batch if y is None else Batch(self.batch.x, y, self.batch.index)

        def run(network: nn.Module) -> tuple[Tensor, Tensor]:
            with seeded(key("step", 0)):
                value = self._loss(network, batch)
            return value, value.reshape(1)

        seen = look_at(model, run, batch.x.device)
        once = {layer.name: layer for layer in reversed(seen.layers)}  # some are called twice
        seen.layers = list(reversed(once.values()))
        return seen

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss of the batch; of a step in parts their sum."""
        if self.step is None:
            given: Tensor = self.loss(judged(self.loss, network(batch.x)), batch.y)
            return given.mean()
        if is_in_parts(self.step):
            losses = [loss for _, _, loss in parts_of(self.step, network, batch, self.form)]
            return sum(losses[1:], losses[0])
        return losses_of(self.step, network, batch, self.form)[0].mean()

    def uses_targets(self, model: nn.Module) -> bool:
        """Whether the step gives another loss for the same samples with each other's targets."""
        y = self.batch.y
        if torch.equal(y, y.flip(0)):
            return False
        return not math.isclose(
            self.look(model).loss, self.look(model, y.flip(0)).loss, rel_tol=1e-6
        )


@dataclass
class Stepped:
    """What is known before its first step of a program with a step of one's own."""

    probe: StepProbe
    start: list[Finding]  # what is wrong with the network as it starts
    data: (
        Untrained | None
    )  # what is checked of the data; None where the step's loss ignores targets
    steps: int  # of the plan
    norm: float  # of the gradient before the first step
    size: float  # norm of the weights before the first step

    @classmethod
    def of(cls, program: Program) -> Stepped:
        """Look at a program before it trains."""
        first, probe, recipe = (
            program.population.objectives[0],
            StepProbe.of(program),
            program.recipes[0],
        )
        seen = probe.look(first.model)
        batch, refused = probe_batch(program.pipeline), "a step of one's own"
        known = Untrained(
            recipe, program.pipeline, first.model, first.loss, batch, seen,
            "other", "own", False, refused,
        )  # fmt: skip
        start = [] if is_in_parts(first.own_step) else _start_findings(known)
        data = replace(known, model=nn.Identity(), seen=None)
        used = data if probe.uses_targets(first.model) else None
        steps = plan_steps(recipe, program.pipeline)
        return cls(probe, start, used, steps, seen.norm, norm_of(first.model))

    def data_findings(self, course: Course) -> list[Finding]:
        """What is wrong with the data, given how the training went."""
        if self.data is None:
            return []
        kinds = [kind for kind in declarations() if Kind.DATA in kind.kinds]
        found = [
            kind.finding(seen, self.data.case)
            for kind in kinds
            for seen in (*kind.before(self.data), *kind.given_course(self.data, course))
        ]
        return [finding for finding in found if finding.strength >= SHOWN]


def by_loss_alone(program: Program) -> bool:
    """Whether nothing but its own beginning says how far a program's loss has come."""
    own = program.population.objectives[0].own_step is not None
    return own or bool(incomparable(program))


def _start_findings(program: Untrained) -> list[Finding]:
    """What contradicts itself in the network as it starts and in its inputs."""
    found = []
    for kind in declarations():
        if Kind.START in kind.kinds:
            try:
                found += [kind.finding(seen, program.case) for seen in kind.before(program)]
            except Exception:  # a model may be made for its step alone
                continue
    return [finding for finding in found if finding.strength >= SHOWN]


def norm_of(model: nn.Module) -> float:
    """The norm of a model's weights."""
    return math.sqrt(sum(float(p.detach().double().square().sum()) for p in model.parameters()))


def step_course(
    model: nn.Module,
    began: Stepped,
    recipe: Recipe,
    losses: np.ndarray,
    norms: Sequence[float],
) -> Course:
    """A run with a step of one's own as a course: its losses, its gradients, and the layers of the
    model as it is now."""
    size, count = norm_of(model), sum(p.numel() for p in model.parameters())
    kind, lr = recipe.optimizer.kind, float(recipe.optimizer.lr)
    along = kind in DESCENT or "SGD" in kind
    bad = ~np.isfinite(losses)
    finite = [norm for norm in norms if math.isfinite(norm)] if math.isfinite(size) else []
    lost = int(bad.argmax()) + 1 if bad.any() else None
    if lost is None and len(finite) < len(norms):
        lost = len(losses)  # the gradient, or the weights
    largest = max(size, began.size) if lost is None else began.size
    sampled = (began.norm, *finite) if _is_known(recipe) else ()
    updates = [moved(lr, norm, largest, count, along) for norm in sampled]
    loop = Loop(lr, updates, along, finite or [0.0], lost)

    def last() -> list[Seen]:
        return [began.probe.look(model)]

    return loop_course(losses.tolist(), len(losses), loop, last, list)


def _is_known(recipe: Recipe) -> bool:
    """Whether it is known how an optimiser's steps follow from its rate: not of a person's function."""
    own = getattr(recipe.optimizer.technique, "own", None)
    return own is None or isinstance(own.target, type)


def judge_steps(course: Course, began: Stepped, total: int | None) -> Diagnosis:
    """The diagnosis of a run with a step of one's own; ``total`` are the steps of its plan, where they are
    known."""
    losses = course.curves[0].losses
    measured = {"steps": len(losses), "judged": "by the loss alone"}
    if total is not None:
        measured["of"] = total
    diagnosis = judge_loop(course, int(np.isfinite(losses).sum()), measured)
    data = began.data_findings(course)
    if data or began.start:
        diagnosis.findings = ranked([*data, *began.start, *diagnosis.findings])
        what = "the data contradict" if data else "the program contradicts"
        themselves = "themselves" if data else "itself"
        diagnosis.verdict, diagnosis.why = "sick", f"{what} {themselves}"
    return diagnosis


def examine_steps(
    program: Program,
    again: Callable[[Recipe], Program],
    *,
    steps: int,
    seconds: float,
    planned: bool = True,
) -> Diagnosis:
    """Examine a recipe with a step of one's own before it is trained: so many steps in memory; where the
    loss does not fall, as many with other learning rates. ``again`` makes the program of an edited
    recipe."""
    recipe, began = program.recipes[0], Stepped.of(program)
    course = _course(program, began, steps, seconds / 2)
    diagnosis = judge_steps(course, began, began.steps if planned else None)
    if course.plain or any(is_of(f, Kind.DATA, Kind.START) for f in diagnosis.findings):
        return diagnosis
    for factor in FACTORS:
        lr = float(f"{recipe.optimizer.lr * factor:.6g}")
        other = _course(again(recipe.edit({"optimizer.lr": lr})), began, steps, seconds / 10)
        if other.plain:
            kind = LrTooLow if factor > 1 else LrTooHigh
            text = (
                f"lr is {recipe.optimizer.lr:.3g}; with {lr:.3g} {other.steps} steps take the loss from "
                f"{_from_to(other)}, with its own from {_from_to(course)}"
            )
            remedy = {
                "edits": {"optimizer.lr": lr},
                "why": f"lr {lr:g}, × {factor:g}",
                "tried": text,
            }
            seen = Evidence("optimizer.lr", text, 0.92, remedies=(remedy,))
            diagnosis.findings = ranked([kind.finding(seen, None), *diagnosis.findings])
            diagnosis.verdict, diagnosis.why = "sick", "another learning rate learns"
            break
    return diagnosis


def _from_to(course: Course) -> str:
    if not course.finite:
        return "a number to none"
    shift = course.curves[0].shift
    return f"{course.loss_at(0.0) + shift:.4g} to {course.loss_at(1.0) + shift:.4g}"


def _course(program: Program, began: Stepped, steps: int, seconds: float) -> Course:
    """A program run in memory, as a course."""
    record = Memory()
    loop = TrainingLoop(program, record, sparing=True)
    with running(loop):
        loop.advance(min(steps, began.steps), time.process_time() + seconds)
    loop.population.gather_buffers()
    member = program.members[0]
    model, recipe = program.population.objectives[0].model, program.recipes[0]
    losses, norms = record.losses(member), record.norms(member).tolist()
    return step_course(model, began, recipe, losses, norms)
