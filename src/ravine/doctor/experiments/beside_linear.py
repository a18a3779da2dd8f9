"""What holds back a network that a linear model beats: its remedies, each trained for the plan's steps
and judged on validation samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ravine.doctor.experiments.variants import PATIENCE, Setting
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import BehindLinear
from ravine.errors import InputError

MOST = 4  # remedies
CLOSES = 0.4  # of the linear model's lead, which a remedy must make up


def with_what_closes_the_gap(setting: Setting, findings: Sequence[Finding]) -> list[Finding]:
    """The findings; of ``behind_linear`` the remedies that make up for much of the lead are marked as
    tried, the best first."""
    if all(finding.code != BehindLinear.code for finding in findings):
        return list(findings)
    linear, own = setting.course.linear(), BehindLinear.reached(setting.course)
    assert linear is not None
    assert own is not None
    wanted = own + CLOSES * (linear.value - own)
    return [
        _tried(setting, one, own, wanted) if one.code == BehindLinear.code else one
        for one in findings
    ]


def _tried(setting: Setting, finding: Finding, own: float, wanted: float) -> Finding:
    """The finding with what its remedies reach: those that help, the best first, then the linear model;
    where none helps, what was tried, and what was not."""
    remedies = finding.remedies
    helped: list[tuple[float, dict[str, Any]]] = []
    rest = [remedy for remedy in remedies if "tried" in remedy]
    vain: list[str] = []
    untried: list[str] = []
    spent = 0.0
    for remedy in [remedy for remedy in remedies if "tried" not in remedy]:
        recipe = setting.edited(remedy["edits"])
        steps = setting.shared.steps(recipe)
        spent += max(setting.expected(steps), 1e-3 * steps)
        if len(helped) + len(rest) > MOST or spent > setting.seconds:
            untried.append(remedy["why"])
            continue
        try:
            curves = setting.curves([recipe], steps, PATIENCE * setting.seconds, validation=True)
        except (InputError, RuntimeError):
            continue
        reached = float(np.median([c.val_metric[-1] for c in curves if c.val_metric] or [-np.inf]))
        if reached >= wanted:
            words = f"{steps} steps reach {reached:.3f} in validation, without it {own:.3f}"
            helped.append((reached, {**remedy, "tried": words}))
        else:
            vain.append(remedy["why"])
    said = finding.evidence
    if not helped:
        said += f". Tried in vain: {'; '.join(vain)}" if vain else ""
        said += f". Not tried, as it takes longer: {'; '.join(untried)}" if untried else ""
    best = [remedy for _, remedy in sorted(helped, key=lambda one: -one[0])]
    return replace(finding, remedies=(*best, *rest), evidence=said)
