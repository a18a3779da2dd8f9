"""Experiments on a program that learns: what holds it back, and whether its plan ends too early."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Edits, describe, longer
from ravine.doctor.experiments.variants import (
    LONGEST,
    PATIENCE,
    TIMES,
    Setting,
    limited,
    percent,
    reach,
    steps_first,
)
from ravine.doctor.experiments.whatif import TRIES, Extent, try_remedy
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import AugmentationDestructive
from ravine.doctor.findings.plan import BatchTooLarge, TooFewEpochs
from ravine.doctor.findings.rates import LrTooHigh, LrTooLow
from ravine.doctor.measure.course import UNFINISHED
from ravine.doctor.table import is_of
from ravine.doctor.verdict import GAIN, WhatIf

FAR = 0.7  # skill from which nothing holds a program back
SEEN = 3  # times the steps seen: plans up to that length are judged by their rate
THIRD = 0.35  # of the loss that is left, which a rate must take away at a plan's end
HEAVY = 1.0  # seconds of all members, from which only one other rate is tried
FASTER = (5.0, 20.0)  # multiples of the rate at which a plan that ends early is tried
RATES = (0.1, 3.0, 10.0, 100.0)  # multiples; higher ones may stand for the rest of a plan
SURE = 0.6  # of the best gain, from which a cause is as likely as the best one
LEAST = 0.03, 0.15  # skill that a rate, and that a remedy, must bring at least


def held_back(setting: Setting, found: Sequence[Finding]) -> Iterator[WhatIf]:
    """Whether another rate, or a program without what is unusual in it, gets much further.

    Without what is unusual the skill must double, or half of the loss that is left must go; with
    another rate, half of that loss.
    """
    course = setting.course
    suspects = [f for f in found if is_of(f, Kind.LIMIT) and f.remedies]
    variants = len(RATES) + TRIES * len(suspects)
    if course.skill > FAR or setting.expected() * (1 + variants) > setting.seconds:
        return
    steps, seconds = course.steps, PATIENCE * setting.seconds
    curves = setting.curves([setting.at_rate(f) for f in RATES], steps, seconds)
    skills = {f: curve.skill for f, curve in zip(RATES, curves, strict=True)}
    # k times the rate for n steps is about the rate itself for k n steps
    of_plan = [f for f in skills if 1 < f <= 2 * course.total / steps]
    projected = max([course.skill, *(skills[f] for f in of_plan)])
    seen = course.total <= SEEN * steps  # a longer plan cannot be projected that surely
    needed = max(LEAST[1], min((1 - projected) / 2, projected))
    for kind, rates in (
        (LrTooHigh, [f for f in skills if f < 1]),
        (LrTooLow, [f for f in skills if f > 2 * course.total / steps and seen]),
    ):
        factor = max(rates, key=lambda f: skills[f], default=1.0)
        most = max(needed, (1 - projected) / 2)  # sound programs, too, have better rates
        if factor != 1 and skills[factor] - projected >= most:
            yield _at_other_rate(setting, kind, factor, projected, most)
    extent = Extent(steps, False, 1.0, seconds, seconds)
    for suspect in suspects:
        what_if = try_remedy(setting, suspect, extent, course.skill, projected, 1.0)
        own = what_if.needed if suspect.code == AugmentationDestructive.code else needed
        yield replace(what_if, needed=own)


def _at_other_rate(
    setting: Setting, kind: type[Declaration], factor: float, against: float, needed: float
) -> WhatIf:
    """All seeds at a multiple of the rate, for the same steps."""
    course, lr = setting.course, setting.lr
    recipes = [setting.at_rate(factor, {"seed": curve.recipe.seed}) for curve in course.curves]
    skill = setting.skill(recipes, course.steps, PATIENCE * setting.seconds)
    words = (
        f"with lr {lr * factor:.3g} the same {course.steps} steps {reach(skill)}, with "
        f"lr {lr:.3g} {percent(course.skill)}"
    )
    evidence = Evidence("optimizer.lr", f"lr is {lr:.3g}", 1.0, factor)
    what_if = WhatIf(kind.finding(evidence, course.subject), skill - against, skill, words, needed)
    return steps_first(setting, what_if, factor) if factor > 1 else what_if


def ended_early(setting: Setting) -> list[WhatIf]:
    """Where a whole plan may have ended in mid-descent: at higher rates, longer, on smaller
    batches.

    A rate must take away 35 % of the loss that is left; more steps, which always help, a half.
    """
    course = setting.course
    if not course.over or (course.plain and not course.unfinished(UNFINISHED / 2)):
        return []
    what_ifs = list(_faster(setting)) if course.plain else []
    what_ifs += _further(setting)
    best = max((one.gain for one in what_ifs if one.counts(course)), default=0.0)
    return [one if one.gain > SURE * best else replace(one, sure=False) for one in what_ifs]


def _faster(setting: Setting) -> Iterator[WhatIf]:
    course = setting.course
    needed = max(LEAST[0], THIRD * (1 - course.skill))
    for factor in (10.0,) if setting.expected() * len(course.curves) > HEAVY else FASTER:
        yield _at_other_rate(setting, LrTooLow, factor, course.skill, needed)


def _further(setting: Setting) -> Iterator[WhatIf]:
    """Several times the plan, LONGEST / TIMES steps at least; the same epochs on smaller batches."""
    course, run = setting.course, setting.recipe
    needed = max(GAIN, (1 - course.skill) / 2) if course.plain else GAIN
    times = max(TIMES, math.ceil(LONGEST / TIMES / course.total))
    ends = Evidence("stop.after", f"the plan ends after {course.total} steps", 1.0)
    found: list[tuple[type[Declaration], Evidence, Edits]] = [
        (TooFewEpochs, ends, longer(course.subject, times))
    ]
    batch = run.data.batch
    few = batch == course.recipe.data.batch and course.total < BatchTooLarge.STEPS
    if few and (batch == "full" or batch >= 2 * BatchTooLarge.SMALLER):
        leaves = Evidence("data.batch", BatchTooLarge.text_of(course), 1.0)
        smaller = BatchTooLarge.remedies_for(course.subject)[0]["edits"]
        found.append((BatchTooLarge, leaves, smaller))
    for kind, evidence, edits in found:
        recipe = run.edit(edits)
        steps = min(setting.shared.steps(recipe), LONGEST)
        if course.total >= LONGEST or setting.expected(steps) > setting.seconds / 2:
            continue
        skill = setting.skill([recipe], steps, PATIENCE * setting.seconds)
        words = (
            f"with {describe(edits)} {steps} steps {reach(skill)}, as it is {percent(course.skill)}"
        )
        finding = kind.finding(evidence, course.subject)
        gain = skill - limited(course.skill)
        yield WhatIf(
            finding, gain, skill, words, needed, remedy={"edits": edits, "why": "more steps"}
        )
