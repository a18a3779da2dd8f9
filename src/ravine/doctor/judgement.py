"""The judgement of a run, finished or running, from what its directory holds; and the findings of
every ``train``."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ravine.data.download.cache import look_also_in
from ravine.data.pipeline import Pipeline
from ravine.doctor.experiments.beside_linear import with_what_closes_the_gap
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.experiments.variants import Setting
from ravine.doctor.experiments.whatif import learns_unaugmented
from ravine.doctor.finding import SHOWN, Diagnosis, Finding
from ravine.doctor.findings.labels import NoSignal, shows_signal
from ravine.doctor.findings.learners import explained
from ravine.doctor.measure.baseline import Baseline, baseline
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.linear import fitted_linear
from ravine.doctor.measure.probes import Seen, look
from ravine.doctor.measure.untrained import Untrained, inspect_program
from ravine.doctor.own_steps import Stepped, by_loss_alone, judge_steps, step_course
from ravine.doctor.table import as_tables, before_training, given_course, ranked
from ravine.doctor.verdict import verdict
from ravine.engine.loop.calendar import plan_steps
from ravine.engine.programs import Model, Program, programs_of
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.rundir import RunDir

STRETCHES = 16  # equal parts of a run whose mean losses make its course
MOST = 64  # recipes of one program that are judged
SECONDS = 20.0  # of trials, where a linear model does better
UNAUGMENTED = 5.0  # seconds of the experiment without augmentation
MOST_SAMPLES = 20_000  # of a training part that is read again for it
# members of one recipe whose final weights are looked at, and recipes of one program whose data are
LOOKED_AT = 3


def judge(
    directory: str | Path, *, member: int = 0, module: Model = None, arrays: Any = None
) -> Diagnosis:
    """Diagnose a run from its directory: ``healthy``, ``sick`` or ``uncertain`` (still running),
    with findings.

    Members that differ from ``member`` by their seeds alone are judged with it: most of them
    decide.
    """
    began = time.monotonic()
    rundir = RunDir.open(Path(directory))
    look_also_in(rundir.facts.get("directory"))
    if not 0 <= member < len(rundir.recipes):
        raise InputError("member", got=member, expected=f"a number under {len(rundir.recipes)}")
    recipe = rundir.recipes[member]
    program = programs_of([recipe], module, arrays, test=False)[0]
    if by_loss_alone(program):
        return _judge_steps(rundir, member, Stepped.of(program), module)
    untrained = inspected(program)
    found = before_training(untrained)
    clock = {"static": round(time.monotonic() - began, 3)}
    course = course_of(
        rundir,
        _alike(rundir.recipes, member),
        untrained,
        lambda: _first(program, untrained),
        module,
    )
    shared = SharedData(module, arrays)
    diagnosis = diagnosed(untrained, found, course, shared)
    setting = Setting(course, shared, SECONDS, _work(untrained))
    diagnosis.findings = with_what_closes_the_gap(setting, diagnosis.findings)
    diagnosis.seconds = clock | {"all": round(time.monotonic() - began, 3)}
    diagnosis.measured = course.measured
    return diagnosis


def diagnosed(
    untrained: Untrained,
    found: Sequence[Finding],
    course: Course,
    shared: SharedData | None = None,
) -> Diagnosis:
    """The diagnosis of a run, the same at its end and from its directory; with the data an experiment
    is made, where augmentation may be why nothing is learned."""
    found = [*found, *given_course(untrained, course)]
    learns = course.plain and shows_signal(course)
    explained_by = [f for f in found if f.strength >= SHOWN and f.code != NoSignal.code]
    few = untrained.pipeline.size("train") <= MOST_SAMPLES
    if shared is None or learns or explained_by or not (few and course.over and course.finite):
        return verdict(found, course)
    setting = Setting(course, shared, UNAUGMENTED, _work(untrained))
    shown = learns_unaugmented(setting, found)
    if shown:  # there is a signal
        found = [finding for finding in found if finding.code != NoSignal.code]
    return verdict(found, course, shown)


def _work(untrained: Untrained) -> float:
    return 0.0 if untrained.seen is None else untrained.seen.work


def _judge_steps(rundir: RunDir, member: int, untrained: Stepped, module: Model) -> Diagnosis:
    """The diagnosis of a member that trained by a step of one's own."""
    model = Run(rundir.path, member, module=_copied(module)).model
    recipe, losses, epochs = rundir.recipes[member], rundir.steps(member), rundir.epochs(member)
    norms = [row["grad_norm"] for row in epochs if "grad_norm" in row]
    model = model.to(untrained.probe.batch.x.device)
    course = step_course(model, untrained, recipe, losses, norms)
    total = len(losses) if rundir.result(member) is not None else untrained.steps
    return judge_steps(course, untrained, total)


def _copied(module: Model) -> Model:
    return copy.deepcopy(module) if isinstance(module, nn.Module) else module


def inspected(program: Program) -> Untrained:
    """What the checks before the first step read of a program."""
    first = program.population.objectives[0]
    return inspect_program(
        program.recipes[0], program.pipeline, first.model, copy.deepcopy(first.loss)
    )


def _first(program: Program, untrained: Untrained) -> list[Seen]:
    return [] if untrained.seen is None else [untrained.seen]


def _alike(recipes: Sequence[Recipe], member: int) -> list[int]:
    """The members whose recipes differ from this one's by the seed alone."""
    key = recipes[member].edit({"seed": 0}).hash
    return [i for i, recipe in enumerate(recipes) if recipe.edit({"seed": 0}).hash == key]


def course_of(
    rundir: RunDir,
    members: Sequence[int],
    untrained: Untrained,
    first: Callable[[], list[Seen]],
    module: Model,
) -> Course:
    """How members went, from the losses of their steps and the metrics of their epochs."""
    base = baseline_of(untrained)
    curves = [_curve(rundir, member, base, untrained.pipeline) for member in members]
    for member, curve in zip(members, curves, strict=True):
        curve.network = partial(_network, rundir, member, untrained, module)

    def last() -> list[Seen]:
        return [
            seen
            for member in list(members)[:LOOKED_AT]
            if (seen := _final(rundir, member, untrained, module)) is not None
        ]

    return Course(
        untrained.case,
        curves,
        last,
        first,
        simple=lambda: explained(untrained),
        linear=lambda: fitted_linear(untrained),
    )


def baseline_of(untrained: Untrained) -> Baseline:
    """What the best constant predictor reaches."""
    return baseline(untrained.loss, untrained.probe.y.cpu(), untrained.outputs, untrained.task)


def _network(
    rundir: RunDir, member: int, untrained: Untrained, module: Model
) -> AbstractContextManager[nn.Module]:
    """A member's network as it ended, or as it last stood."""
    model = Run(rundir.path, member, module=_copied(module)).model
    return nullcontext(model.to(untrained.probe.x.device))


def _final(rundir: RunDir, member: int, untrained: Untrained, module: Model) -> Seen | None:
    """What a probe sees in a member as it ended, or as it last stood."""
    few = slice(0, 256 if untrained.probe.x[0].numel() < 500 else 32)
    with _network(rundir, member, untrained, module) as model:
        return look(model, untrained.loss, untrained.probe.x[few], untrained.probe.y[few])


def _curve(rundir: RunDir, member: int, base: Baseline, pipeline: Pipeline) -> Curve:
    recipe, losses, epochs = rundir.recipes[member], rundir.steps(member), rundir.epochs(member)
    result = rundir.result(member)
    seen = len(losses)
    total = seen if result is not None else plan_steps(recipe, pipeline)
    curve = Curve(recipe, max(total, 1), losses, _norms(epochs, seen), base=base)
    if not seen:
        return curve
    stretched(curve)
    if (result or {}).get("stopped") == "diverged":
        curve.failed = "diverged"
    named = [name for name in ("accuracy", "r2") if epochs and f"val_{name}" in epochs[0]]
    if epochs and "val_loss" in epochs[0]:
        curve.val_loss = [row["val_loss"] for row in epochs]
        curve.val_samples = pipeline.size("validation") if pipeline.has("validation") else 0
        curve.val_metric = [row[f"val_{named[0]}"] if named else -row["val_loss"] for row in epochs]
    return curve


def stretched(curve: Curve) -> None:
    """Measure a curve by the mean losses of equal parts of its steps."""
    losses, seen = curve.losses, curve.seen
    for part in range(STRETCHES + 1):
        start = max(0, (part - 1) * seen // STRETCHES)
        stretch = losses[start : max(start + 1, part * seen // STRETCHES)]
        curve.at.append(max(1, part * seen // STRETCHES) if part else 0)
        curve.loss.append(float(np.nanmean(stretch)) if np.isfinite(stretch).any() else math.nan)
    curve.failed = None if np.isfinite(losses).any() else "diverged"


def _norms(epochs: Sequence[dict[str, Any]], steps: int) -> np.ndarray:
    """The gradient's norm at every step, as well as the epochs' means tell."""
    norms = np.array([row["grad_norm"] for row in epochs if "grad_norm" in row], dtype=float)
    return (
        np.resize(np.repeat(norms, -(-steps // max(1, len(norms)))), steps)
        if len(norms)
        else np.zeros(steps)
    )


# --- the findings of every train ------------------------------------------------------------------


@dataclass
class Checkup:
    """Looks at programs before they are trained, and judges their members when they have ended. No
    number of theirs changes."""

    looked: list[tuple[Untrained, list[Finding], list[int]]]  # of each program, with its members
    module: Model = None
    arrays: Any = None
    # of programs with a step of one's own
    stepped: list[tuple[Stepped, list[int]]] = field(default_factory=list)

    @classmethod
    def of(cls, programs: Sequence[Program], module: Model = None, arrays: Any = None) -> Checkup:
        looked, stepped = [], []
        for program in programs:
            if by_loss_alone(program):
                stepped.append((Stepped.of(program), sorted(program.members)))
                continue
            untrained = inspected(program)
            found = before_training(untrained)
            untrained.model = nn.Identity()  # what trains is not held on to
            looked.append(
                (
                    untrained,
                    found,
                    sorted(program.members),
                )
            )
        return cls(looked, module, arrays, stepped)

    def conclude(self, rundir: RunDir) -> list[Finding]:
        """Store the findings on every member that has ended as events, and give them back
        ranked."""
        whole: list[Finding] = []
        shared = SharedData(self.module, self.arrays)
        for own, members in self.stepped:
            for member in members[:LOOKED_AT]:
                if rundir.result(member) is not None:
                    judged = _judge_steps(rundir, member, own, self.module)
                    whose = member if len(rundir.recipes) > 1 else None
                    steps = len(rundir.steps(member))
                    whole += self._store(rundir, judged.findings, steps, whose)
        for untrained, found, members in self.looked:
            kinds: dict[str, list[int]] = {}
            for member in members:
                if rundir.result(member) is not None:
                    kinds.setdefault(rundir.recipes[member].edit({"seed": 0}).hash, []).append(
                        member
                    )
            for place, alike in enumerate(list(kinds.values())[:MOST]):
                seen = [] if untrained.seen is None else [untrained.seen]
                course = course_of(rundir, alike, untrained, lambda seen=seen: seen, self.module)  # type: ignore[misc]
                whole_look = place < LOOKED_AT  # it costs seconds
                judged = (
                    diagnosed(untrained, found, course, shared)
                    if whole_look
                    else verdict(found, course)
                )
                whose = alike[0] if len(rundir.recipes) > len(alike) else None
                whole += self._store(rundir, judged.findings, course.steps, whose)
        return ranked(whole)

    @staticmethod
    def _store(
        rundir: RunDir, findings: list[Finding], steps: int, whose: int | None
    ) -> list[Finding]:
        for finding, data in zip(findings, as_tables(findings), strict=True):
            rundir.add_event(steps, whose, "finding", finding.text, data)
        return findings
