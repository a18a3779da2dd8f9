"""The examination of a recipe: static, then the first step, then up to 200 steps beside what-if variants of itself."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ravine import durations
from ravine.catalogue import find
from ravine.doctor import static
from ravine.doctor.experiment import Curve, Experiment, Shelf
from ravine.doctor.findings import Diagnosis, Finding
from ravine.doctor.probes import look
from ravine.doctor.remedies import Case, describe, remedies
from ravine.doctor.rules import CONTRADICTION, Trial, verdict
from ravine.doctor.symptoms import UNFINISHED, Course, unfinished
from ravine.engine.programs import Model
from ravine.recipe import Recipe

STEPS = 200
SECONDS = 20.0
SEEDS = 3
FEWEST = 30  # steps of a heavy program
PATIENCE = 10  # times the expected seconds: then the clock ends it after all
SPEED = 3e10  # operations a second that a heavy program is taken to run at: the choice must not hang on the clock
MARKS = 8  # places on the way at which a course is measured


def examine(
    recipe: Recipe, *, module: Model = None, arrays: Any = None, steps: int = STEPS, seconds: float = SECONDS, seeds: int = SEEDS
) -> Diagnosis:
    """Diagnose a recipe before it is trained: ``healthy``, ``sick`` or ``uncertain``, with findings.

    Static checks, one probe of the untrained network, then ``seeds`` members for up to ``steps`` steps (or their share of
    ``seconds``). Where they do not plainly learn, the same steps are run with other learning rates and with the remedies
    of what is suspected: what helps plainly is the cause.
    """
    began = time.monotonic()
    shelf = Shelf(module, arrays)
    case, found, work = examine_static(recipe, shelf)
    clock = {"static": time.monotonic() - began}
    if any(f.code == "wrong_output_units" and "refuses" in f.evidence for f in found):
        return _timed(verdict(found, None), clock, began)
    course = run_course(recipe, case, shelf, steps=steps, seeds=seeds, seconds=0.4 * seconds, work=work)
    clock["run"] = time.monotonic() - began - clock["static"]
    trials: list[Trial] = []
    contradictory = any(f.strength >= CONTRADICTION for f in found)
    if course.over and course.plain and not contradictory:
        trials = list(faster(course, shelf, seconds=seconds))
    elif not contradictory and _worth_trying(course, found):
        trials = try_out(course, found, shelf, seconds=0.6 * seconds, work=work)
    clock["experiments"] = time.monotonic() - began - clock["static"] - clock["run"]
    return _timed(verdict(found, course, trials), clock, began, course)


def examine_static(recipe: Recipe, shelf: Shelf) -> tuple[Case, list[Finding], float]:
    """The static findings of a recipe, contradictions and suspicions; and the operations that one sample costs."""
    batch = recipe.data.batch
    light = recipe if batch == "full" or batch <= 64 else recipe.edit({"data.batch": 64})
    program = shelf.program([light], [0])
    objective = program.population.objectives[0]
    laid_out = static.lay_out(recipe, program.pipeline, objective.model, objective.loss)
    return laid_out.case, static.examine(laid_out), 0.0 if laid_out.seen is None else laid_out.seen.work


def follow(recipe: Recipe, *, module: Model = None, arrays: Any = None, seeds: int = SEEDS, seconds: float = 60.0) -> Diagnosis:
    """Run a recipe's whole plan in memory, ``seeds`` members side by side, and judge it as a finished run is judged."""
    began = time.monotonic()
    shelf = Shelf(module, arrays)
    case, found, _ = examine_static(recipe, shelf)
    clock = {"static": time.monotonic() - began}
    course = run_course(recipe, case, shelf, steps=10**9, seeds=seeds, seconds=seconds, validation=True, marks=2 * MARKS)
    clock["run"] = time.monotonic() - began - clock["static"]
    trials = list(faster(course, shelf, seconds=seconds)) if course.plain else []
    return _timed(verdict(found, course, trials), clock, began, course)


def plan_seconds(recipe: Recipe, *, module: Model = None, arrays: Any = None, seeds: int = SEEDS) -> float:
    """About how long ``follow`` takes: by operations, and a millisecond for each step."""
    shelf = Shelf(module, arrays)
    _, _, work = examine_static(recipe, shelf)
    size = shelf.pipeline(recipe).train_size
    steps = _plan(recipe, size)
    batch = size if recipe.data.batch == "full" else recipe.data.batch
    return steps * (1e-3 + seeds * work * batch / SPEED)


def _timed(diagnosis: Diagnosis, clock: dict[str, float], began: float, course: Course | None = None) -> Diagnosis:
    diagnosis.seconds = {**{k: round(v, 3) for k, v in clock.items()}, "all": round(time.monotonic() - began, 3)}
    if course is not None:
        diagnosis.measured = {
            "steps": course.steps, "of": course.total, "skill": [round(max(c.skill, -99.0), 4) for c in course.curves],
            "metric_skill": round(max(course.metric_skill, -99.0), 4),
        }  # fmt: skip
    return diagnosis


def run_course(
    recipe: Recipe,
    case: Case,
    shelf: Shelf,
    *,
    steps: int,
    seeds: int,
    seconds: float = math.inf,
    work: float = 0.0,
    validation: bool = False,
    marks: int = MARKS,
) -> Course:
    """Train ``seeds`` members for at most ``steps`` steps, measured at ``marks`` places on the way.

    ``work`` is the operations of one sample; a program too heavy for the time is run on smaller batches, then with one seed.
    """
    plan = _plan(recipe, shelf.pipeline(recipe).train_size)
    run, seeds, steps = _light(recipe, min(steps, plan), seeds, seconds * SPEED, work, least=32 if plan <= steps else 16)
    recipes = [run.edit({"seed": run.seed + i}) for i in range(seeds)]
    began = time.monotonic()
    experiment = Experiment(recipes, shelf)
    curve = experiment.groups[0].curves[0]
    for other in experiment.groups[0].curves:
        other.total = plan
    first = [look_at(experiment, i) for i in range(seeds)]
    experiment.measure(validation)
    for mark in range(1, marks + 1):
        to = max(1, round(mark * steps / marks))
        if to > curve.at[-1]:
            experiment.advance(to, seconds=began + PATIENCE * seconds - time.monotonic())
            experiment.measure(validation)
    return Course(case, experiment.curves(), lambda: [look_at(experiment, i) for i in range(seeds)], lambda: first, run)


def _light(recipe: Recipe, steps: int, seeds: int, operations: float, work: float, least: int) -> tuple[Recipe, int, int]:
    """The recipe on batches small enough, the number of seeds and of steps, that need no more than these operations.

    A short plan is seen to its end, on batches of 32 at least, whatever it costs: how it ends must not be lost in noise.
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


def _plan(recipe: Recipe, size: int) -> int:
    """Steps of a recipe's whole plan on so many training samples."""
    batch = size if recipe.data.batch == "full" else min(recipe.data.batch, size)
    per_epoch = size // batch if recipe.data.last_batch == "drop" else math.ceil(size / batch)
    return max(1, durations.steps(recipe.stop.after, math.ceil(per_epoch / recipe.optimizer.accumulate)))


def look_at(experiment: Experiment, i: int) -> Any:
    """A probe of one member as it is now."""
    model, loss = experiment.model(i)
    probe = experiment.groups[0].probe
    few = slice(0, 256 if probe.x[0].numel() < 500 else 32)
    return look(model, loss, probe.x[few], probe.y[few])


# --- experiments ----------------------------------------------------------------------------------------------------


def _worth_trying(course: Course, found: Sequence[Finding]) -> bool:
    return not course.plain or any(f.strength >= 0.5 for f in found)


def try_out(course: Course, found: Sequence[Finding], shelf: Shelf, *, seconds: float = math.inf, work: float = 0.0) -> list[Trial]:
    """Run variants of the program for the same steps: other learning rates, and the remedy of each suspicion.

    Where only a part of the plan was run, more of it is seen at a higher rate: k times the rate for n steps is about the
    rate itself for k n steps. What the best such member reaches is what the whole plan is taken to reach.
    """
    recipe = course.run or course.curves[0].recipe
    suspects = [f for f in found if f.remedies and f.code not in ("lr_too_low", "lr_too_high")][:3]
    batch = 256 if recipe.data.batch == "full" else recipe.data.batch
    affordable = math.inf if not work else seconds * SPEED / (work * batch)  # steps of one member
    few = affordable < 8 * course.steps
    ahead = max(1.0, course.total / max(1, course.steps))  # how much longer the plan is than what was run
    factors = _factors(course, ahead, few)
    steps = course.steps
    if len(factors) + 2 * len(suspects) > affordable / steps:
        steps = min(steps, max(FEWEST, int(affordable / (len(factors) + 2 * len(suspects)))))
        ahead = max(1.0, course.total / steps)
    share = len(factors) / (len(factors) + 2 * len(suspects))
    lr = recipe.optimizer.arguments["lr"]
    curves = _outcomes(shelf, [recipe.edit({"optimizer.lr": lr * f}) for f in factors], steps, PATIENCE * seconds * share)
    own = course.skill_at(steps / course.steps)
    reach = {f: curve.skill for f, curve in zip(factors, curves, strict=True)}
    projected = max([own, *(s for f, s in reach.items() if 1 < f <= 1.5 * ahead)])
    trials = list(_of_rates(course, reach, own, projected, ahead, steps))
    compressed = max((f for f in reach if 1 < f <= 1.5 * ahead), key=lambda f: reach[f], default=1.0)
    for suspect in suspects:
        edits = _on(recipe, course.case, suspect.remedies[0]["edits"])
        tried = [recipe.edit(edits | ({} if k == 1 else {"optimizer.lr": lr * k})) for k in sorted({1.0, compressed})]
        outcomes = _outcomes(shelf, tried, steps, PATIENCE * seconds * (1 - share) / len(suspects))
        best = max(outcomes, key=lambda curve: curve.skill)
        trials.append(_trial(course, suspect, best, own, projected, steps))
    return trials


def faster(course: Course, shelf: Shelf, *, seconds: float) -> Iterator[Trial]:
    """Where a whole plan may have ended in mid-descent: the plan again at higher rates. It must take away a third of the
    loss that is left.
    """
    if not unfinished(course, UNFINISHED / 2):
        return
    run = course.run or course.curves[0].recipe
    lr, seeds = run.optimizer.arguments["lr"], [curve.recipe.seed for curve in course.curves]
    needed = max(0.03, (1 - course.skill) / 3)
    for factor in (5.0, 20.0):
        recipes = [run.edit({"optimizer.lr": lr * factor, "seed": seed}) for seed in seeds]
        skill = float(np.median([curve.skill for curve in _outcomes(shelf, recipes, course.steps, PATIENCE * seconds)]))
        words = (
            f"with lr {lr * factor:.3g} the same {course.steps} steps reach {_percent(skill)} "
            "of the way from the constant predictor "
            f"to a loss of 0, with lr {lr:.3g} {_percent(course.skill)}"
        )
        finding = Finding("lr_too_low", "optimizer.lr", f"lr is {lr:.3g}", remedies("lr_too_low", course.case, factor=factor))
        yield Trial(finding, skill - course.skill, skill, words, needed)


def _factors(course: Course, ahead: float, few: bool) -> list[float]:
    """The learning rates to try, as multiples of the program's own."""
    if course.plain:
        return [0.1, *[f for f in (10.0,) if f <= ahead and not few]]
    if few:
        return [0.1, *[f for f in (10.0, 100.0, 1000.0) if f <= 100 * ahead]]
    return [0.01, 0.1, *[f for f in (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0) if f <= 100 * ahead], *_far(course)]


def _far(course: Course) -> list[float]:
    """The optimiser's own default rate, where the program's is beyond the reach of the others."""
    optimizer = course.curves[0].recipe.optimizer
    factor = find("optimizer", optimizer.kind).fields["lr"][1] / optimizer.lr
    return [factor] if factor > 1000 or factor < 0.01 else []


def _on(run: Recipe, case: Case, edits: dict[str, Any]) -> dict[str, Any]:
    """Edits without what smaller batches have settled already."""
    return {path: value for path, value in edits.items() if path != "data.batch" or run.data.batch == case.recipe.data.batch}


def _outcomes(shelf: Shelf, recipes: Sequence[Recipe], steps: int, seconds: float = math.inf) -> list[Curve]:
    """The curves of recipes after so many steps, measured at the start and at the end."""
    experiment = Experiment(recipes, shelf)
    experiment.measure()
    experiment.advance(steps, seconds=seconds)
    experiment.measure()
    return experiment.curves()


def _of_rates(course: Course, reach: dict[float, float], own: float, projected: float, ahead: float, steps: int) -> Iterator[Trial]:
    lr = course.case.recipe.optimizer.arguments["lr"]
    lower = {f: s for f, s in reach.items() if f < 1}
    higher = {f: s for f, s in reach.items() if f > 1.5 * ahead}
    for code, rates in (("lr_too_high", lower), ("lr_too_low", higher)):
        if not rates:
            continue
        factor = max(rates, key=lambda f: rates[f])
        against = own if code == "lr_too_high" else projected
        words = (
            f"with lr {lr * factor:.3g} the same {steps} steps reach {_percent(rates[factor])} of the way from the constant "
            f"predictor to a loss of 0, with lr {lr:.3g} {_percent(own)}"
        )
        if code == "lr_too_low" and ahead > 1.5:
            words += f" (the whole plan of {course.total} steps is projected to reach {_percent(projected)})"
        finding = Finding(code, "optimizer.lr", f"lr is {lr:.3g}", remedies(code, course.case, factor=factor))
        yield Trial(finding, rates[factor] - max(against, -0.5), rates[factor], words)


def _percent(skill: float) -> str:
    return "no part" if skill < 0 else f"{skill:.0%}"


def _trial(course: Course, suspect: Finding, curve: Curve, own: float, projected: float, steps: int) -> Trial:
    """How a remedy's member compares: by skill, each against its own loss's constant predictor, and by the metric too."""
    gain = curve.skill - max(projected, -0.5)
    if curve.recipe.loss != course.case.recipe.loss:
        gain = min(gain, curve.metric_skill - max(course.metric_skill, -0.5))
    words = (
        f"with {describe(suspect.remedies[0]['edits'])} {steps} steps reach {_percent(curve.skill)} of the way from the "
        f"constant predictor to a loss of 0, without {_percent(own)}"
    )
    return Trial(replace(suspect), gain, curve.skill, words)
