"""Findings about units and gradients: what dies, saturates, vanishes or explodes in the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Remedies, hidden_activation
from ravine.doctor.measure.course import MAJORITY, Course, first_bad
from ravine.doctor.measure.probes import Layer, Seen
from ravine.doctor.remedies import clipped_gradients, fresh_start, larger_gradients, lower_rate
from ravine.nn.analysis.traits import Trait

NEARLY_ALL = 0.95  # of the units, from which the finding is surer


def _worst(
    seens: Sequence[Seen], share: Callable[[Layer], float], counts: Callable[[Layer, Seen], bool]
) -> tuple[float, Layer | None]:
    """The largest share of any layer that counts, the median over the probes, and that layer."""
    worst, found = 0.0, None
    for i, first in enumerate(seens[0].layers if seens else ()):
        if not counts(first, seens[0]):
            continue
        middle = float(np.median([share(seen.layers[i]) for seen in seens if i < len(seen.layers)]))
        if middle > worst:
            worst, found = middle, first
    return worst, found


def _when(course: Course, seens: Sequence[Seen]) -> str:
    return f"after {course.steps} steps" if seens is course.seen else "before the first step"


class DeadUnits(Declaration):
    code = "dead_units"
    shown_by = "gradient_norm"
    rank = 140
    title = "Many ReLU units are zero for every sample."
    cause = "Such a unit has no gradient and does not recover."
    leads_to = "The layer loses capacity, in the worst case all of it."
    consequences = ("vanishing_gradient", "stuck", "underfitting")
    seen_by = "the share of ReLU units that give zero on all probe samples, before the first step and at the end."
    what_to_do = "Leaky ReLU, a lower rate, fresh weights."
    kinds = frozenset({Kind.STARVED})

    SHARE = 0.5  # of a layer's units

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        yield from cls.of(course, course.seen)

    @classmethod
    def of(cls, course: Course, seens: Sequence[Seen]) -> Iterator[Evidence]:
        """What these probes show."""
        share, layer = _worst(
            seens,
            lambda layer: layer.zero_units,
            lambda layer, _: Trait.RECTIFIES in layer.traits,
        )
        if layer is not None and share >= cls.SHARE:
            text = (
                f"{share:.0%} of the {layer.kind} units gave zero on all probe samples of layer "
                f"{layer.name} {_when(course, seens)}"
            )
            yield Evidence(f"layer {layer.name}", text, 0.85 if share > NEARLY_ALL else 0.65)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        edits = hidden_activation(case, "leaky_relu")
        if edits:
            yield edits, "leaky ReLUs always have a gradient"
        yield from lower_rate(case, factor)
        yield from fresh_start(case)


class SaturatedUnits(Declaration):
    code = "saturated_units"
    shown_by = "gradient_norm"
    rank = 150
    title = "Sigmoid or tanh units are at the flat ends of their curve."
    cause = "There the derivative is nearly zero, and almost no gradient passes."
    leads_to = "The layers before them learn slowly or not at all."
    consequences = ("vanishing_gradient", "stuck", "underfitting")
    seen_by = "the share of sigmoid or tanh outputs at the flat ends."
    what_to_do = "Scaled inputs, smaller weights, ReLU."
    kinds = frozenset({Kind.STARVED})

    SHARE = 0.8  # of a layer's outputs

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        yield from cls.of(course, course.seen)

    @classmethod
    def of(cls, course: Course, seens: Sequence[Seen]) -> Iterator[Evidence]:
        """What these probes show; the output layer may well be sure of its answers."""
        share, layer = _worst(
            seens,
            lambda layer: layer.flat,
            lambda layer, seen: Trait.SATURATES in layer.traits and layer not in seen.head(),
        )
        if layer is not None and share >= cls.SHARE:
            text = (
                f"{share:.0%} of the {layer.kind} outputs lay at the flat ends of layer {layer.name} "
                f"{_when(course, seens)}"
            )
            yield Evidence(f"layer {layer.name}", text, 0.85 if share > NEARLY_ALL else 0.65)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from larger_gradients(case)


def _depths(seens: Sequence[Seen]) -> tuple[float, float] | None:
    """The first layer's gradient against the last one's, each relative to its weights, and the
    norm of the whole gradient: medians over the probes."""
    ratios, norms = [], []
    for seen in seens:
        weighted = [layer for layer in seen.weighted if Trait.EMBEDS not in layer.traits]
        if len(weighted) > 1:
            first, last = (w.gradient / max(w.weight, 1e-12) for w in (weighted[0], weighted[-1]))
            ratios.append(first / max(last, 1e-30))
            norms.append(seen.norm)
    return (float(np.median(ratios)), float(np.median(norms))) if ratios else None


class VanishingGradient(Declaration):
    code = "vanishing_gradient"
    shown_by = "gradient_norm"
    rank = 160
    title = "Almost no gradient reaches the first layers."
    cause = "The gradient shrinks from layer to layer on its way back."
    leads_to = "The first layers do not learn."
    consequences = ("stuck", "underfitting")
    seen_by = (
        "the first layer's gradient against the last one's, each by the size of its weights: under a "
        "thousandth."
    )
    what_to_do = "ReLU with He's weights, normalisation, fewer layers."
    kinds = frozenset({Kind.STARVED})
    generic = 6

    RATIO, NORM = 1e-3, 1e-7

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        found = _depths(course.seen)
        if found is not None and (found[0] < cls.RATIO or found[1] < cls.NORM):
            text = (
                f"the first layer's gradient is {found[0]:.1g} of the last one's, each by the size of "
                f"its weights (norm of the whole {found[1]:.2g})"
            )
            yield Evidence("first layers", text, 0.75)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from larger_gradients(case)


class ExplodingGradient(Declaration):
    code = "exploding_gradient"
    shown_by = "gradient_norm"
    rank = 170
    title = "The gradient is very large, or has grown manyfold."
    cause = "It grows from layer to layer on its way back, or from step to step."
    leads_to = "Single steps destroy what was learned."
    consequences = ("non_finite", "oscillating", "stuck")
    seen_by = (
        "the same ratio over 10,000, a gradient's norm over 10,000, or one that grew tenfold before "
        "it was no longer a number."
    )
    what_to_do = "Clipping, fresh weights, a lower rate."
    kinds = frozenset({Kind.SIGN})

    RATIO = NORM = 1e4
    CERTAIN = 1e5
    GROWN = 10.0

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        yield from cls._before_loss(course)
        found = _depths(course.first)
        if found is None or (found[0] <= cls.RATIO and found[1] <= cls.NORM):
            return
        ratio, norm = found
        where, text = "gradient", f"at the start the whole gradient has a norm of {norm:.2g}"
        if ratio > cls.RATIO:
            where, text = (
                "first layers",
                f"at the start the first layer's gradient is {ratio:.2g} times the last one's "
                f"(norm of the whole {norm:.2g})",
            )
        yield Evidence(where, text, 0.9 if max(ratio, norm) > cls.CERTAIN else 0.7)

    @classmethod
    def _before_loss(cls, course: Course) -> Iterator[Evidence]:
        """The gradient's growth before the first step that was not a number."""
        lost = [curve for curve in course.curves if not curve.finite]
        if len(lost) <= MAJORITY * len(course.curves):
            return
        first = min(first_bad(curve) for curve in lost)
        grown = [
            float(norms.max() / max(curve.norms[0], 1e-12))
            for curve in lost
            if len(norms := curve.norms[: first + 1][np.isfinite(curve.norms[: first + 1])])
        ]
        if grown and np.median(grown) > cls.GROWN:
            text = f"before it the gradient grew {np.median(grown):.2g}-fold"
            yield Evidence("gradient", text, 0.7)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from clipped_gradients(case, factor)


def broken(course: Course, seens: Sequence[Seen]) -> tuple[type[Declaration], Evidence] | None:
    """A layer nearly all of whose units are dead or saturated, or first layers without a gradient,
    in most of these probes: waiting does not repair that."""
    for kind in (DeadUnits, SaturatedUnits):
        for evidence in kind.of(course, seens):
            if evidence.strength > 0.8:
                return kind, evidence
    if seens is course.seen:
        for evidence in VanishingGradient.during(course):
            return VanishingGradient, evidence
    return None
