"""The examination of a recipe: static, then the first step, then up to 200 steps beside what-if
variants of itself."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from typing import Any, Literal

from ravine.doctor.declaration import Kind
from ravine.doctor.edits import Case
from ravine.doctor.experiments.beside_linear import with_what_closes_the_gap
from ravine.doctor.experiments.experiment import Experiment, SharedData
from ravine.doctor.experiments.limits import ended_early, held_back
from ravine.doctor.experiments.remedy_trials import with_tried_remedies
from ravine.doctor.experiments.variants import (
    FEWEST,
    LONGEST,
    PATIENCE,
    SPEED,
    Setting,
    sensible_threads,
)
from ravine.doctor.experiments.whatif import try_out
from ravine.doctor.finding import SHOWN, SUSPECTED, Diagnosis, Finding
from ravine.doctor.findings.labels import NoSignal
from ravine.doctor.findings.learners import explained
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.linear import fitted_linear
from ravine.doctor.measure.probes import look
from ravine.doctor.measure.untrained import Untrained, inspect_program
from ravine.doctor.own_steps import by_loss_alone, examine_steps
from ravine.doctor.table import before_training, given_course, is_of
from ravine.doctor.verdict import WhatIf, verdict
from ravine.engine.execution.device import kernel_threads
from ravine.engine.programs import Model, Program
from ravine.recipe import Recipe

STEPS = 200
SECONDS = 20.0
SEEDS = 3
MARKS = 8  # places on the way at which a course is measured


def examine(
    recipe: Recipe,
    *,
    module: Model = None,
    arrays: Any = None,
    steps: int = STEPS,
    seconds: float = SECONDS,
    seeds: int = SEEDS,
    planned: bool = True,
) -> Diagnosis:
    """Diagnose a recipe before it is trained: ``healthy``, ``sick`` or ``uncertain``, with
    findings.

    Static checks, one probe of the untrained network, then ``seeds`` members for up to ``steps``
    steps (or their share of ``seconds``). Where they do not plainly learn, the same steps are run
    with other learning rates and with the remedies of what is suspected: what helps plainly is the
    cause. Remedies of findings are tried too. Where the program is not ``planned``, its number of
    epochs is nobody's choice, and is not blamed.
    """
    shared = SharedData(module, arrays)
    return _diagnosed(recipe, shared, seconds, steps=steps, seeds=seeds, planned=planned)


def follow(
    recipe: Recipe,
    *,
    module: Model = None,
    arrays: Any = None,
    seeds: int = SEEDS,
    seconds: float = 60.0,
) -> Diagnosis:
    """Run a recipe's whole plan in memory, ``seeds`` members side by side, and judge it as a
    finished run is judged."""
    shared = SharedData(module, arrays)
    return _diagnosed(recipe, shared, seconds / 2, steps=None, seeds=seeds)


def _diagnosed(
    recipe: Recipe,
    shared: SharedData,
    seconds: float,
    *,
    steps: int | None,
    seeds: int,
    planned: bool = True,
) -> Diagnosis:
    """The diagnosis from so many steps, or from the whole plan; ``seconds`` are for experiments."""
    stages = _Stages()
    with kernel_threads(1):  # beside busy neighbours several can be ten times slower
        shared.pipeline(recipe)
        stages.end("data")
        own = shared.program([recipe], [0])
        if by_loss_alone(own):
            most = 10**9 if steps is None else steps

            def again(edited: Recipe) -> Program:
                return shared.program([edited], [0])

            return stages.noted(
                examine_steps(own, again, steps=most, seconds=seconds, planned=planned)
            )
        program, found, work = _static(recipe, shared)
    stages.end("static")
    if program.seen is None:
        return stages.noted(verdict(found, None))
    with kernel_threads(sensible_threads(recipe, work)):
        run = _whole if steps is None else functools.partial(_part, steps=steps)
        course = run(recipe, program.case, shared, seeds=seeds, seconds=seconds, work=work)
        course.simple, course.planned = lambda: explained(program), planned
        # asked where the plan was seen to its end, by the finding and by its remedies: fitted once
        course.linear = functools.cache(lambda: fitted_linear(program))
        stages.end("run")
        found += given_course(program, course)
        trials = _trials(course, found, shared, seconds, work)
        stages.end("experiments")
        diagnosis = verdict(found, course, trials)
        setting = Setting(course, shared, 0.3 * seconds, work)
        diagnosis.findings = with_what_closes_the_gap(setting, diagnosis.findings)
        diagnosis.findings = with_tried_remedies(setting, diagnosis.findings)
        stages.end("remedies")
    diagnosis.measured = course.measured
    return stages.noted(diagnosis)


def _whole(
    recipe: Recipe, case: Case, shared: SharedData, *, seeds: int, seconds: float, work: float
) -> Course:
    """The course of the whole plan."""
    return run_course(
        recipe,
        case,
        shared,
        steps=10**9,
        seeds=seeds,
        seconds=2 * seconds,
        validation="always",
        marks=2 * MARKS,
    )


def _part(
    recipe: Recipe,
    case: Case,
    shared: SharedData,
    *,
    steps: int,
    seeds: int,
    seconds: float,
    work: float,
) -> Course:
    """The course of the first steps."""
    return run_course(
        recipe, case, shared, steps=steps, seeds=seeds, seconds=0.4 * seconds, work=work
    )


class _Stages:
    """The seconds of each stage, by the clock on the wall."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def end(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self.last, 3)
        self.last = now

    def noted(self, diagnosis: Diagnosis) -> Diagnosis:
        diagnosis.seconds = self.seconds | {"all": round(time.monotonic() - self.began, 3)}
        return diagnosis


def _trials(
    course: Course, found: Sequence[Finding], shared: SharedData, seconds: float, work: float
) -> list[WhatIf]:
    """The experiments that the course asks for; none where a contradiction explains it already."""
    if any(f.strength >= SHOWN and not is_of(f, Kind.DATA) for f in found):
        return []
    if course.plain:
        trials = ended_early(Setting(course, shared, seconds, work))
        trials += held_back(Setting(course, shared, 0.6 * seconds, work), found)
        if not course.over and any(
            f.strength >= SUSPECTED and not is_of(f, Kind.DATA) for f in found
        ):
            trials += try_out(Setting(course, shared, 0.6 * seconds, work), found)
        return trials
    if any(f.code == NoSignal.code for f in found) or course.steps > LONGEST:
        return []
    what_ifs = try_out(Setting(course, shared, 0.6 * seconds, work), found)
    return what_ifs + ended_early(Setting(course, shared, 0.3 * seconds, work))


def examine_static(recipe: Recipe, shared: SharedData) -> tuple[Case, list[Finding], float]:
    """The static findings of a recipe, contradictions and suspicions; and the operations that one
    sample costs."""
    program, found, work = _static(recipe, shared)
    return program.case, found, work


def _static(recipe: Recipe, shared: SharedData) -> tuple[Untrained, list[Finding], float]:
    batch, few = recipe.data.batch, min(64, shared.pipeline(recipe).size("train"))
    light = recipe if batch == "full" or batch <= few else recipe.edit({"data.batch": few})
    program = shared.program([light], [0])
    objective = program.population.objectives[0]
    untrained = inspect_program(recipe, program.pipeline, objective.model, objective.loss)
    return (
        untrained,
        before_training(untrained),
        0.0 if untrained.seen is None else untrained.seen.work,
    )


def plan_seconds(
    recipe: Recipe, *, module: Model = None, arrays: Any = None, seeds: int = SEEDS
) -> float:
    """About how long ``follow`` takes: by operations, and a millisecond for each step."""
    shared = SharedData(module, arrays)
    _, _, work = examine_static(recipe, shared)
    batch = shared.pipeline(recipe).batch_size
    return shared.steps(recipe) * (1e-3 + seeds * work * batch / SPEED)


def run_course(
    recipe: Recipe,
    case: Case,
    shared: SharedData,
    *,
    steps: int,
    seeds: int,
    seconds: float = math.inf,
    work: float = 0.0,
    validation: Literal["always", "end"] = "end",
    marks: int = MARKS,
) -> Course:
    """Train ``seeds`` members for at most ``steps`` steps, measured at ``marks`` places on the way.

    ``work`` is the operations of one sample; a program too heavy for the time is run on smaller
    batches, then with one seed.
    """
    total = shared.steps(recipe)
    run, seeds, steps = _light(
        recipe, min(steps, total), seeds, seconds * SPEED, work, least=128 if total <= steps else 16
    )
    recipes = [run.edit({"seed": run.seed + i}) for i in range(seeds)]
    began = time.process_time()
    experiment = Experiment(recipes, shared)
    curve = experiment.groups[0].curves[0]
    for other in experiment.groups[0].curves.values():
        other.total = total
    first = [look_at(experiment, i) for i in range(seeds)]
    experiment.measure(validation == "always")
    validation = "always" if total <= steps else validation
    for mark in range(1, marks + 1):
        to = max(1, round(mark * steps / marks))
        if to > curve.at[-1]:
            experiment.advance(to, seconds=began + PATIENCE * seconds - time.process_time())
            experiment.measure(validation == "always" or mark == marks)
    return Course(
        case,
        experiment.curves(),
        lambda: [look_at(experiment, i) for i in range(seeds)],
        lambda: first,
        run,
    )


def _light(
    recipe: Recipe, steps: int, seeds: int, operations: float, work: float, least: int
) -> tuple[Recipe, int, int]:
    """The recipe on batches small enough, the number of seeds and of steps, that need no more than
    these operations.

    A short plan is seen to its end, on batches of 128 at least, whatever it costs: how it ends must
    not be lost in noise.
    """
    batch = recipe.data.batch
    if batch == "full" or not work or work * batch * steps * seeds <= operations:
        return recipe, seeds, steps
    seeds = seeds if work * 32 * steps * seeds <= operations else 1
    fits = int(operations / (work * steps * seeds))
    smaller = min(batch, max(least, 2 ** (fits.bit_length() - 1) if fits else least))
    if least <= 16:  # not to its end, then
        steps = min(steps, max(FEWEST, int(operations / (work * smaller * seeds))))
    return recipe.edit({"data.batch": smaller}), seeds, steps


def look_at(experiment: Experiment, i: int) -> Any:
    """A probe of one member as it is now."""
    probe = experiment.groups[0].probe
    few = slice(0, 256 if probe.x[0].numel() < 500 else 32)
    with experiment.objective(i) as objective:
        return look(objective.model, objective.loss, probe.x[few], probe.y[few])
