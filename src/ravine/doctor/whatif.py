"""What-if experiments: the program with one thing changed, for the same steps on the same batches.
What helps plainly is the cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ravine.catalogue import find
from ravine.doctor.course import UNFINISHED, Course
from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Edits, describe, longer
from ravine.doctor.experiment import Curve, Experiment, Shelf
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import AugmentationDestructive, CapacityTooSmall
from ravine.doctor.findings.initial import InitScale
from ravine.doctor.findings.plan import HINT, BatchTooLarge, BatchTooSmall, TooFewEpochs
from ravine.doctor.findings.rates import LrTooHigh, LrTooLow, OptimizerUnsuited, is_adaptive
from ravine.doctor.findings.units import VanishingGradient, broken
from ravine.doctor.table import is_of
from ravine.doctor.verdict import GAIN, WhatIf
from ravine.recipe import Recipe

FEWEST = 30  # steps of a heavy program
PATIENCE = 30  # times the expected seconds: then the clock ends it after all
# operations a second that a heavy program is taken to run at: the choice must not hang on the clock
SPEED = 3e10
SUSPECTS = 4
LONGEST = 800  # steps of a plan that is tried at several times its length
HEAVY = 1.0  # seconds of one member


def seconds_of(course: Course, work: float, steps: int | None = None) -> float:
    """About how long one member takes for so many steps; 0 where the operations of a sample are not
    known."""
    batch = (course.run or course.recipe).data.batch
    return work * (256 if batch == "full" else batch) * (steps or course.steps) / SPEED


# --- where it does not learn ----------------------------------------------------------------------


def try_out(
    course: Course,
    found: Sequence[Finding],
    shelf: Shelf,
    *,
    seconds: float = math.inf,
    work: float = 0.0,
) -> list[WhatIf]:
    """Run variants of the program for the same steps: other learning rates, and the remedy of each
    suspicion; where none of these helps, what is rarely suspected.

    Where only a part of the plan was run, more of it is seen at a higher rate: k times the rate for
    n steps is about the rate itself for k n steps. What the best such member reaches is what the
    whole plan is taken to reach.
    """
    recipe = course.trained
    suspects = sorted(
        (f for f in found if f.remedies and _ripe(f, course)), key=lambda f: -f.strength
    )[:SUSPECTS]
    affordable = (
        math.inf if not work else seconds / max(seconds_of(course, work, 1), 1e-12)
    )  # steps of one member
    few = affordable < 8 * course.steps
    ahead = max(
        1.0, course.total / max(1, course.steps)
    )  # how much longer the plan is than what was run
    factors = _factors(course, ahead, few)
    steps = course.steps
    if len(factors) + 2 * len(suspects) > affordable / steps:
        steps = min(steps, max(FEWEST, int(affordable / (len(factors) + 2 * len(suspects)))))
        ahead = max(1.0, course.total / steps)
    share = len(factors) / (len(factors) + 2 * len(suspects))
    lr = recipe.optimizer.arguments["lr"]
    curves = _outcomes(
        shelf,
        [recipe.edit({"optimizer.lr": lr * f}) for f in factors],
        steps,
        PATIENCE * seconds * share,
    )
    own = course.skill_at(steps / course.steps)
    reach = {f: curve.skill for f, curve in zip(factors, curves, strict=True)}
    projected = max([own, *(s for f, s in reach.items() if 1 < f <= 1.5 * ahead)])
    compressed = max(
        (f for f in reach if 1 < f <= 1.5 * ahead), key=lambda f: reach[f], default=1.0
    )
    trials = []
    for trial, factor in _of_rates(course, reach, own, projected, ahead, steps):
        sure = few or not trial.counts(course)
        trials.append(trial if sure else _again(course, trial, factor, compressed, shelf, steps))
    limit = PATIENCE * seconds * (1 - share) / max(1, len(suspects))
    for suspect in suspects:
        trials.append(_tried(course, suspect, shelf, steps, own, projected, compressed, limit))
    if not few and not course.plain and (course.over or _broken(course)):
        best, suspected = max([projected, *reach.values()]), {f.code for f in suspects}
        helped = any(trial.counts(course) for trial in trials)
        for finding in [*_other_optimizer(course), *([] if helped else _unsuspected(course))]:
            if finding.code not in suspected:
                limit = PATIENCE * seconds / 4
                trials.append(_tried(course, finding, shelf, steps, own, best, 1.0, limit))
    return trials


def _ripe(finding: Finding, course: Course) -> bool:
    """Whether an experiment would say something: what only slows the beginning is asked for at a
    plan's end."""
    if is_of(finding, Kind.RATE):
        return False
    worse = finding.code == BatchTooSmall.code and not course.skill > -0.05
    return (
        finding.strength > HINT
        or course.over
        or worse
        or finding.code == AugmentationDestructive.code
    )


def _tried(
    course: Course,
    suspect: Finding,
    shelf: Shelf,
    steps: int,
    own: float,
    projected: float,
    factor: float,
    seconds: float,
) -> WhatIf:
    """The remedy of one suspicion, at the program's rate and at ``factor`` times it."""
    recipe = course.trained
    if suspect.code == AugmentationDestructive.code:
        return _unaugmented(course, suspect, shelf, steps, seconds)
    edits = _on(recipe, course.subject, suspect.remedies[0]["edits"])
    lr = recipe.optimizer.arguments["lr"]
    factors = [1.0] if factor == 1 or "optimizer" in edits else [1.0, factor]
    tried = [recipe.edit(edits | ({} if k == 1 else {"optimizer.lr": lr * k})) for k in factors]
    best = max(_outcomes(shelf, tried, steps, seconds), key=lambda curve: curve.skill)
    return _trial(course, suspect, best, own, projected, steps)


def _broken(course: Course) -> bool:
    """Whether most units give no gradient, or the first layers get none: waiting does not mend
    that."""
    return bool(broken(course, course.first)) and bool(broken(course, course.seen))


def _unsuspected(course: Course) -> Iterator[Finding]:
    """What is tried where no suspicion helps: other hidden activations, fresh weights; at a plan's
    end a wider network too."""
    flat = broken(course, course.first) or broken(course, course.seen)
    kinds = " ".join(layer.kind for seen in course.first[:1] for layer in seen.layers)[:80]
    layers = Evidence("hidden layers", f"the layers are {kinds}", HINT)
    weights = Evidence("initial weights", "the initial weights are unlike He's", HINT)
    candidates: list[tuple[type[Declaration], Evidence]] = [
        flat or (VanishingGradient, layers),
        (InitScale, weights),
    ]
    if course.over:
        candidates.append((CapacityTooSmall, layers))
    for kind, evidence in candidates:
        finding = kind.finding(replace(evidence, strength=HINT), course.subject)
        if finding.remedies:
            yield finding


def _other_optimizer(course: Course) -> list[Finding]:
    kind = course.recipe.optimizer.kind
    evidence = Evidence("optimizer.kind", f"the optimiser is {kind}", HINT)
    finding = OptimizerUnsuited.finding(evidence, course.subject)
    return [finding] if course.over and finding.remedies and not is_adaptive(kind) else []


def _again(
    course: Course, trial: WhatIf, factor: float, compressed: float, shelf: Shelf, steps: int
) -> WhatIf:
    """The gain of a rate with the other seeds: one member may learn by luck."""
    recipe = course.trained
    lr, seeds = recipe.optimizer.arguments["lr"], [curve.recipe.seed for curve in course.curves[1:]]
    if not seeds:
        return trial
    tried = [
        recipe.edit({"optimizer.lr": lr * k, "seed": seed})
        for k in (factor, compressed)
        for seed in seeds
    ]
    skills = [max(curve.skill, -0.5) for curve in _outcomes(shelf, tried, steps)]
    theirs, ours = skills[: len(seeds)], skills[len(seeds) :]
    against = (
        ours
        if trial.finding.code == LrTooLow.code
        else [max(curve.skill, -0.5) for curve in course.curves[1:]]
    )
    gains = [trial.gain, *(a - b for a, b in zip(theirs, against, strict=True))]
    return replace(
        trial, gain=float(np.median(gains)), skill=float(np.median([trial.skill, *theirs]))
    )


def _factors(course: Course, ahead: float, few: bool) -> list[float]:
    """The learning rates to try, as multiples of the program's own."""
    if course.plain:
        return [0.1, *[f for f in (10.0,) if f <= ahead and not few]]
    if few:
        return [0.1, *[f for f in (10.0, 100.0, 1000.0) if f <= 100 * ahead], *_far(course)]
    return [0.01, 0.1, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, *_far(course)]


def _far(course: Course) -> list[float]:
    """The optimiser's own default rate, where the program's is beyond the reach of the others."""
    optimizer = course.curves[0].recipe.optimizer
    factor = find("optimizer", optimizer.kind).fields["lr"][1] / optimizer.lr
    return [factor] if factor > 1000 or factor < 0.01 else []


def _on(run: Recipe, case: Case, edits: dict[str, Any]) -> dict[str, Any]:
    """Edits without what smaller batches have settled already."""
    return {
        path: value
        for path, value in edits.items()
        if path != "data.batch" or run.data.batch == case.recipe.data.batch
    }


def _outcomes(
    shelf: Shelf, recipes: Sequence[Recipe], steps: int, seconds: float = math.inf
) -> list[Curve]:
    """The curves of recipes after so many steps, measured at the start and at the end."""
    experiment = Experiment(recipes, shelf, steps=steps)
    experiment.measure()
    experiment.advance(steps, seconds=seconds)
    experiment.measure()
    return experiment.curves()


def _of_rates(
    course: Course,
    reach: dict[float, float],
    own: float,
    projected: float,
    ahead: float,
    steps: int,
) -> Iterator[tuple[WhatIf, float]]:
    """A lower and a higher rate, the best of each, and its multiple of the program's."""
    lr = course.recipe.optimizer.arguments["lr"]
    lower = {f: s for f, s in reach.items() if f < 1}
    higher = {f: s for f, s in reach.items() if f > 1.5 * ahead}
    for kind, rates in ((LrTooHigh, lower), (LrTooLow, higher)):
        if not rates:
            continue
        factor = max(rates, key=lambda f: rates[f])
        against = own if kind is LrTooHigh else projected
        words = f"with lr {lr * factor:.3g} the same {steps} steps {_words(rates[factor])}, with lr {lr:.3g} {_percent(own)}"
        if kind is LrTooLow and ahead > 1.5:
            words += f" (the whole plan of {course.total} steps is projected to reach {_percent(projected)})"
        evidence = Evidence("optimizer.lr", f"lr is {lr:.3g}", 1.0, factor)
        finding = kind.finding(evidence, course.subject)
        yield WhatIf(finding, rates[factor] - max(against, -0.5), rates[factor], words), factor


def _words(skill: float) -> str:
    return f"reach {_percent(skill)} of the way from the constant predictor to a loss of 0"


def _percent(skill: float) -> str:
    return "no part" if skill < 0 else f"{skill:.0%}"


def _trial(
    course: Course, suspect: Finding, curve: Curve, own: float, projected: float, steps: int
) -> WhatIf:
    """How a remedy's member compares: by skill, each against its own loss's constant predictor, and
    by the metric too."""
    gain = curve.skill - max(projected, -0.5)
    if curve.recipe.loss != course.recipe.loss:
        gain = min(gain, curve.metric_skill - max(course.metric_skill, -0.5))
    words = f"with the first remedy {steps} steps {_words(curve.skill)}, without it {_percent(own)}"
    return WhatIf(replace(suspect), gain, curve.skill, words)


def _unaugmented(
    course: Course, suspect: Finding, shelf: Shelf, steps: int, seconds: float
) -> WhatIf:
    """With and without augmentation, both on samples as they are."""
    recipe = course.trained
    plain_recipe = recipe.edit({"data.augment": []})
    experiment = Experiment([recipe, plain_recipe], shelf, steps=steps)
    experiment.advance(steps, seconds=seconds)
    plain = experiment.groups[-1]
    skills = []
    for group in experiment.groups:
        (member,) = group.curves
        with group.objective(member) as objective:
            skills.append(plain.base.skill(group.judge(objective, plain.probe)[0]))
    own, without = skills
    words = f"without it {steps} steps {_words(without)} on samples as they are, with it {_percent(own)}"
    return WhatIf(
        suspect,
        without - max(own, -0.5),
        without,
        words,
        max(0.15, (0.7 if course.plain else 0.5) * without),
    )


# --- where it learns ------------------------------------------------------------------------------


def limits(
    course: Course, found: Sequence[Finding], shelf: Shelf, *, seconds: float, work: float
) -> Iterator[WhatIf]:
    """Of a program that learns: whether what is rare in it holds it back. Without it the skill must
    double, or half of the loss that is left must go.
    """
    suspects = [f for f in found if is_of(f, Kind.LIMIT) and f.remedies]
    if (
        not suspects
        or course.skill > 0.7
        or seconds_of(course, work) * (1 + 2 * len(suspects)) > seconds
    ):
        return
    recipe, steps = course.trained, course.steps
    lr = recipe.optimizer.arguments["lr"]
    ahead = [f for f in (3.0, 10.0) if f <= 2 * course.total / steps]
    higher = [recipe.edit({"optimizer.lr": lr * f}) for f in ahead]
    projected = max(
        [
            course.skill,
            *[curve.skill for curve in (_outcomes(shelf, higher, steps) if higher else [])],
        ]
    )
    for suspect in suspects:
        trial = _tried(
            course, suspect, shelf, steps, course.skill, projected, 1.0, PATIENCE * seconds
        )
        needed = (
            trial.needed
            if suspect.code == AugmentationDestructive.code
            else max(0.15, min((1 - projected) / 2, projected))
        )
        yield replace(trial, needed=needed)


def ended_early(course: Course, shelf: Shelf, *, seconds: float, work: float = 0.0) -> list[WhatIf]:
    """Where a whole plan may have ended in mid-descent: the plan at higher rates, longer, on
    smaller batches.

    A rate must take away a third of the loss that is left; more steps, which always help, a half.
    """
    if not course.over or (course.plain and not course.unfinished(UNFINISHED / 2)):
        return []
    trials = list(_faster(course, shelf, seconds, work)) if course.plain else []
    trials += _further(course, shelf, seconds, work)
    best = max((trial.gain for trial in trials if trial.counts(course)), default=0.0)
    return [trial if trial.gain > 0.6 * best else replace(trial, sure=False) for trial in trials]


def _faster(course: Course, shelf: Shelf, seconds: float, work: float) -> Iterator[WhatIf]:
    run = course.trained
    lr, seeds = run.optimizer.arguments["lr"], [curve.recipe.seed for curve in course.curves]
    needed = max(0.03, (1 - course.skill) / 3)
    for factor in (10.0,) if seconds_of(course, work) * len(seeds) > HEAVY else (5.0, 20.0):
        recipes = [run.edit({"optimizer.lr": lr * factor, "seed": seed}) for seed in seeds]
        skill = float(
            np.median(
                [
                    curve.skill
                    for curve in _outcomes(shelf, recipes, course.steps, PATIENCE * seconds)
                ]
            )
        )
        words = (
            f"with lr {lr * factor:.3g} the same {course.steps} steps {_words(skill)}, "
            f"with lr {lr:.3g} {_percent(course.skill)}"
        )
        evidence = Evidence("optimizer.lr", f"lr is {lr:.3g}", 1.0, factor)
        finding = LrTooLow.finding(evidence, course.subject)
        yield WhatIf(finding, skill - course.skill, skill, words, needed)


def _further(course: Course, shelf: Shelf, seconds: float, work: float) -> Iterator[WhatIf]:
    """Four times the plan, 200 steps at least; the same epochs on smaller batches."""
    run = course.trained
    needed = max(GAIN, (1 - course.skill) / 2) if course.plain else GAIN
    times = max(4, math.ceil(LONGEST / 4 / course.total))
    ends = Evidence("stop.after", f"the plan ends after {course.total} steps", 1.0)
    found: list[tuple[type[Declaration], Evidence, Edits]] = [
        (TooFewEpochs, ends, longer(course.subject, times))
    ]
    batch = run.data.batch
    few = batch == course.recipe.data.batch and course.total < BatchTooLarge.STEPS
    if few and (batch == "full" or batch >= 64):
        leaves = Evidence("data.batch", BatchTooLarge.text_of(course), 1.0)
        smaller = BatchTooLarge.remedies_for(course.subject)[0]["edits"]
        found.append((BatchTooLarge, leaves, smaller))
    for kind, evidence, edits in found:
        recipe = run.edit(edits)
        steps = min(shelf.steps(recipe), LONGEST)
        if course.total >= LONGEST or seconds_of(course, work, steps) > seconds / 2:
            continue
        skill = _outcomes(shelf, [recipe], steps, PATIENCE * seconds)[0].skill
        words = f"with {describe(edits)} {steps} steps {_words(skill)}, as it is {_percent(course.skill)}"
        finding = kind.finding(evidence, course.subject)
        yield WhatIf(finding, skill - max(course.skill, -0.5), skill, words, needed)
