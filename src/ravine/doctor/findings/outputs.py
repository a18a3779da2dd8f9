"""Findings about the output layer, the loss and the targets: what belongs together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Remedies
from ravine.doctor.measure.untrained import DISTANCES, ENTROPIES, Untrained
from ravine.doctor.remedies import proper_output, scaled_targets
from ravine.nn.analysis.output_layer import largest_probability

SURE, LIKELY, SUSPECT = 0.95, 0.6, 0.4
CAPPED = 0.95  # a softmax whose largest probability is below cannot be sure of any class


class WrongOutputUnits(Declaration):
    code = "wrong_output_units"
    rank = 20
    certain = True
    title = "The number of output units does not fit the classes or targets."
    cause = "Each class, label or target needs an output of its own (two classes can share one)."
    leads_to = "Some answers can never be given."
    consequences = ("stuck", "underfitting", "vanishing_gradient")
    seen_by = (
        "the number of output units against the number of classes or labels; a loss that refuses the "
        "outputs."
    )
    what_to_do = "One unit for each class (or one for two classes)."

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        if program.seen is None:
            text = f"the loss refuses the network's outputs: {program.refused}"
            yield Evidence("model", text, SURE)
            return
        if program.task in ("regression", "sequence"):
            return
        k, units, loss = program.pipeline.outputs, program.outputs, program.loss_kind
        one_for_two = units == 1 and k == 2 and loss not in ("cross_entropy", "nll")
        unused = units > k and loss in ("cross_entropy", "nll")
        if units == k or one_for_two or unused:
            return
        what = "labels" if program.task == "multilabel" else "classes"
        text = f"{units} output unit{'s' * (units > 1)} for {k} {what}"
        yield Evidence("output layer", text, SURE if loss in ENTROPIES or units > 1 else LIKELY)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from proper_output(case)


@dataclass(frozen=True)
class Pair:
    """Output layers and losses that do not belong together, for some tasks."""

    losses: tuple[str, ...]
    heads: tuple[str, ...]
    text: str  # {loss} is the loss, {labels} what was counted in the labels
    strength: float
    reads: str = ""  # scores or probabilities; either where empty
    task: str = ""  # any where empty

    def fits(self, program: Untrained) -> bool:
        reads = "probabilities" if program.probabilities else "scores"
        return (
            program.loss_kind in self.losses
            and program.head in self.heads
            and self.reads in ("", reads)
            and self.task in ("", program.task)
        )


_ANY_HEAD = ("linear", "sigmoid", "softmax", "tanh", "relu", "log_softmax", "other")
_SHARED = (
    "the labels do not exclude one another, but the outputs of a softmax always sum to 1: {labels}"
)
_EXCLUSIVE = "{loss} is for classes that exclude one another: {labels}"
_WEAK = (
    "a %s is trained with {loss}, not cross-entropy: where it is wrong and sure its gradient is "
    "near zero"
)
_UNBOUNDED = (
    "{loss} reads the outputs as probabilities, but the last layer is %s: values outside 0 to 1 are "
    "clipped, and clipped outputs have no gradient"
)
_TWICE = "{loss} applies the %s itself, but the network ends in one already: the loss can never come near 0"
_BOUNDED = "{loss} reads scores of any size, but the %s keeps them between %s"
_LITTLE = ": no class can get much more than its share"
_READS_P = ("cross_entropy", "binary_cross_entropy", "kl")
_BCE, _CE = ("binary_cross_entropy",), ("cross_entropy",)

# The first that fits counts.
PAIRS = (
    Pair(DISTANCES, ("softmax",), _SHARED, SURE, task="multilabel"),
    Pair(_BCE, ("softmax",), _SHARED, SURE, "probabilities", "multilabel"),
    Pair(_CE, _ANY_HEAD, _EXCLUSIVE, SURE, task="multilabel"),
    Pair(DISTANCES, ("softmax",), _WEAK % "softmax", 0.35, task="classification"),
    Pair(DISTANCES, ("sigmoid",), _WEAK % "sigmoid", 0.3, task="classification"),
    Pair(_READS_P, ("linear",), _UNBOUNDED % "linear", SURE, "probabilities"),
    Pair(_READS_P, ("relu",), _UNBOUNDED % "a ReLU", SURE, "probabilities"),
    Pair(_READS_P, ("tanh",), _UNBOUNDED % "a tanh", SURE, "probabilities"),
    Pair(_READS_P, ("log_softmax",), _UNBOUNDED % "a log-softmax", SURE, "probabilities"),
    Pair(
        _CE,
        ("sigmoid",),
        "cross-entropy over classes reads outputs that sum to 1, but each output is a sigmoid of its own",
        SUSPECT,
        "probabilities",
    ),
    Pair(
        _BCE,
        ("softmax",),
        "binary cross-entropy treats each output alone, but a softmax ties them together",
        0.3,
        "probabilities",
    ),
    Pair(_CE, ("softmax",), _TWICE % "softmax", SURE, "scores"),
    Pair(_CE, ("sigmoid",), _BOUNDED % ("sigmoid", "0 and 1") + _LITTLE, SURE, "scores"),
    Pair(_CE, ("tanh",), _BOUNDED % ("tanh", "-1 and 1") + _LITTLE, LIKELY, "scores"),
    Pair(
        _CE,
        ("relu",),
        "{loss} reads scores of any size, but the ReLU cuts off all negative ones, and units at zero "
        "have no gradient",
        LIKELY,
        "scores",
    ),
    Pair(_BCE, ("sigmoid", "softmax"), _TWICE % "sigmoid", SURE, "scores"),
    Pair(
        _BCE,
        ("relu",),
        "{loss} reads scores of any sign, but the ReLU gives none below 0: the answer no can never "
        "be given",
        SURE,
        "scores",
    ),
    Pair(_BCE, ("tanh",), _BOUNDED % ("tanh", "-1 and 1"), LIKELY, "scores"),
    Pair(
        ("nll",),
        ("linear", "softmax", "sigmoid", "relu", "tanh"),
        "nll reads log-probabilities, but the network does not end in a log-softmax",
        SURE,
        "scores",
    ),
)


class LossOutputMismatch(Declaration):
    code = "loss_output_mismatch"
    rank = 30
    certain = True
    title = "The loss and the output layer do not belong together."
    cause = "Each loss reads its inputs as scores, probabilities or log-probabilities; the network gives something else."
    leads_to = "The gradient is zero or points in a wrong direction."
    consequences = (
        "vanishing_gradient",
        "stuck",
        "underfitting",
        "dead_units",
        "saturated_units",
    )
    seen_by = (
        "the output layer's kind is found from what it returns for values of -50 to 50; a table says "
        "what each loss can read. A softmax behind a bounded activation is found by its largest "
        "probability for scores of 50 and -50."
    )
    what_to_do = "Let the last layer give scores, and use the task's own loss on them."
    kinds = frozenset({Kind.SLOWS})
    sound = 3

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        if program.seen is None:
            return
        if program.head == "constant":
            value = float(program.seen.outputs.flatten()[0])
            text = (
                f"the output is {value:g} for every input, whatever the weights: "
                "a softmax over one unit is always 1, and its gradient is zero"
            )
            yield Evidence("output layer", text, 1.0)
            return
        pair = next((pair for pair in PAIRS if pair.fits(program)), None)
        most = _largest_probability(program)
        if most < CAPPED:
            text = (
                "what lies between the last weighted layer and the softmax bounds its scores (a tanh "
                f"does): no probability can exceed {most:.2f}, however sure the network is"
            )
            yield Evidence("output layer", text, SURE)
        elif pair is not None:
            text = pair.text.format(loss=_loss_name(program), labels=_counted(program.probe.y))
            yield Evidence("output layer and loss", text, pair.strength)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from proper_output(case)


def _largest_probability(program: Untrained) -> float:
    if program.head != "softmax" or program.outputs < 2:
        return 1.0
    return largest_probability(program.model, program.probe.x[: max(16, program.outputs)])


def _loss_name(program: Untrained) -> str:
    if program.loss_kind not in ENTROPIES:
        return f"the {program.loss_kind} error"
    return f"{program.loss_kind} on {'probabilities' if program.probabilities else 'scores'}"


def _counted(y: Tensor) -> str:
    if not y.is_floating_point() or y.dim() < 2:
        return ""
    other = float((y.sum(-1) != 1).float().mean())
    return f"{other:.0%} of the samples have none or several labels"


class OutputRange(Declaration):
    code = "output_range"
    rank = 40
    certain = True
    title = "The output layer cannot reach the targets."
    cause = "Its activation returns values of a range in which not all targets lie."
    leads_to = "The loss stays high however long the training."
    consequences = ("saturated_units", "dead_units", "stuck", "underfitting", "targets_unscaled")
    seen_by = "the part of the targets' variance that the output layer can never explain."
    what_to_do = "A linear output layer, or standardised targets."

    BOUNDS: ClassVar = {
        "sigmoid": (0.0, 1.0),
        "softmax": (0.0, 1.0),
        "tanh": (-1.0, 1.0),
        "relu": (0.0, math.inf),
    }
    LOST = 0.003  # of the targets' variance
    OUTSIDE = 0.01  # of the targets

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        known = program.head in cls.BOUNDS and program.loss_kind not in ENTROPIES
        if program.seen is None or program.task != "regression" or not known:
            return
        y = program.targets.double()
        if program.head == "softmax" and program.outputs > 1 and y.dim() == 2:
            yield from cls._sums(y)
            return
        low, high = cls.BOUNDS[program.head]
        outside = float(((y < low - 1e-6) | (y > high + 1e-6)).double().mean())
        off = (y - y.clamp(low, high)).square().mean()
        lost = float(off / y.var(correction=0).clamp_min(1e-12))
        if outside > cls.OUTSIDE and lost > cls.LOST:
            text = (
                f"{outside:.0%} of the targets lie outside what the {program.head} output can give "
                f"({low:g} to {high:g}; the targets go from {float(y.min()):.3g} to "
                f"{float(y.max()):.3g}): {min(lost, 9.99):.0%} of their variance can never be explained"
            )
            yield Evidence("output layer", text, SURE)

    @classmethod
    def _sums(cls, y: Tensor) -> Iterator[Evidence]:
        off = (y.sum(-1) - 1).square().mean() / y.shape[1]
        lost = float(off / y.var(0, correction=0).mean().clamp_min(1e-12))
        if lost > cls.LOST:
            text = (
                f"the outputs of a softmax sum to 1, the targets of a sample to "
                f"{float(y.sum(-1).mean()):.3g} in the mean: {min(lost, 9.99):.0%} of their variance "
                "can never be explained"
            )
            yield Evidence("output layer", text, SURE)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from proper_output(case)
        yield from scaled_targets(case)
