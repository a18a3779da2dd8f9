"""Experiments on a program that does not learn: with one thing changed, for the same steps on the
same batches. What helps plainly is the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ravine.catalogue import find
from ravine.doctor.declaration import HINT, Declaration, Evidence, Kind
from ravine.doctor.experiments.experiment import Experiment
from ravine.doctor.experiments.variants import (
    FEWEST,
    PATIENCE,
    Setting,
    limited,
    percent,
    reach,
    sensible_threads,
    steps_first,
)
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import AugmentationDestructive, CapacityTooSmall
from ravine.doctor.findings.initial import InitScale
from ravine.doctor.findings.plan import BatchTooSmall
from ravine.doctor.findings.rates import LrTooHigh, LrTooLow, OptimizerUnsuited, is_adaptive
from ravine.doctor.findings.units import VanishingGradient, broken
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.table import is_of
from ravine.doctor.verdict import WhatIf
from ravine.engine.execution.device import kernel_threads
from ravine.errors import InputError

SUSPECTS = 4  # suspicions that are tried
TRIES = 2  # of each suspicion: at the program's rate, and at the rate that stands for a whole plan
FEW_RUNS = 8  # runs of the program's steps below which only a few variants can be afforded
AHEAD = 1.5  # rates up to so many times the rest of the plan stand for the plan itself
RATES = (0.01, 0.1, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # multiples of the program's own
UNMOVED = -0.05  # skill down to which a program is no worse than the constant predictor
TAKEN = 0.75  # of the loss that augmentation leaves, which training without it must take away
TIMES_EXPECTED = 4  # in processor time, after which the experiment on a run ends wherever it is
BEYOND = 1000.0  # multiple of a rate beyond the reach of the others


@dataclass(frozen=True)
class Extent:
    """How many steps variants take, and how many seconds of processor time at most."""

    steps: int
    few: bool  # only a few variants can be afforded
    ahead: float  # how many times longer the plan is than these steps
    rate_seconds: float  # of all rates together
    suspect_seconds: float  # of each suspicion

    @staticmethod
    def of(setting: Setting, suspects: int) -> Extent:
        """As many steps as the course had, or as can be afforded for every variant."""
        course, few = setting.course, setting.affordable < FEW_RUNS * setting.course.steps
        rates = len(factors(course, few))
        variants, steps = rates + TRIES * suspects, course.steps
        if variants * steps > setting.affordable:
            steps = min(steps, max(FEWEST, int(setting.affordable / variants)))
        share, seconds = rates / variants, PATIENCE * setting.seconds
        return Extent(
            steps,
            few,
            max(1.0, course.total / steps),
            seconds * share,
            seconds * (1 - share) / max(1, suspects),
        )


def factors(course: Course, few: bool) -> list[float]:
    """The learning rates to try, as multiples of the program's own."""
    ahead = max(1.0, course.total / max(1, course.steps))
    if course.plain:
        return [0.1, *[f for f in (10.0,) if f <= ahead and not few]]
    optimizer = course.curves[0].recipe.optimizer
    default = find("optimizer", optimizer.kind).fields["lr"][1] / optimizer.lr
    far = [default] if default > BEYOND or default < 1 / 100 else []
    if few:
        return [0.1, *[f for f in (10.0, 100.0, 1000.0) if f <= 100 * ahead], *far]
    return [*RATES, *far]


def try_out(setting: Setting, found: Sequence[Finding]) -> list[WhatIf]:
    """Run variants of the program: other learning rates, and the remedy of each suspicion; where
    none of these helps, what is rarely suspected.

    Where only a part of the plan was run, more of it is seen at a higher rate: k times the rate for
    n steps is about the rate itself for k n steps. What the best such member reaches is what the
    whole plan is taken to reach.
    """
    course = setting.course
    ripe = (f for f in found if f.remedies and _is_ripe(f, course))
    suspects = sorted(ripe, key=lambda f: -f.strength)[:SUSPECTS]
    extent = Extent.of(setting, len(suspects))
    rates = _Rates.tried(setting, extent)
    what_ifs = [_confirmed(setting, extent, rates, *one) for one in rates.compared(setting, extent)]
    for suspect in suspects:
        what_ifs.append(
            try_remedy(setting, suspect, extent, rates.own, rates.projected, rates.stands_for_plan)
        )
    if not extent.few and not course.plain and (course.over or _is_broken(course)):
        helped = any(one.counts(course) for one in what_ifs)
        best, suspected = max([rates.projected, *rates.skills.values()]), {f.code for f in suspects}
        longer = replace(extent, suspect_seconds=PATIENCE * setting.seconds / 4)
        for finding in [*_other_optimizer(course), *([] if helped else _unsuspected(course))]:
            if finding.code not in suspected:
                what_ifs.append(try_remedy(setting, finding, longer, rates.own, best, 1.0))
    return what_ifs


def _is_ripe(finding: Finding, course: Course) -> bool:
    """Whether an experiment can say something: what only slows the beginning is tried at a plan's
    end."""
    if is_of(finding, Kind.RATE):
        return False
    worse = finding.code == BatchTooSmall.code and not course.skill > UNMOVED
    at_once = finding.strength > HINT or finding.code == AugmentationDestructive.code
    return at_once or course.over or worse


def _is_broken(course: Course) -> bool:
    """Whether most units give no gradient, or the first layers get none, from beginning to end."""
    return bool(broken(course, course.first)) and bool(broken(course, course.seen))


# --- learning rates -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rates:
    """What one member reaches at each multiple of the learning rate."""

    skills: dict[float, float]
    own: float  # at the program's own rate
    projected: float  # what its whole plan is projected to reach
    stands_for_plan: float  # the multiple that stands for the whole plan

    @staticmethod
    def tried(setting: Setting, extent: Extent) -> _Rates:
        course, multiples = setting.course, factors(setting.course, extent.few)
        recipes = [setting.at_rate(factor) for factor in multiples]
        curves = setting.curves(recipes, extent.steps, extent.rate_seconds)
        skills = {f: curve.skill for f, curve in zip(multiples, curves, strict=True)}
        own = course.skill_at(extent.steps / course.steps)
        of_plan = [f for f in skills if 1 < f <= AHEAD * extent.ahead]
        projected = max([own, *(skills[f] for f in of_plan)])
        return _Rates(skills, own, projected, max(of_plan, key=lambda f: skills[f], default=1.0))

    def compared(self, setting: Setting, extent: Extent) -> Iterator[tuple[WhatIf, float]]:
        """The best lower and the best higher rate, each with its multiple of the program's."""
        course, lr, steps = setting.course, setting.course.recipe.optimizer.lr, extent.steps
        lower = {f: skill for f, skill in self.skills.items() if f < 1}
        higher = {f: skill for f, skill in self.skills.items() if f > AHEAD * extent.ahead}
        for kind, rates in ((LrTooHigh, lower), (LrTooLow, higher)):
            if not rates:
                continue
            factor = max(rates, key=lambda f: rates[f])
            against = self.own if kind is LrTooHigh else self.projected
            words = (
                f"with lr {lr * factor:.3g} the same {steps} steps {reach(rates[factor])}, with "
                f"lr {lr:.3g} {percent(self.own)}"
            )
            if kind is LrTooLow and extent.ahead > AHEAD:
                plan = f"{'the whole' if course.planned else 'a'} plan of {course.total} steps"
                words += f" ({plan} is projected to reach {percent(self.projected)})"
            evidence = Evidence("optimizer.lr", f"lr is {lr:.3g}", 1.0, factor)
            finding = kind.finding(evidence, course.subject)
            yield WhatIf(finding, rates[factor] - limited(against), rates[factor], words), factor


def _confirmed(
    setting: Setting, extent: Extent, rates: _Rates, what_if: WhatIf, factor: float
) -> WhatIf:
    """A rate that helps must help other seeds too, and a higher one also in a longer plan."""
    if not extent.few and what_if.counts(setting.course):
        what_if = _with_other_seeds(setting, extent, rates, what_if, factor)
    return steps_first(setting, what_if, factor) if factor > 1 else what_if


def _with_other_seeds(
    setting: Setting, extent: Extent, rates: _Rates, what_if: WhatIf, factor: float
) -> WhatIf:
    """The median gain over the seeds: one member may learn by luck."""
    others = setting.course.curves[1:]
    seeds = [curve.recipe.seed for curve in others]
    if not seeds:
        return what_if
    recipes = [
        setting.at_rate(k, {"seed": seed})
        for k in (factor, rates.stands_for_plan)
        for seed in seeds
    ]
    skills = [limited(curve.skill) for curve in setting.curves(recipes, extent.steps)]
    theirs, ours = skills[: len(seeds)], skills[len(seeds) :]
    against = ours if factor > 1 else [limited(curve.skill) for curve in others]
    gains = [what_if.gain, *(a - b for a, b in zip(theirs, against, strict=True))]
    skill = float(np.median([what_if.skill, *theirs]))
    return replace(what_if, gain=float(np.median(gains)), skill=skill)


# --- remedies -----------------------------------------------------------------------------------------


def try_remedy(
    setting: Setting, suspect: Finding, extent: Extent, own: float, against: float, factor: float
) -> WhatIf:
    """The first remedy of a suspicion, at the program's rate and at ``factor`` times it.

    ``own`` is the program's skill, ``against`` the one that the remedy must beat.
    """
    if suspect.code == AugmentationDestructive.code:
        return _without_augmentation(setting, suspect, extent)
    edits = suspect.remedies[0]["edits"]
    edited = setting.edited(edits)
    tried = [edited]
    if factor != 1 and "optimizer" not in edits:
        tried.append(edited.edit({"optimizer.lr": setting.lr * factor}))
    curves = setting.curves(tried, extent.steps, extent.suspect_seconds)
    best = max(curves, key=lambda curve: curve.skill)
    words = (
        f"with the first remedy {extent.steps} steps {reach(best.skill)}, without it {percent(own)}"
    )
    return WhatIf(suspect, gain_of(setting.course, best, against), best.skill, words)


def gain_of(course: Course, curve: Curve, against: float) -> float:
    """By how much a variant is better: by skill, each against its own loss's constant predictor,
    and where it has another loss by the metric too."""
    gain = curve.skill - limited(against)
    if curve.recipe.loss != course.recipe.loss:
        gain = min(gain, curve.metric_skill - limited(course.metric_skill))
    return gain


def _without_augmentation(setting: Setting, suspect: Finding, extent: Extent) -> WhatIf:
    """With and without augmentation, both on samples as they are; and on validation samples, for
    which augmentation is meant."""
    recipe = setting.recipe
    recipes = [recipe, recipe.edit({"data.augment": []})]
    experiment = Experiment(recipes, setting.shared, steps=extent.steps)
    experiment.advance(extent.steps, seconds=extent.suspect_seconds)
    plain, skills = experiment.groups[-1], []
    judged = [part for part in (plain.probe, plain.validation) if part is not None]
    for group in experiment.groups:
        (member,) = group.curves
        with group.objective(member) as objective:
            skills.append([plain.base.skill(group.judge(objective, part)[0]) for part in judged])
    (own, *_), (without, *_) = skills
    words = (
        f"without it {extent.steps} steps {reach(without)} on samples as they are, with it "
        f"{percent(own)}"
    )
    judged_by = [_of_part(a, b, setting.course.plain) for a, b in zip(*skills, strict=True)]
    gain, needed = min(judged_by, key=lambda one: one[0] - one[1])
    return WhatIf(suspect, gain, without, words, needed)


def learns_unaugmented(setting: Setting, found: Sequence[Finding]) -> list[WhatIf] | None:
    """Whether a run that learned nothing learns without its augmentation: the same experiment, for as
    many steps as the seconds allow. None where it cannot be made, or shows nothing."""
    suspect = next((f for f in found if f.code == AugmentationDestructive.code), None)
    steps = int(min(setting.course.steps, setting.affordable / 2))
    if suspect is None or steps < FEWEST:
        return None
    extent = Extent(steps, True, 1.0, 0.0, TIMES_EXPECTED * setting.seconds)
    try:
        with kernel_threads(sensible_threads(setting.recipe, setting.work)):
            what_if = _without_augmentation(setting, suspect, extent)
    except (InputError, RuntimeError):
        return None
    return [what_if] if what_if.counts(setting.course) else None


def _of_part(own: float, without: float, learns: bool) -> tuple[float, float]:
    """What is gained without augmentation on one part of the data, and what must be."""
    plain_needs = min(0.7 * without, TAKEN * (1 - own))
    return without - limited(own), max(0.15, plain_needs if learns else 0.5 * without)


# --- what is rarely suspected -------------------------------------------------------------------------


def _unsuspected(course: Course) -> Iterator[Finding]:
    """Other hidden activations, fresh weights; at a plan's end a wider network too."""
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
