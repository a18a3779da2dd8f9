"""Findings about the scale of inputs and targets."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Remedies
from ravine.doctor.measure.untrained import ENTROPIES, Untrained
from ravine.doctor.remedies import scaled_inputs, scaled_targets
from ravine.nn.analysis.traits import Trait


class InputsUnscaled(Declaration):
    code = "inputs_unscaled"
    rank = 50
    certain = True
    title = "The inputs are large, tiny, or of very unequal scale."
    cause = "The loss is steep along large inputs and flat along small ones, and large sums saturate units."
    leads_to = "A learning rate that fits one feature is far too high or too low for the others."
    consequences = (
        "saturated_units",
        "dead_units",
        "exploding_gradient",
        "non_finite",
        "stuck",
        "oscillating",
        "underfitting",
        "init_scale",
    )
    seen_by = (
        "size and spread of each feature or channel; where that is only a suspicion, an experiment "
        "with standardised inputs."
    )
    what_to_do = '`preprocess = "standardize"`; images on 0 to 1.'
    kinds = frozenset({Kind.LEARNING, Kind.SLOWS, Kind.START})
    generic = 3
    sound = 1

    # Root mean squares of an input feature.
    VAST = 1000.0  # no weights of any usual size take that
    EXTREME = 50.0
    LARGE = 10.0
    ABOVE = 3.0  # with features of very unequal scale
    TINY = 0.01
    # Standard deviations: the widest feature's against the narrowest one's.
    UNEQUAL = 1000.0
    UNLIKE = 100.0
    OFFSET = 10.0  # a mean in standard deviations
    SHRUNK = 0.1  # of the inputs' spread: what reaches a layer of a network that scales them itself
    CERTAIN, LIKELY, SUSPECT = 0.92, 0.6, 0.4

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        x = program.numbers
        if program.seen is None or not x.is_floating_point() or not x.numel():
            return
        if cls._normalised(program):
            return
        table = x.dim() == 2
        rows = _by_feature(x)
        deviation, size = rows.std(0, correction=0), rows.square().mean(0).sqrt()
        live = deviation > 0
        spread = float(deviation[live].max() / deviation[live].min()) if bool(live.any()) else 1.0
        means = (rows.mean(0).abs() / deviation.clamp_min(1e-12))[live]
        offset = float(means.max()) if len(means) else 0.0
        largest, what = float(size.max()), "input feature" if table else "channel"
        strength = cls._strength_of_large(largest, spread, offset, table)
        if strength:
            widest = int(size.argmax())
            text = (
                f"{what} {widest} has mean {float(rows.mean(0)[widest]):.3g} and standard deviation "
                f"{float(deviation[widest]):.3g}"
            )
            if spread > 10 and int(live.sum()) > 1:
                text += f"; the widest is {spread:.2g} times as wide as the narrowest"
            yield Evidence("inputs", text, strength)
            return
        filled = _size_where_not_zero(rows)
        smallest = int(filled.argmin())
        if filled[smallest] < cls.TINY:
            text = f"{what} {smallest} has a root mean square of {float(filled[smallest]):.2g}"
            yield Evidence("inputs", text, cls.SUSPECT)

    @classmethod
    def _strength_of_large(cls, largest: float, spread: float, offset: float, table: bool) -> float:
        """How sure it is that features of this size, spread and offset do harm."""
        if largest > cls.VAST:
            return cls.CERTAIN
        if largest > cls.EXTREME or (spread > cls.UNEQUAL and largest > cls.ABOVE):
            return cls.LIKELY
        unlike = table and spread > cls.UNLIKE and largest > 1
        return cls.SUSPECT if largest > cls.LARGE or offset > cls.OFFSET or unlike else 0.0

    @classmethod
    def _normalised(cls, program: Untrained) -> bool:
        """Whether a normalising layer runs before any layer with weights, or the network makes its
        inputs smaller by itself."""
        assert program.seen is not None
        for layer in program.seen.layers:
            if layer.weighted:
                spread = float(program.numbers.float().std(correction=0))
                return 0 < layer.input_std < cls.SHRUNK * spread
            if Trait.NORMALISES in layer.traits:
                return True
        return False

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from scaled_inputs(case)


def _by_feature(x: Tensor) -> Tensor:
    """Samples (and places) by features, or by channels of images and sequences."""
    if x.dim() == 2:
        return x.double()
    axis = 1 if x.dim() > 3 else -1
    return x.double().movedim(axis, -1).reshape(-1, x.shape[axis])


def _size_where_not_zero(rows: Tensor) -> Tensor:
    """Root mean square of each column's entries other than 0, infinite where there are none: a
    column that is nearly always 0 is sparse, not small."""
    filled = (rows != 0).sum(0)
    size = (rows.square().sum(0) / filled.clamp_min(1)).sqrt()
    return size.where(filled > 0, torch.inf)


class TargetsUnscaled(Declaration):
    code = "targets_unscaled"
    rank = 60
    title = "The targets are large or tiny against the network's first outputs."
    cause = "Targets of large scale give large gradients, and outputs need many steps to get there."
    leads_to = "Training is very slow, or diverges."
    consequences = ("exploding_gradient", "stuck", "underfitting", "non_finite", "lr_too_low")
    seen_by = "size of the targets against the untrained outputs, confirmed by an experiment."
    what_to_do = '`preprocess = { kind = "standardize", of = "targets" }`.'
    sound = 2

    LARGE, NARROW = 10.0, 1e-3  # root mean square and standard deviation
    SUSPECT = 0.4

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        entropy = program.loss_kind in ENTROPIES
        if program.task != "regression" or entropy or program.seen is None:
            return
        y = program.probe.y.double()
        size, spread = float(y.square().mean().sqrt()), float(y.std(correction=0))
        if size > cls.LARGE or (0 < spread < cls.NARROW):
            text = (
                f"the targets have mean {float(y.mean()):.3g} and standard deviation "
                f"{spread:.3g}, the untrained outputs {float(program.seen.outputs.std()):.2g}"
            )
            yield Evidence("targets", text, cls.SUSPECT)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from scaled_targets(case)
