"""From contradictions, suspicions, experiments and symptoms to a verdict, specificity first.

A program that plainly learns is healthy, whatever looks odd in it. Three things speak against one all the same: a
contradiction, a plan that ends in mid-descent, and validation that turns while training goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ravine.doctor.findings import Diagnosis, Finding, ranked
from ravine.doctor.symptoms import PLAIN, UNFINISHED, Course, overfits, symptoms, unfinished

CONTRADICTION = 0.9
SHOWN = 0.1  # skill that an experiment must bring over the program itself to count


@dataclass(frozen=True)
class Trial:
    """A short experiment: the program with one thing changed, after as many steps on the same batches."""

    finding: Finding  # what it tests
    gain: float  # skill over the program's own (or what the program's whole plan is projected to reach)
    skill: float
    words: str
    needed: float = SHOWN


def verdict(static: Sequence[Finding], course: Course | None, trials: Sequence[Trial] | None = None) -> Diagnosis:
    """The diagnosis from everything that was seen; ``trials`` is None where no experiment could be made."""
    contradictions = [f for f in static if f.strength >= CONTRADICTION]
    suspicions = [f for f in static if f.strength < CONTRADICTION]
    if course is None:
        return (
            _sick(contradictions, suspicions, "the program contradicts itself")
            if contradictions
            else Diagnosis("uncertain", notes=list(suspicions), why="nothing was run")
        )
    shown = [_shown(trial) for trial in trials or () if _shows(trial, course)]
    if contradictions:
        borne = [] if course.plain else [*suspicions, *symptoms(course)]
        return _sick([*contradictions, *shown], borne, "the program contradicts itself")
    if course.plain:
        return _of_learning(course, suspicions, shown, trials is not None)
    if course.over or (shown and not _improving(course)):
        why = "most seeds fail"
        if course.skill < PLAIN:
            why = f"after {course.steps} of {course.total} steps no better than the best constant answer"
        return _sick([*shown, *[_raised(f) for f in suspicions], *symptoms(course)], [], why)
    if shown:
        return _sick(shown, [*suspicions, *symptoms(course)], "an experiment shows what is missing")
    return Diagnosis("uncertain", notes=list(suspicions), why=f"{course.steps} of {course.total} steps say too little")


def _of_learning(course: Course, suspicions: list[Finding], shown: list[Finding], tried: bool) -> Diagnosis:
    """What still counts where learning is plain."""
    counts: list[Finding] = []
    low = any(f.code == "lr_too_low" for f in shown)
    if course.over and unfinished(course, UNFINISHED / 2 if low else UNFINISHED) and (low or not tried):
        counts += [f for f in symptoms(course) if f.code in ("lr_too_low", "too_few_epochs", "batch_too_large")]
        counts += [_raised(f) for f in suspicions if f.code in ("loss_output_mismatch", "inputs_unscaled")]
    counts += [f for f in shown if f.code in ("inputs_unscaled", "lr_too_low", "lr_too_high", "over_regularised")]
    late = overfits(course)
    counts += [late] if late else []
    if counts:
        return _sick(counts, [], "it learns, but far from what it could")
    why = f"the loss is {1 - course.skill:.0%} of the best constant predictor's after {course.steps} of {course.total} steps"
    return Diagnosis("healthy", notes=list(suspicions), why=why)


def _sick(findings: Sequence[Finding], others: Sequence[Finding], why: str) -> Diagnosis:
    found = ranked([*findings, *others])
    if not found:
        return Diagnosis("uncertain", why=why)
    return Diagnosis("sick", found, why=why)


def _shows(trial: Trial, course: Course) -> bool:
    """Whether an experiment speaks: the variant learns plainly and better; or, of what is likely wrong anyway, it stands at
    the constant predictor where the program itself is far worse.
    """
    if trial.gain >= trial.needed and trial.skill >= PLAIN:
        return True
    return trial.finding.strength >= 0.5 and course.skill < -0.5 and trial.skill > -0.1


def _improving(course: Course) -> bool:
    """Whether the loss still falls, so that more steps might decide."""
    return course.skill_at(1.0) - course.skill_at(0.5) > 0.002


def _raised(finding: Finding) -> Finding:
    """A suspicion that the run bears out."""
    return replace(finding, strength=min(0.92, finding.strength + 0.3))


def _shown(trial: Trial) -> Finding:
    strength = min(0.99, 0.9 + 0.1 * min(1.0, trial.gain))
    return replace(trial.finding, evidence=f"{trial.finding.evidence}; {trial.words}", strength=strength)
