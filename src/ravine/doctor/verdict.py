"""From contradictions, suspicions, experiments and symptoms to a verdict, specificity first.

A program that plainly learns is healthy, whatever looks odd in it. Three things speak against one
all the same: a contradiction, a plan that ends in mid-descent, and validation that gets worse while
training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ravine.doctor.declaration import Kind
from ravine.doctor.finding import SHOWN, SUSPECTED, Diagnosis, Finding
from ravine.doctor.findings.fit import BehindLinear, Underfitting
from ravine.doctor.findings.plan import TooFewEpochs
from ravine.doctor.measure.course import LITTLE, PLAIN, UNFINISHED, Course
from ravine.doctor.table import declaration, is_of, ranked, symptoms, while_learning

HINTS = 0.25  # strengths up to this are hints for experiments, and are not shown
GAIN = 0.1  # skill that an experiment must bring over the program itself to count
SHORT = 50  # steps of a plan that say nothing by not learning
FAR_WORSE = -0.5  # skill of a program that is far worse than the constant predictor
NEAR_CONSTANT = -0.1  # skill that is about the constant predictor's, where that is an improvement
IMPROVES = 0.002  # skill gained in the second half of the steps: more of them might decide
HALF = 0.5  # of what simple learners explain
LATE = 0.25  # of the skill at a plan's end, that its second half may bring where it has settled
LIKELY = 0.7  # strength of a symptom that nothing but a cause explains
SUREST = 0.92  # strength that a suspicion can gain from the course alone


@dataclass(frozen=True)
class WhatIf:
    """A short experiment: the program with one thing changed, for as many steps on the same
    batches."""

    finding: Finding  # what it tests
    gain: float  # skill over the program's own (or over what its whole plan is projected to reach)
    skill: float
    words: str
    needed: float = GAIN
    sure: bool = True  # whether nothing else gains far more
    remedy: dict[str, Any] | None = None  # what was tried, where the finding does not list it
    first_tried: bool = True  # else whether the finding's first remedy was tried

    def counts(self, course: Course) -> bool:
        """Whether it is evidence: the variant learns plainly, and better than the program.

        Or, where the finding is likely anyway, the variant reaches the constant predictor and the
        program is far worse than that.
        """
        if self.gain >= self.needed and self.skill >= PLAIN:
            return True
        likely = self.finding.strength >= SUSPECTED
        return likely and course.skill < FAR_WORSE and self.skill > NEAR_CONSTANT


@dataclass(frozen=True)
class Observations:
    """All that a verdict is made of."""

    static: Sequence[Finding]
    course: Course | None
    what_ifs: Sequence[WhatIf] | None  # None: no experiment could be made

    @property
    def seen(self) -> Course:
        assert self.course is not None
        return self.course

    @cached_property
    def contradictions(self) -> list[Finding]:
        return [f for f in self.static if f.strength >= SHOWN]

    @cached_property
    def suspicions(self) -> list[Finding]:
        return [f for f in self.static if HINTS < f.strength < SHOWN]

    @cached_property
    def shown(self) -> list[Finding]:
        """What experiments have shown."""
        return [_shown(one) for one in self.what_ifs or () if one.counts(self.seen)]

    @cached_property
    def symptoms(self) -> list[Finding]:
        return symptoms(self.seen)

    @cached_property
    def late(self) -> list[Finding]:
        """What is wrong with a course that learns: findings, and notes of what is cured already."""
        return while_learning(self.seen)

    @cached_property
    def held_back(self) -> list[Finding]:
        """What still counts where learning is plain, and what is said beside it."""
        course, found = self.seen, [f for f in self.shown if is_of(f, Kind.LEARNING)]
        too_little = any(is_of(f, Kind.PLAN) for f in self.shown)
        ends_early = course.over and course.unfinished(UNFINISHED / (2 if too_little else 1))
        if ends_early and (too_little or self.what_ifs is None):
            found += [f for f in self.symptoms if is_of(f, Kind.PLAN)]
            found += [_surer(f) for f in self.suspicions if is_of(f, Kind.SLOWS)]
        late = [f for f in self.late if f.strength >= SUSPECTED]
        found += late
        if found and not late:
            found += [f for f in self.symptoms if f.code == Underfitting.code]
        if found:
            data = [_surer(f) for f in self.suspicions if is_of(f, Kind.DATA)]
            found += [f for f in data if f.strength >= SUSPECTED]
        return found

    @cached_property
    def too_short(self) -> bool:
        """Whether the whole plan has so few steps that it says nothing by not learning."""
        likely = any(f.strength >= SUSPECTED for f in self.suspicions)
        course = self.seen
        if self.shown or likely or not course.over or course.total >= SHORT:
            return False
        return bool(self.ended_falling) or course.skill > FAR_WORSE

    @cached_property
    def ended_falling(self) -> list[Finding]:
        found = TooFewEpochs.of_short_plan(self.seen)
        return [found] if found else []

    @property
    def noisy(self) -> bool:
        """Whether it learned what simple learners do, and nothing but the loss speaks against it."""
        found = [*self.shown, *(f for f in self.suspicions if f.strength >= SUSPECTED)]
        loss_alone = all(is_of(f, Kind.LOSS_ALONE) for f in self.symptoms)
        return not found and loss_alone and (self.seen.as_far_as_simple or self.as_far_as_linear)

    @property
    def as_far_as_linear(self) -> bool:
        """Whether it has learned a good part of what simple learners do and gains no more, and
        validation samples show no less than they show of a linear model."""
        course, linear = self.seen, self.seen.linear()
        reached = BehindLinear.reached(course)
        if linear is None or reached is None or reached < linear.value:
            return False
        late = course.skill - course.skill_at(0.5)
        return late < LATE * course.skill and course.learned_of_simple(HALF)

    @property
    def improves(self) -> bool:
        return self.seen.skill_at(1.0) - self.seen.skill_at(0.5) > IMPROVES

    @property
    def failed(self) -> bool:
        """Whether the program had its chance and did not learn."""
        return self.seen.over or (bool(self.shown) and not self.improves)

    @property
    def inert(self) -> bool:
        """Whether more than the loss speaks against a program that no longer changes, or that has learned
        nothing as hardly any gradient reaches its first layers: of a module, whose layers no experiment
        can exchange."""
        if self.seen.recipe.model.kind != "module":
            return False
        worse = [f for f in self.symptoms if f.strength >= SUSPECTED]
        worse = [f for f in worse if not is_of(f, Kind.LOSS_ALONE)]
        starved = any(is_of(f, Kind.STARVED) and f.strength >= LIKELY for f in worse)
        return bool(worse) and (not self.improves or (starved and self.seen.skill < LITTLE))


@dataclass(frozen=True)
class Rule:
    """One row of the table: if the condition holds, this verdict on these findings, and why."""

    holds: Callable[[Observations], bool]
    verdict: str
    findings: Callable[[Observations], Iterable[Finding]]
    why: Callable[[Observations], str]


def _against_itself(observed: Observations) -> str:
    if all(is_of(finding, Kind.SHARES) for finding in observed.contradictions):
        return "it learns, but not the rare classes"
    return "the program or its data contradict themselves"


def _few_steps(observed: Observations) -> str:
    return f"the whole plan has {observed.seen.total} steps: too few to say"


def _how_it_failed(observed: Observations) -> str:
    course = observed.seen
    if course.skill == -math.inf:
        return "the loss or its gradient was not a number"
    if course.skill < PLAIN:
        return f"after {course.counted} no better than the best constant answer"
    return "most seeds fail"


def _how_far(observed: Observations) -> str:
    course = observed.seen
    rest = f"{1 - course.skill:.0%} of the best constant predictor's"
    return f"the loss is {rest} after {course.counted}"


# The first row that holds is the verdict. Findings of a sick program are its findings; those of the
# others are notes.
RULES = (
    Rule(
        lambda observed: observed.course is None and bool(observed.contradictions),
        "sick",
        lambda observed: [*observed.contradictions, *observed.suspicions],
        lambda observed: "the program contradicts itself",
    ),
    Rule(
        lambda observed: observed.course is None,
        "uncertain",
        lambda observed: observed.suspicions,
        lambda observed: "nothing was run",
    ),
    Rule(
        lambda observed: bool(observed.contradictions) and observed.seen.plain,
        "sick",
        lambda observed: [*observed.contradictions, *observed.shown],
        _against_itself,
    ),
    Rule(
        lambda observed: bool(observed.contradictions),
        "sick",
        lambda observed: [
            *observed.contradictions,
            *observed.shown,
            *observed.suspicions,
            *observed.symptoms,
        ],
        lambda observed: "the program or its data contradict themselves",
    ),
    Rule(
        lambda observed: observed.seen.plain and bool(observed.held_back),
        "sick",
        lambda observed: observed.held_back,
        lambda observed: "it learns, but far from what it could",
    ),
    Rule(
        lambda observed: observed.seen.plain,
        "healthy",
        lambda observed: [*observed.suspicions, *observed.late],
        _how_far,
    ),
    Rule(
        lambda observed: observed.noisy,
        "healthy",
        lambda observed: [*observed.suspicions, *observed.symptoms],
        lambda observed: (
            f"{_how_far(observed)}, as far as simple learners get: the rest may be noise"
        ),
    ),
    Rule(
        lambda observed: observed.too_short and bool(observed.ended_falling),
        "sick",
        lambda observed: observed.ended_falling,
        lambda observed: (
            f"the whole plan has {observed.seen.total} steps, and the loss still falls at its end"
        ),
    ),
    Rule(
        lambda observed: observed.too_short,
        "uncertain",
        lambda observed: observed.suspicions,
        _few_steps,
    ),
    Rule(
        lambda observed: observed.failed,
        "sick",
        lambda observed: [*observed.shown, *map(_surer, observed.suspicions), *observed.symptoms],
        _how_it_failed,
    ),
    Rule(
        lambda observed: bool(observed.shown),
        "sick",
        lambda observed: [*observed.shown, *observed.suspicions, *observed.symptoms],
        lambda observed: "an experiment shows what is missing",
    ),
    Rule(
        lambda observed: observed.inert,
        "sick",
        lambda observed: [*map(_surer, observed.suspicions), *observed.symptoms],
        _how_it_failed,
    ),
    Rule(
        lambda observed: True,
        "uncertain",
        lambda observed: ranked([*observed.suspicions, *observed.symptoms]),
        lambda observed: f"{observed.seen.counted} say too little",
    ),
)


def verdict(
    static: Sequence[Finding], course: Course | None, what_ifs: Sequence[WhatIf] | None = None
) -> Diagnosis:
    """The diagnosis from everything that was seen; ``what_ifs`` is None where no experiment could
    be made."""
    observed = Observations(static, course, what_ifs)
    rule = next(rule for rule in RULES if rule.holds(observed))
    found, why = list(rule.findings(observed)), rule.why(observed)
    if rule.verdict != "sick":
        return Diagnosis(rule.verdict, notes=found, why=why)
    findings = ranked(found)
    return Diagnosis("sick" if findings else "uncertain", findings, why=why)


def _surer(finding: Finding) -> Finding:
    """A suspicion that the course confirms."""
    kind = declaration(finding.code)
    strength = min(SUREST, finding.strength + kind.surer_by)
    remedies = finding.remedies
    if kind.certain and strength >= SHOWN and remedies:
        remedies = ({**remedies[0], "certain": True}, *remedies[1:])
    return replace(finding, strength=strength, remedies=remedies)


def _shown(what_if: WhatIf) -> Finding:
    strength = min(0.99, SHOWN + 0.1 * min(1.0, what_if.gain)) if what_if.sure else 0.85
    finding = what_if.finding
    evidence = f"{finding.evidence}; {what_if.words}"
    remedies = list(finding.remedies)
    if what_if.remedy is not None:
        listed = [remedy["edits"] for remedy in remedies]
        if what_if.remedy["edits"] not in listed:
            remedies.append(what_if.remedy)
            listed.append(what_if.remedy["edits"])
        place = listed.index(what_if.remedy["edits"])
        remedies[place] = {**remedies[place], "tried": what_if.words}
    elif what_if.first_tried and remedies:
        remedies[0] = {**remedies[0], "tried": what_if.words}
    return replace(finding, evidence=evidence, strength=strength, remedies=tuple(remedies))
