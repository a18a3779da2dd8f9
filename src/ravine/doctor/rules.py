"""From contradictions, suspicions, experiments and symptoms to a verdict, specificity first.

A program that plainly learns is healthy, whatever looks odd in it. Three things speak against one
all the same: a contradiction, a plan that ends in mid-descent, and validation that turns while
training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ravine.doctor.findings import Diagnosis, Finding, ranked
from ravine.doctor.symptoms import (
    PLAIN,
    UNFINISHED,
    Course,
    overfits,
    symptoms,
    too_short,
    unfinished,
)

CONTRADICTION = 0.9
SUSPICION = 0.25  # under it a finding is a hint for experiments, and nothing that is said
SHOWN = 0.1  # skill that an experiment must bring over the program itself to count
SHORT = 50  # steps of a plan that say nothing by not learning
IGNORED = 0.1  # skill of the metric under which the rare classes are ignored
OF_PLANS = ("lr_too_low", "too_few_epochs", "batch_too_large")
HOLDING = (
    "over_regularised",
    "capacity_too_small",
    "augmentation_destructive",
    "optimizer_unsuited",
)  # it learns, but not far
OF_LEARNING = (*OF_PLANS, *HOLDING, "inputs_unscaled", "lr_too_high")


@dataclass(frozen=True)
class Trial:
    """A short experiment: the program with one thing changed, after as many steps on the same
    batches."""

    finding: Finding  # what it tests
    # skill over the program's own (or what the program's whole plan is projected to reach)
    gain: float
    skill: float
    words: str
    needed: float = SHOWN
    sure: bool = True  # whether nothing else gains far more


def verdict(
    static: Sequence[Finding], course: Course | None, trials: Sequence[Trial] | None = None
) -> Diagnosis:
    """The diagnosis from everything that was seen; ``trials`` is None where no experiment could be
    made."""
    contradictions = [f for f in static if f.strength >= CONTRADICTION]
    suspicions = [f for f in static if SUSPICION < f.strength < CONTRADICTION]
    if course is None:
        return (
            _sick(contradictions, suspicions, "the program contradicts itself")
            if contradictions
            else Diagnosis("uncertain", notes=list(suspicions), why="nothing was run")
        )
    contradictions += [
        _raised(f) for f in suspicions if f.code == "class_imbalance" and _ignores(course)
    ]
    shown = [_shown(trial) for trial in trials or () if shows(trial, course)]
    if contradictions:
        borne = [] if course.plain else [*suspicions, *symptoms(course)]
        return _sick(
            [*contradictions, *shown], borne, "the program or its data contradict themselves"
        )
    if course.plain:
        return _of_learning(course, suspicions, shown, trials is not None)
    if (
        not shown
        and course.over
        and course.total < SHORT
        and not any(f.strength >= 0.5 for f in suspicions)
    ):
        early = too_short(course)
        if early or course.skill > -0.5:
            why = f"the whole plan has {course.total} steps: too few to say"
            return (
                _sick([early], [], why)
                if early
                else Diagnosis("uncertain", notes=list(suspicions), why=why)
            )
    if course.over or (shown and not _improving(course)):
        why = "most seeds fail"
        if course.skill == -math.inf:
            why = "the loss or its gradient was not a number"
        elif course.skill < PLAIN:
            why = f"after {course.steps} of {course.total} steps no better than the best constant answer"
        return _sick([*shown, *[_raised(f) for f in suspicions], *symptoms(course)], [], why)
    if shown:
        return _sick(shown, [*suspicions, *symptoms(course)], "an experiment shows what is missing")
    odd = ranked([*suspicions, *symptoms(course)])
    return Diagnosis(
        "uncertain", notes=odd, why=f"{course.steps} of {course.total} steps say too little"
    )


def _ignores(course: Course) -> bool:
    """Whether the answers are no better than the most frequent class, after steps enough."""
    return course.metric_skill < IGNORED and (course.over or course.steps >= 2 * SHORT)


def _of_learning(
    course: Course, suspicions: list[Finding], shown: list[Finding], tried: bool
) -> Diagnosis:
    """What still counts where learning is plain."""
    counts: list[Finding] = []
    low = any(f.code in OF_PLANS for f in shown)
    if (
        course.over
        and unfinished(course, UNFINISHED / 2 if low else UNFINISHED)
        and (low or not tried)
    ):
        counts += [f for f in symptoms(course) if f.code in OF_PLANS]
        counts += [
            _raised(f) for f in suspicions if f.code in ("loss_output_mismatch", "inputs_unscaled")
        ]
    counts += [f for f in shown if f.code in OF_LEARNING]
    late = overfits(course)
    counts += [late] if late else []
    if counts:
        low_end = [f for f in symptoms(course) if f.code == "underfitting"] if not late else []
        rare = [_raised(f) for f in suspicions if f.code == "class_imbalance"]
        return _sick([*counts, *rare, *low_end], [], "it learns, but far from what it could")
    why = f"the loss is {1 - course.skill:.0%} of the best constant predictor's after {course.steps} of {course.total} steps"
    return Diagnosis("healthy", notes=list(suspicions), why=why)


def _sick(findings: Sequence[Finding], others: Sequence[Finding], why: str) -> Diagnosis:
    found = ranked([*findings, *others])
    if not found:
        return Diagnosis("uncertain", why=why)
    return Diagnosis("sick", found, why=why)


def shows(trial: Trial, course: Course) -> bool:
    """Whether an experiment speaks: the variant learns plainly and better; or, of what is likely
    wrong anyway, it stands at the constant predictor where the program itself is far worse.
    """
    if trial.gain >= trial.needed and trial.skill >= PLAIN:
        return True
    return trial.finding.strength >= 0.5 and course.skill < -0.5 and trial.skill > -0.1


def _improving(course: Course) -> bool:
    """Whether the loss still falls, so that more steps might decide."""
    return course.skill_at(1.0) - course.skill_at(0.5) > 0.002


def _raised(finding: Finding) -> Finding:
    """A suspicion that the run bears out."""
    return replace(
        finding,
        strength=min(0.92, finding.strength + (0.5 if finding.code == "class_imbalance" else 0.3)),
    )


def _shown(trial: Trial) -> Finding:
    strength = min(0.99, 0.9 + 0.1 * min(1.0, trial.gain)) if trial.sure else 0.85
    return replace(
        trial.finding, evidence=f"{trial.finding.evidence}; {trial.words}", strength=strength
    )
