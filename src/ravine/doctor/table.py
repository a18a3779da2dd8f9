"""All findings that are declared, by code: looked for, ranked, and made plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ravine.doctor.declaration import Declaration, Kind
from ravine.doctor.edits import Case
from ravine.doctor.finding import SHOWN, SUSPECTED, Diagnosis, Finding
from ravine.doctor.findings import (
    behaviour,
    columns,
    direction,
    fit,
    initial,
    labels,
    outputs,
    plan,
    rates,
    records,
    samples,
    scales,
    splits,
    units,
    wiring,
)
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.untrained import Untrained
from ravine.errors import unknown

RATE_ALONE = {"optimizer.lr"}
FAMILIES = (
    labels,
    records,
    columns,
    direction,
    outputs,
    wiring,
    scales,
    initial,
    samples,
    splits,
    rates,
    units,
    plan,
    fit,
    behaviour,
)


def declarations() -> list[type[Declaration]]:
    """Every declaration, causes before their consequences."""
    return sorted(Declaration.registered.values(), key=lambda kind: (kind.rank, kind.code))


def codes() -> list[str]:
    """Every code, in the same order."""
    return [kind.code for kind in declarations()]


def declaration(code: str) -> type[Declaration]:
    """The declaration of a code.

    Raises:
        InputError: no finding has this code.

    >>> declaration("lr_too_high").opposite
    'lr_too_low'
    """
    if code not in Declaration.registered:
        raise unknown("finding", code, Declaration.registered)
    return Declaration.registered[code]


def is_of(finding: Finding, *kinds: Kind) -> bool:
    """Whether a finding is of one of these kinds."""
    return bool(declaration(finding.code).kinds & set(kinds))


def remedies(code: str, case: Case, factor: float | None = None) -> tuple[dict[str, Any], ...]:
    """Remedies of a finding: ``{"edits": {path: value}, "why": sentence}``."""
    return declaration(code).remedies_for(case, factor)


# --- looking for them -----------------------------------------------------------------------------


def before_training(program: Untrained) -> list[Finding]:
    """Every finding on a program before its first step: contradictions and suspicions."""
    kinds = declarations() if program.seen is not None else [outputs.WrongOutputUnits]
    return [kind.finding(seen, program.case) for kind in kinds for seen in kind.before(program)]


def given_course(program: Untrained, course: Course) -> list[Finding]:
    """What is found in the program once it is known how its training goes."""
    return [
        kind.finding(seen, program.case)
        for kind in declarations()
        for seen in kind.given_course(program, course)
    ]


def symptoms(course: Course) -> list[Finding]:
    """Every finding on the course that most seeds show; ``verdict`` decides whether they count."""
    kinds = declarations()
    return [kind.finding(seen, course.case) for kind in kinds for seen in kind.during(course)]


def while_learning(course: Course) -> list[Finding]:
    """What is wrong with the course of a program that plainly learns."""
    return [
        kind.finding(seen, course.case)
        for kind in declarations()
        for seen in kind.while_learning(course)
    ]


# --- ranking ----------------------------------------------------------------------------------------


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Surest first, causes above their consequences; one finding for each code.

    Consequences are also named under their cause.

    >>> [f.code for f in ranked([Finding("stuck", "loss", "…"), Finding("lr_too_low", "optimizer.lr", "…")])]
    ['lr_too_low', 'stuck']
    """
    best: dict[str, Finding] = {}
    for finding in findings:
        held = best.get(finding.code)
        if held is None or finding.strength > held.strength:
            best[finding.code] = finding
    for code in list(best):
        other = best.get(declaration(code).opposite)
        if code in best and other is not None:
            weaker = min(best[code], other, key=lambda f: (f.strength, declaration(f.code).rank))
            del best[weaker.code]
    tiers = {code: _tier(finding.strength) for code, finding in best.items()}
    for sign in [code for code, finding in best.items() if is_of(finding, Kind.SIGN)]:
        causes = [tiers[code] for code in best if sign in declaration(code).consequences]
        if max(causes, default=0) > 0:
            tiers[sign] = min(tiers[sign], max(causes))
    order = sorted(best.values(), key=lambda f: (-tiers[f.code], declaration(f.code).rank))
    return [_with_consequences(f, order[i + 1 :]) for i, f in enumerate(order)]


def _tier(strength: float) -> int:
    return 2 if strength >= SHOWN else 1 if strength >= SUSPECTED else 0


def _with_consequences(finding: Finding, others: list[Finding]) -> Finding:
    leads_to = declaration(finding.code).consequences
    follow = tuple(f"{f.code}: {f.evidence}" for f in others if f.code in leads_to)
    if not follow:
        return finding
    return Finding(**{**vars(finding), "consequences": (*finding.consequences, *follow)})


# --- plain data ---------------------------------------------------------------------------------------


def as_tables(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Ranked findings as plain data, with the remedies that were tried and helped or are certain.

    Below a finding on the learning rate no other advises a rate.

    >>> lr = {"edits": {"optimizer.lr": 1.0}, "why": "lr 1, × 10", "tried": "100 steps reach 50 %"}
    >>> two = [Finding("lr_too_low", "lr", "1", (lr,)), Finding("stuck", "loss", "2", (lr,))]
    >>> [len(f["remedies"]) for f in as_tables(two)]
    [1, 0]
    """
    made, rate_found = [], False
    for finding in findings:
        advised = [r for r in finding.advised if not rate_found or set(r["edits"]) != RATE_ALONE]
        data = finding.to_dict() | {"remedies": advised}
        made.append(data)
        rate_found = rate_found or is_of(finding, Kind.RATE)
    return made


def diagnosis_table(diagnosis: Diagnosis) -> dict[str, Any]:
    """What ``ravine doctor --json`` prints."""
    return {
        "verdict": diagnosis.verdict,
        "why": diagnosis.why,
        "findings": as_tables(diagnosis.findings),
        "notes": [note.to_dict() for note in diagnosis.notes],
        "seconds": diagnosis.seconds,
        "measured": diagnosis.measured,
    }
