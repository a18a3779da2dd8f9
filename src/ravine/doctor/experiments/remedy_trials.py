"""Remedies of findings, each tried for the steps that the program itself was seen: what does not help
is not advised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ravine.doctor.experiments.variants import LONGEST, PATIENCE, Setting, limited, percent, reach
from ravine.doctor.experiments.whatif import gain_of
from ravine.doctor.finding import Finding
from ravine.doctor.measure.course import PLAIN
from ravine.doctor.measure.curve import Curve
from ravine.doctor.verdict import FAR_WORSE, NEAR_CONSTANT
from ravine.errors import InputError

FINDINGS, EACH = 4, 2  # how many of the first findings, and of the remedies of each, are tried
LEAST, PART = 0.03, 0.1  # skill that a remedy must bring at least; part of the loss that is left


def with_tried_remedies(setting: Setting, findings: Sequence[Finding]) -> list[Finding]:
    """The findings, those of their remedies marked that were tried and helped."""
    open_remedies: dict[str, dict[str, Any]] = {}
    for finding in findings[:FINDINGS]:
        for remedy in finding.remedies[:EACH]:
            if "tried" not in remedy:
                open_remedies.setdefault(setting.edited(remedy["edits"]).hash, remedy["edits"])
    affordable = int(setting.affordable / max(1, setting.course.steps)) if setting.work else None
    chosen = dict(list(open_remedies.items())[:affordable])
    outcomes = _outcomes(setting, chosen)

    def marked(remedy: dict[str, Any]) -> dict[str, Any]:
        words = outcomes.get(setting.edited(remedy["edits"]).hash)
        return {**remedy, "tried": words} if words and "tried" not in remedy else remedy

    return [replace(f, remedies=tuple(marked(r) for r in f.remedies)) for f in findings]


def _outcomes(setting: Setting, wanted: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What the remedies that help have reached, in words, by the hash of their recipes."""
    found, course = {}, setting.course
    by_steps: dict[int, list[str]] = {}
    for key, edits in wanted.items():
        steps = course.steps
        if "stop.after" in edits:
            steps = min(setting.shared.steps(setting.edited(edits)), max(LONGEST, steps))
        by_steps.setdefault(steps, []).append(key)
    for steps, keys in by_steps.items():
        for key, curve in _curves(setting, wanted, keys, steps):
            own = course.skill
            enough = max(LEAST, PART * (1 - limited(own)))
            gains = gain_of(course, curve, own) >= enough and curve.skill >= PLAIN
            if gains or (own < FAR_WORSE and curve.skill > NEAR_CONSTANT):
                found[key] = f"{steps} steps {reach(curve.skill)}, without it {percent(own)}"
    return found


def _curves(
    setting: Setting, wanted: dict[str, dict[str, Any]], keys: Sequence[str], steps: int
) -> Iterator[tuple[str, Curve]]:
    """The curves of remedies; those that cannot be run on these data are left out."""
    recipes, seconds = [setting.edited(wanted[key]) for key in keys], PATIENCE * setting.seconds
    try:
        yield from zip(keys, setting.curves(recipes, steps, seconds), strict=True)
    except (InputError, RuntimeError):
        if len(keys) > 1:
            for key in keys:
                yield from _curves(setting, wanted, [key], steps)
