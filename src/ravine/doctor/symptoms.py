"""What the course of a training shows, in numbers without a scale: skill against the constant
predictor, progress against its own past, steadiness, units that died or saturated, gradients by
depth. Several seeds decide together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ravine.doctor.experiment import Curve
from ravine.doctor.findings import Finding
from ravine.doctor.probes import Seen
from ravine.doctor.remedies import Case, remedies
from ravine.nn.traits import Trait
from ravine.recipe import Recipe

PLAIN = 0.1  # skill from which learning is plain
UNFINISHED = (
    0.06  # skill that the second half of the plan still brought, half of it in the last quarter
)
FAR = 0.9  # skill from which nothing is said of a plan's end
MANY = 0.5  # of the seeds
SMOOTH = 0.85  # of the stretches in which a loss falls that does not swing
LOW = 0.5  # skill under which the loss is still high at a plan's end


@dataclass
class Course:
    """Members that differ by their seeds alone, as they went; and, looked at only when asked for,
    what a probe sees in them."""

    case: Case
    curves: list[Curve]
    look_last: Callable[[], list[Seen]] = list
    look_first: Callable[[], list[Seen]] = list  # before the first step
    run: Recipe | None = None  # what was run, where that is the recipe on smaller batches

    @cached_property
    def seen(self) -> list[Seen]:
        return self.look_last()

    @cached_property
    def first(self) -> list[Seen]:
        return self.look_first()

    @property
    def steps(self) -> int:
        return max(curve.seen for curve in self.curves)

    @property
    def total(self) -> int:
        return self.curves[0].total

    @property
    def over(self) -> bool:
        """Whether the whole plan was seen."""
        return self.steps >= self.total or all(not curve.finite for curve in self.curves)

    @property
    def skill(self) -> float:
        return float(np.median([curve.skill for curve in self.curves]))

    @property
    def metric_skill(self) -> float:
        return float(np.median([curve.metric_skill for curve in self.curves]))

    def skill_at(self, part: float) -> float:
        """Median skill at that part of the steps seen."""
        values = []
        for curve in self.curves:
            places = np.asarray(curve.at) / max(1, curve.at[-1])
            values.append(
                float(np.interp(part, places, np.nan_to_num(curve.skills(), nan=-9.0, neginf=-9.0)))
            )
        return float(np.median(values))

    @property
    def plain(self) -> bool:
        """Whether most members plainly beat the constant predictor and their own past."""
        return sum(learned(curve) for curve in self.curves) > MANY * len(self.curves)


def learned(curve: Curve) -> bool:
    """Above the constant predictor by a tenth of its loss, and above its own beginning, and not
    falling back far."""
    if not curve.finite or not curve.loss:
        return False
    skills = curve.skills()
    end = float(np.mean(skills[-2:])) if len(skills) > 3 else skills[-1]
    return (
        end >= PLAIN and (end >= skills[0] + 0.02 or skills[0] >= 0.5) and end >= max(skills) - 0.5
    )


def symptoms(course: Course) -> list[Finding]:
    """Every symptom that most seeds show. They count only where learning is not plain; ``rules``
    decides."""
    checks = (_lost, _rate, _steady, _units, _depth, _flat)
    return [finding for check in checks for finding in check(course)]


def _found(
    course: Course, code: str, where: str, evidence: str, strength: float, **more: object
) -> Finding:
    return Finding(code, where, evidence, remedies(code, course.case, **more), strength=strength)


def _seeds(course: Course, count: int) -> str:
    n = len(course.curves)
    return "" if n == 1 else f" ({count} of {n} seeds)"


def _lost(course: Course) -> Iterator[Finding]:
    lost = [curve for curve in course.curves if not curve.finite]
    if len(lost) <= MANY * len(course.curves):
        return
    bad = [_bad(c) for c in lost]
    first = min(int(b.argmax()) if b.any() else c.seen for b, c in zip(bad, lost, strict=True))
    back = all(b.any() and not b[-1] for b in bad)
    when = (
        f"at {max(b.sum() for b in bad)} of {course.steps} steps, the first of them {first}"
        if back
        else f"from step {first} on"
    )
    text = f"the loss or its gradient is not a number {when}{_seeds(course, len(lost))}"
    yield _found(course, "non_finite", "loss", text, 0.9)
    grown = [
        float(
            c.norms[: first + 1][np.isfinite(c.norms[: first + 1])].max() / max(c.norms[0], 1e-12)
        )
        for c in lost
        if len(c.norms) and np.isfinite(c.norms[: first + 1]).any()
    ]
    if grown and np.median(grown) > 10:
        yield _found(
            course,
            "exploding_gradient",
            "gradient",
            f"before it the gradient grew {np.median(grown):.2g}-fold",
            0.7,
        )


def _bad(curve: Curve) -> np.ndarray:
    """The steps whose loss is not a number; whose gradient, where all losses are (of runs, only its
    mean over epochs is known)."""
    bad = ~np.isfinite(curve.losses)
    return bad if bad.any() else ~np.isfinite(curve.norms)


def blocks(values: np.ndarray, count: int = 20) -> np.ndarray:
    """Means of ``count`` equal parts of a series."""
    values = values[np.isfinite(values)]
    return (
        np.array([part.mean() for part in np.array_split(values, min(count, len(values)))])
        if len(values)
        else np.zeros(0)
    )


def _rate(course: Course) -> Iterator[Finding]:
    """Loss that rises, or falls so steadily and slowly that the plan ends on the way."""
    finite = [curve for curve in course.curves if curve.finite and len(curve.loss) > 2]
    if not finite:
        return
    rises = [max(c.skills()) - c.skill for c in finite]
    spikes = [
        float(np.nanmax(c.losses[1:]) / max(np.nanmedian(c.losses), 1e-12)) if c.seen > 2 else 0.0
        for c in finite
    ]
    if np.median(rises) > 0.3 and np.median([c.skills()[0] - c.skill for c in finite]) > 0.1:
        height = np.median([c.loss[-1] / max(min(c.loss), 1e-12) for c in finite])
        text = (
            f"the loss ends {height:.3g} times as high as its lowest value; "
            f"the largest batch loss is {np.median(spikes):.2g} times the middle one"
        )
        yield _found(course, "lr_too_high", "optimizer.lr", text, 0.75)
    if unfinished(course):
        gain = course.skill_at(1.0) - course.skill_at(0.5)
        text = (
            f"the second half of the {course.total} steps still took the loss "
            f"from {_loss_at(course, 0.5):.3g} to {_loss_at(course, 1.0):.3g} "
            f"({gain:.0%} of what the best constant answer leaves), falling in {_falling(course):.0%} of its stretches"
        )
        yield _found(course, "lr_too_low", "optimizer.lr", text, 0.65)
        yield _found(course, "too_few_epochs", "stop.after", text, 0.62)
        batch, steps = course.case.recipe.data.batch, course.total
        if steps < 400 and (batch == "full" or batch >= 256):
            yield _found(
                course,
                "batch_too_large",
                "data.batch",
                f"batches of {batch} leave {steps} steps in the whole plan",
                0.55,
            )


def unfinished(course: Course, gain: float = UNFINISHED) -> bool:
    """Whether the plan ends in the middle of a steady descent."""
    finite = [curve for curve in course.curves if curve.finite]
    if not course.over or not finite or len(finite[0].loss) < 3:
        return False
    if np.median([max(curve.loss) / max(curve.loss[0], 1e-12) for curve in finite]) > 2:
        return False  # it comes back from a loss that had blown up: not a descent
    if _settled(finite, gain / 2):
        return False
    late, latest = (
        course.skill_at(1.0) - course.skill_at(0.5),
        course.skill_at(1.0) - course.skill_at(0.75),
    )
    return late >= gain and latest >= gain / 3 and course.skill < FAR and _falling(course) >= 0.5


def _settled(curves: list[Curve], gain: float) -> bool:
    """Whether validation, where it was followed, has gained nothing more in the second half."""
    late = [
        c.base.skill(c.val_loss[-1]) - c.base.skill(c.val_loss[len(c.val_loss) // 2])
        for c in curves
        if len(c.val_loss) >= 5
    ]
    return bool(late) and float(np.median(late)) < gain


def _falling(course: Course) -> float:
    """The share of the stretches of the second half in which the measured loss fell."""
    shares = []
    for curve in course.curves:
        if curve.finite and len(curve.loss) > 3:
            late = np.asarray(curve.loss)[len(curve.loss) // 2 :]
            shares.append(float((np.diff(late) < 0).mean()))
    return float(np.median(shares)) if shares else 0.0


def _loss_at(course: Course, part: float) -> float:
    found = [
        float(np.interp(part, np.asarray(c.at) / max(1, c.at[-1]), c.loss))
        for c in course.curves
        if c.finite
    ]
    return float(np.median(found))


def _steady(course: Course) -> Iterator[Finding]:
    swings = []
    for curve in course.curves:
        means = blocks(curve.losses[curve.seen // 3 :])
        if len(means) > 8 and curve.finite:
            steps = np.diff(means)
            turns = float((np.sign(steps[1:]) != np.sign(steps[:-1])).mean())
            swings.append((turns, float(np.abs(steps).mean() / curve.base.reference)))
    if not swings or _smooth(course):
        return
    turns, size = (float(np.median(column)) for column in zip(*swings, strict=True))
    if turns > 0.5 and size > 0.15:
        text = (
            f"from one twentieth of the run to the next the loss moves by {size:.0%} of the constant predictor's, "
            f"and turns in {turns:.0%} of the cases"
        )
        yield _found(course, "oscillating", "loss", text, 0.6)


def _smooth(course: Course) -> bool:
    """Whether the measured losses fall nearly all the way from where they began: what swings then
    is the noise of the batches."""
    curves = [curve for curve in course.curves if curve.finite and len(curve.loss) > 4]
    falls = [
        float((np.diff(c.loss) < 0).mean()) > SMOOTH and max(c.loss) <= 1.05 * c.loss[0]
        for c in curves
    ]
    return bool(falls) and sum(falls) > MANY * len(falls)


def _units(course: Course) -> Iterator[Finding]:
    """Layers whose units are dead or saturated at the end, in most seeds."""
    yield from units(course, course.seen)


def units(course: Course, seens: list[Seen]) -> Iterator[Finding]:
    """Layers whose units are dead or saturated in most of these probes."""
    if not seens:
        return
    names = [layer.name for layer in seens[0].layers]
    dead, saturated = Trait.RECTIFIES, Trait.SATURATES
    for code, trait, measure, limit, words in (
        ("dead_units", dead, "zero_units", 0.5, "units gave zero on all probe samples"),
        ("saturated_units", saturated, "flat", 0.8, "outputs lay at the flat ends"),
    ):
        worst, where, kind = 0.0, "", ""
        for i, name in enumerate(names):
            layers = [seen.layers[i] for seen in seens if i < len(seen.layers)]
            if trait not in layers[0].traits or (
                code == "saturated_units" and layers[0] in seens[0].head()
            ):
                continue
            middle = float(np.median([getattr(layer, measure) for layer in layers]))
            if middle > worst:
                worst, where, kind = middle, name, layers[0].kind
        if worst >= limit:
            when = (
                f"after {course.steps} steps" if seens is course.seen else "before the first step"
            )
            text = f"{worst:.0%} of the {kind} {words} of layer {where} {when}"
            yield _found(course, code, f"layer {where}", text, 0.85 if worst > 0.95 else 0.65)


def broken(course: Course, seens: list[Seen]) -> Finding | None:
    """A layer nearly all of whose units are dead or saturated, or first layers without a gradient,
    in most of these probes."""
    found = [finding for finding in units(course, seens) if finding.strength > 0.8]
    if not found and seens is course.seen:
        found = [finding for finding in _depth(course) if finding.code == "vanishing_gradient"]
    return found[0] if found else None


def _depth(course: Course) -> Iterator[Finding]:
    """Gradients by depth, each against the size of its weights."""
    for code, seens in (("vanishing_gradient", course.seen), ("exploding_gradient", course.first)):
        ratios, norms = [], []
        for seen in seens:
            weighted = [layer for layer in seen.weighted if layer.kind != "Embedding"]
            if len(weighted) > 1:
                ratios.append(_relative(weighted[0]) / max(_relative(weighted[-1]), 1e-30))
                norms.append(seen.norm)
        if not ratios:
            continue
        ratio = float(np.median(ratios))
        if code == "vanishing_gradient" and (ratio < 1e-3 or float(np.median(norms)) < 1e-7):
            text = (
                f"the first layer's gradient is {ratio:.1g} of the last one's, each by the size of its weights "
                f"(norm of the whole {np.median(norms):.2g})"
            )
            yield _found(course, code, "first layers", text, 0.75)
        if code == "exploding_gradient" and (ratio > 1e4 or float(np.median(norms)) > 1e4):
            norm = float(np.median(norms))
            text, where = f"at the start the whole gradient has a norm of {norm:.2g}", "gradient"
            if ratio > 1e4:
                text = f"at the start the first layer's gradient is {ratio:.2g} times the last one's (norm of the whole {norm:.2g})"
                where = "first layers"
            yield _found(course, code, where, text, 0.9 if max(ratio, norm) > 1e5 else 0.7)


def _relative(layer: Any) -> float:
    return layer.gradient / max(layer.weight, 1e-12)


def _flat(course: Course) -> Iterator[Finding]:
    """A loss that stands at the constant predictor's, or is still high when the plan ends."""
    skill = course.skill
    if -0.05 < skill < PLAIN or (skill < PLAIN and abs(skill - course.skill_at(0.0)) < 0.02):
        text = f"after {course.steps} steps the loss is {1 - skill:.1%} of the best constant predictor's"
        if skill <= -0.05:
            text = f"the loss began at {_loss_at(course, 0.0):.4g} and is {_loss_at(course, 1.0):.4g} after {course.steps} steps"
        yield _found(course, "stuck", "loss", text, 0.55)
    if (skill <= -0.05 or (skill < LOW and course.over)) and math.isfinite(skill):
        curve = sorted(course.curves, key=lambda c: c.skill)[len(course.curves) // 2]
        text = f"after {course.steps} steps the loss is {curve.loss[-1]:.4g}; the best constant predictor has {curve.base.loss:.4g}"
        yield _found(course, "underfitting", "loss", text, 0.55)


def too_short(course: Course) -> Finding | None:
    """A plan of a few steps in which the loss only fell."""
    gain = course.skill_at(1.0) - course.skill_at(0.0)
    if gain < 0.01 or _falling(course) < 0.5 or any(not curve.finite for curve in course.curves):
        return None
    text = (
        f"the whole plan has {course.total} steps; in them the loss fell from {_loss_at(course, 0.0):.4g} "
        f"to {_loss_at(course, 1.0):.4g}"
    )
    return _found(course, "too_few_epochs", "stop.after", text, 0.62)


def overfits(course: Course) -> Finding | None:
    """Validation loss that turned and got worse while training got better.

    Where it ends worse than the constant predictor a small turn is enough.
    """
    found = []
    for curve in course.curves:
        if len(curve.val_loss) < 5 or not curve.finite:
            return None
        skills = [curve.base.skill(value) for value in curve.val_loss]
        best = int(np.argmax(skills))
        after = skills[best] - skills[-1]
        gap = curve.skill - skills[-1]
        turned = after > 0.15 or (after > 0.05 and skills[-1] < 0 and gap > 0.5)
        found.append((after, gap, best, turned and gap > 0.3))
    if sum(late for *_, late in found) <= MANY * len(found):
        return None
    after, gap, best, _ = sorted(found)[len(found) // 2]
    curve = course.curves[0]
    text = (
        f"validation loss was best after {best / max(1, len(curve.val_loss) - 1):.0%} of the run "
        f"and has lost {after:.0%} of the constant "
        f"predictor's since; training is ahead of it by {gap:.0%}"
    )
    return _found(course, "overfitting", "validation loss", text, 0.9)
