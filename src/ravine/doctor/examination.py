"""The examination of a recipe: static, then the first step, then up to 200 steps beside what-if variants of itself."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ravine.data.pipeline import Pipeline
from ravine.doctor import static
from ravine.doctor.experiment import Curve, Experiment
from ravine.doctor.findings import Diagnosis, Finding
from ravine.doctor.probes import look
from ravine.doctor.remedies import Case, describe, remedies
from ravine.doctor.rules import CONTRADICTION, Trial, verdict
from ravine.doctor.symptoms import Course
from ravine.engine.programs import Model, programs_of
from ravine.recipe import Recipe

STEPS = 200
SECONDS = 20.0
SEEDS = 3
_MARKS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


def examine(
    recipe: Recipe, *, module: Model = None, arrays: Any = None, steps: int = STEPS, seconds: float = SECONDS, seeds: int = SEEDS
) -> Diagnosis:
    """Diagnose a recipe before it is trained: ``healthy``, ``sick`` or ``uncertain``, with findings.

    Static checks, one probe of the untrained network, then ``seeds`` members for up to ``steps`` steps (or their share of
    ``seconds``). Where they do not plainly learn, the same steps are run with other learning rates and with the remedies
    of what is suspected: what helps plainly is the cause.
    """
    began = time.monotonic()
    pipelines: dict[tuple[str, str], Pipeline] = {}
    case, found = examine_static(recipe, module=module, arrays=arrays, pipelines=pipelines)
    clock = {"static": time.monotonic() - began}
    if any(f.code == "wrong_output_units" and "refuses" in f.evidence for f in found):
        return _timed(verdict(found, None), clock, began)
    course = run_course(recipe, case, steps, seeds, module=module, arrays=arrays, pipelines=pipelines, seconds=0.4 * seconds)
    clock["run"] = time.monotonic() - began - clock["static"]
    trials: list[Trial] = []
    contradictory = any(f.strength >= CONTRADICTION for f in found)
    if not contradictory and _worth_trying(course, found):
        trials = try_out(course, found, module=module, arrays=arrays, pipelines=pipelines, seconds=0.6 * seconds)
    clock["experiments"] = time.monotonic() - began - clock["static"] - clock["run"]
    return _timed(verdict(found, course, trials), clock, began, course)


def examine_static(
    recipe: Recipe, *, module: Model = None, arrays: Any = None, pipelines: dict[tuple[str, str], Pipeline] | None = None
) -> tuple[Case, list[Finding]]:
    """The static findings of a recipe, contradictions and suspicions."""
    program = programs_of([recipe], module, arrays, test=False, pipelines=pipelines)[0]
    objective = program.population.objectives[0]
    laid_out = static.lay_out(recipe, program.pipeline, objective.model, objective.loss)
    return laid_out.case, static.examine(laid_out)


def _timed(diagnosis: Diagnosis, clock: dict[str, float], began: float, course: Course | None = None) -> Diagnosis:
    diagnosis.seconds = {**{k: round(v, 3) for k, v in clock.items()}, "all": round(time.monotonic() - began, 3)}
    if course is not None:
        diagnosis.measured = {
            "steps": course.steps, "of": course.total, "skill": [round(max(c.skill, -99.0), 4) for c in course.curves],
            "metric_skill": round(max(course.metric_skill, -99.0), 4),
        }  # fmt: skip
    return diagnosis


def run_course(
    recipe: Recipe, case: Case, steps: int, seeds: int, *, module: Model = None, arrays: Any = None,
    pipelines: dict[tuple[str, str], Pipeline] | None = None, seconds: float = math.inf, validation: bool = False,
) -> Course:
    """Train ``seeds`` members for at most ``steps`` steps, measured at nine places on the way."""
    recipes = [recipe.edit({"seed": recipe.seed + i}) for i in range(seeds)]
    experiment = Experiment(recipes, module=module, arrays=arrays, pipelines=pipelines)
    group = experiment.groups[0]
    first = [look_at(experiment, i) for i in range(seeds)]
    steps = min(steps, group.curves[0].total)
    began = time.monotonic()
    experiment.measure(validation)
    experiment.advance(min(3, steps))
    spent = (time.monotonic() - began) / min(3, steps)
    steps = max(min(steps, 8), min(steps, int(seconds / max(spent, 1e-6))))
    for mark in _MARKS[1:]:
        to = max(1, round(mark * steps))
        if to > experiment.groups[0].curves[0].at[-1]:
            experiment.advance(to, deadline=began + 1.5 * seconds)
            experiment.measure(validation)
    curves = experiment.curves()
    return Course(case, curves, [look_at(experiment, i) for i in range(seeds)], first)


def look_at(experiment: Experiment, i: int) -> Any:
    """A probe of one member as it is now."""
    model, loss = experiment.model(i)
    probe = experiment.groups[0].probe
    few = slice(0, 256 if probe.x[0].numel() < 500 else 32)
    return look(model, loss, probe.x[few], probe.y[few])


# --- experiments ----------------------------------------------------------------------------------------------------


def _worth_trying(course: Course, found: Sequence[Finding]) -> bool:
    return not course.plain or any(f.strength >= 0.5 for f in found)


def try_out(
    course: Course, found: Sequence[Finding], *, module: Model = None, arrays: Any = None,
    pipelines: dict[tuple[str, str], Pipeline] | None = None, seconds: float = math.inf,
) -> list[Trial]:
    """Run variants of the program for the same steps: other learning rates, and the remedy of each suspicion.

    Where only a part of the plan was run, more of it is seen at a higher rate: k times the rate for n steps is about the
    rate itself for k n steps. What the best such member reaches is what the whole plan is taken to reach.
    """
    recipe, steps = course.curves[0].recipe, course.steps
    ahead = max(1.0, course.total / max(1, steps))  # how much longer the plan is than what was run
    lr = recipe.optimizer.arguments["lr"]
    factors = [0.01, 0.1, *[f for f in (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0) if f <= 100 * ahead]]
    if course.plain:
        factors = [0.1, *[f for f in (10.0,) if f <= ahead]]
    budget = _affordable(course, seconds)
    factors = factors if budget >= 8 else [f for f in factors if f in (0.1, 10.0, 100.0, 1000.0)]
    rates = [recipe.edit({"optimizer.lr": lr * f}) for f in factors]
    curves = _run(rates, steps, module, arrays, pipelines, seconds / 2)
    own = course.skill
    reach = {f: curve.skill for f, curve in zip(factors, curves, strict=True)}
    projected = max([own, *(s for f, s in reach.items() if 1 < f <= 1.5 * ahead)])
    found_trials = list(_of_rates(course, reach, projected, ahead))
    helpful = [f for f in reach if 1 < f <= 1.5 * ahead]
    compressed = max(helpful, key=lambda f: reach[f], default=1.0)
    suspects = [f for f in found if f.remedies and f.code not in ("lr_too_low", "lr_too_high")][:3]
    edits = [s.remedies[0]["edits"] for s in suspects]
    tried = [recipe.edit(e | {"optimizer.lr": lr * k}) for e in edits for k in {1.0, compressed}]
    outcomes = _run(tried, steps, module, arrays, pipelines, seconds / 2) if tried else []
    per = len(outcomes) // len(suspects) if suspects else 0
    for i, suspect in enumerate(suspects):
        best = max(outcomes[i * per : (i + 1) * per], key=_merit, default=None)
        if best is not None:
            found_trials.append(_trial(course, suspect, best, projected, own))
    return found_trials


def _merit(curve: Curve) -> float:
    return min(curve.skill, 1.0)


def _affordable(course: Course, seconds: float) -> float:
    """Members that can run the course's steps once more in the time."""
    return seconds / 2 / max(1e-3, course.steps * 1e-3)


def _run(
    recipes: Sequence[Recipe], steps: int, module: Model, arrays: Any, pipelines: dict[tuple[str, str], Pipeline] | None, seconds: float
) -> list[Curve]:
    experiment = Experiment(recipes, module=module, arrays=arrays, pipelines=pipelines)
    began = time.monotonic()
    experiment.measure()
    for i, group in enumerate(experiment.groups):
        group.advance(steps, deadline=began + seconds * (i + 1) / len(experiment.groups))
    experiment.measure()
    return experiment.curves()


def _of_rates(course: Course, reach: dict[float, float], projected: float, ahead: float) -> list[Trial]:
    lower = {f: s for f, s in reach.items() if f < 1}
    higher = {f: s for f, s in reach.items() if f > 1.5 * ahead}
    trials = []
    lr = course.case.recipe.optimizer.arguments["lr"]
    for code, rates in (("lr_too_high", lower), ("lr_too_low", higher)):
        if not rates:
            continue
        factor = max(rates, key=lambda f: rates[f])
        against = course.skill if code == "lr_too_high" else projected
        words = f"with lr {lr * factor:.3g} the same {course.steps} steps reach {_percent(rates[factor])} of the way from the constant predictor to a loss of 0, with lr {lr:.3g} {_percent(course.skill)}"
        if code == "lr_too_low" and ahead > 1.5:
            words += f" (the whole plan of {course.total} steps is projected to reach {_percent(projected)})"
        finding = Finding(code, "optimizer.lr", f"lr is {lr:.3g}", remedies(code, course.case, factor=factor))
        trials.append(Trial(finding, rates[factor] - max(against, -0.5), rates[factor], words))
    return trials


def _percent(skill: float) -> str:
    return "no part" if skill < 0 else f"{skill:.0%}"


def _trial(course: Course, suspect: Finding, curve: Curve, projected: float, own: float) -> Trial:
    """How a remedy's member compares: by skill, each against its own loss's constant predictor, and by the metric too."""
    gain = curve.skill - max(projected, -0.5)
    if curve.recipe.loss != course.case.recipe.loss:
        gain = min(gain, curve.metric_skill - max(course.metric_skill, -0.5))
    words = f"with {describe(suspect.remedies[0]['edits'])} {course.steps} steps reach {_percent(curve.skill)} of the way from the constant predictor to a loss of 0, without {_percent(own)}"
    return Trial(replace(suspect), gain, curve.skill, words)
