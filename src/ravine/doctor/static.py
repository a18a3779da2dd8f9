"""What can be said before any step: output layer against loss, labels and targets; scales; initial
weights; splits.

A *contradiction* (strength 0.9 and more) is wrong whatever the run does: the loss cannot be brought
down with it. A *suspicion* (under 0.5) needs the run, or an experiment, to speak against the
program before it counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.catalogue import find
from ravine.data.pipeline import Batch, Pipeline
from ravine.doctor.experiment import probe_batch
from ravine.doctor.findings import Finding
from ravine.doctor.probes import Layer, Seen, head_kind, is_affine, look
from ravine.doctor.remedies import Case, remedies
from ravine.doctor.samples import SAMPLE_CHECKS, all_targets
from ravine.errors import InputError
from ravine.nn.traits import Trait
from ravine.recipe import Recipe

VAST = 1000.0  # root mean square of an input feature: no weights of any usual size take that
EXTREME = 50.0
LARGE = 10.0
TINY = 0.01
FAINT = 1e-5  # of the inputs' spread
UNEQUAL = 1000.0  # widest against narrowest feature
SURE, LIKELY, SUSPECT = 0.95, 0.6, 0.4
HINT = 0.2  # worth an experiment, not a word
_ENTROPIES = ("cross_entropy", "binary_cross_entropy", "kl", "nll")


@dataclass
class Examined:
    """A program laid out for static examination."""

    recipe: Recipe
    pipeline: Pipeline
    model: nn.Module
    loss: nn.Module
    probe: Batch
    seen: Seen | None  # None: the network or the loss refuses the data
    head: str
    loss_kind: str  # auto resolved
    probabilities: bool
    refused: str = ""

    @property
    def task(self) -> str:
        return self.pipeline.task

    @property
    def outputs(self) -> int:
        return (
            self.seen.outputs.shape[-1]
            if self.seen is not None and self.seen.outputs.dim() > 1
            else 1
        )

    @property
    def case(self) -> Case:
        return Case(self.recipe, self.task, self.pipeline.outputs, tuple(self.pipeline.input_shape))

    def finding(
        self, code: str, where: str, evidence: str, strength: float, **more: object
    ) -> Finding:
        """A finding with this program's remedies."""
        return Finding(code, where, evidence, remedies(code, self.case, **more), strength=strength)


def lay_out(recipe: Recipe, pipeline: Pipeline, model: nn.Module, loss: nn.Module) -> Examined:
    """Run the network once on probe samples and name its output layer."""
    probe = probe_batch(pipeline)
    few = slice(0, 256 if probe.x[0].numel() < 500 else 64)
    seen, refused, head = None, "", "other"
    try:
        seen = look(model, loss, probe.x[few], probe.y[few])
        head = head_kind(model, probe.x[:16])
    except (InputError, RuntimeError, IndexError, ValueError) as error:
        refused = str(error).splitlines()[0]
    kind = recipe.loss.kind
    if kind == "auto":
        kind = {"regression": "squared", "multilabel": "binary_cross_entropy"}.get(
            pipeline.task, "cross_entropy"
        )
    return Examined(
        recipe,
        pipeline,
        model,
        loss,
        probe,
        seen,
        head,
        kind,
        recipe.loss.arguments.get("input") == "probabilities",
        refused,
    )


def examine(program: Examined) -> list[Finding]:
    """Every static finding, contradictions and suspicions."""
    if program.seen is None:
        return [
            program.finding(
                "wrong_output_units",
                "model",
                f"the loss refuses the network's outputs: {program.refused}",
                SURE,
            )
        ]
    return [finding for check in (*CHECKS, *SAMPLE_CHECKS) for finding in check(program)]


# --- outputs, loss and labels ---------------------------------------------------------------------


def _units(program: Examined) -> Iterator[Finding]:
    if program.task == "regression" or program.task == "sequence":
        return
    k, units = program.pipeline.outputs, program.outputs
    one_for_two = units == 1 and k == 2 and program.loss_kind not in ("cross_entropy", "nll")
    if units == k or one_for_two:
        return
    if program.loss_kind in ("cross_entropy", "nll") and units > k:
        return
    what = "labels" if program.task == "multilabel" else "classes"
    sure = SURE if program.loss_kind in _ENTROPIES or units > 1 else LIKELY
    yield program.finding(
        "wrong_output_units",
        "output layer",
        f"{units} output unit{'s' * (units > 1)} for {k} {what}",
        sure,
    )


def _pairing(program: Examined) -> Iterator[Finding]:
    head, loss = program.head, program.loss_kind
    if head == "constant":
        value = (
            float(program.seen.outputs.flatten()[0]) if program.seen is not None else float("nan")
        )
        text = (
            f"the output is {value:g} for every input, whatever the weights: "
            "a softmax over one unit is always 1, and its gradient is zero"
        )
        yield program.finding("loss_output_mismatch", "output layer", text, 1.0)
        return
    verdict = _PAIRS.get((loss, "p" if program.probabilities else "s"), {}).get(head)
    if (
        loss in ("squared", "absolute", "huber")
        and program.task == "multilabel"
        and head == "softmax"
    ) or (
        loss == "binary_cross_entropy"
        and program.probabilities
        and head == "softmax"
        and program.task == "multilabel"
    ):
        verdict = (
            "the labels do not exclude one another, but the outputs of a softmax always sum to 1: {labels}",
            SURE,
        )
    elif loss == "cross_entropy" and program.task == "multilabel":
        verdict = ("{loss} is for classes that exclude one another: {labels}", SURE)
    elif loss in ("squared", "absolute", "huber") and program.task == "classification":
        verdict = {
            "softmax": (
                "a softmax is trained with {loss}, not cross-entropy: where it is wrong and sure its gradient is near zero",
                0.35,
            ),
            "sigmoid": (
                "a sigmoid is trained with {loss}, not cross-entropy: where it is wrong and sure its gradient is near zero",
                0.3,
            ),
        }.get(head)
    if verdict:
        text, strength = verdict
        yield program.finding(
            "loss_output_mismatch",
            "output layer and loss",
            text.format(loss=_name(program), labels=_sums(program.probe.y)),
            strength,
        )


def _name(program: Examined) -> str:
    return (
        f"{program.loss_kind} on {'probabilities' if program.probabilities else 'scores'}"
        if program.loss_kind in _ENTROPIES
        else f"the {program.loss_kind} error"
    )


def _sums(y: Tensor) -> str:
    if not y.is_floating_point() or y.dim() < 2:
        return ""
    other = float((y.sum(-1) != 1).float().mean())
    return f"{other:.0%} of the samples have none or several labels"


_UNBOUNDED = (
    (
        "{loss} reads the outputs as probabilities, but the last layer is {}: "
        "values outside 0 to 1 are clipped, and clipped outputs have no gradient"
    ),
    SURE,
)
_TWICE = "{loss} applies the {} itself, but the network ends in one already: the loss can never come near 0"


def _said(pair: tuple[str, float], what: str) -> tuple[str, float]:
    return pair[0].replace("{}", what), pair[1]


_OPEN = {
    head: _said(_UNBOUNDED, what)
    for head, what in (
        ("linear", "linear"),
        ("relu", "a ReLU"),
        ("tanh", "a tanh"),
        ("log_softmax", "a log-softmax"),
    )
}
_PAIRS: dict[tuple[str, str], dict[str, tuple[str, float]]] = {
    ("cross_entropy", "p"): {
        **_OPEN,
        "sigmoid": (
            "cross-entropy over classes reads outputs that sum to 1, but each output is a sigmoid of its own",
            SUSPECT,
        ),
    },
    ("binary_cross_entropy", "p"): {
        **_OPEN,
        "softmax": (
            "binary cross-entropy treats each output alone, but a softmax ties them together",
            0.3,
        ),
    },
    ("cross_entropy", "s"): {
        "softmax": (_TWICE.replace("{}", "softmax"), SURE),
        "sigmoid": (
            (
                "{loss} reads scores of any size, but the sigmoid keeps them "
                "between 0 and 1: no class can get much more than its share"
            ),
            SURE,
        ),
        "tanh": (
            "{loss} reads scores of any size, but the tanh keeps them between -1 and 1: no class can get much more than its share",
            LIKELY,
        ),
        "relu": (
            "{loss} reads scores of any size, but the ReLU cuts off all negative ones, and units at zero have no gradient",
            LIKELY,
        ),
    },
    ("binary_cross_entropy", "s"): {
        "sigmoid": (_TWICE.replace("{}", "sigmoid"), SURE),
        "softmax": (_TWICE.replace("{}", "sigmoid"), SURE),
        "relu": (
            "{loss} reads scores of any sign, but the ReLU gives none below 0: the answer no can never be given",
            SURE,
        ),
        "tanh": (
            "{loss} reads scores of any size, but the tanh keeps them between -1 and 1",
            LIKELY,
        ),
    },
    ("nll", "s"): dict.fromkeys(
        ("linear", "softmax", "sigmoid", "relu", "tanh"),
        ("nll reads log-probabilities, but the network does not end in a log-softmax", SURE),
    ),
    ("kl", "p"): {**_OPEN},
}


def _range(program: Examined) -> Iterator[Finding]:
    """What part of the targets' variance the output layer can never explain."""
    bounds = {
        "sigmoid": (0.0, 1.0),
        "softmax": (0.0, 1.0),
        "tanh": (-1.0, 1.0),
        "relu": (0.0, float("inf")),
    }
    if (
        program.task != "regression"
        or program.head not in bounds
        or program.loss_kind in _ENTROPIES
    ):
        return
    y = all_targets(program.pipeline).double()
    low, high = bounds[program.head]
    if program.head == "softmax" and program.outputs > 1 and y.dim() == 2:
        off = y.sum(-1) - 1
        lost = float(
            off.square().mean() / y.shape[1] / y.var(0, correction=0).mean().clamp_min(1e-12)
        )
        if lost > 0.003:
            text = (
                f"the outputs of a softmax sum to 1, the targets of a sample to {float(y.sum(-1).mean()):.3g} "
                f"in the mean: {min(lost, 9.99):.0%} of their variance can never be explained"
            )
            yield program.finding("output_range", "output layer", text, SURE)
        return
    outside = float(((y < low - 1e-6) | (y > high + 1e-6)).double().mean())
    lost = float((y - y.clamp(low, high)).square().mean() / y.var(correction=0).clamp_min(1e-12))
    if outside > 0.01 and lost > 0.003:
        text = (
            f"{outside:.0%} of the targets lie outside what the {program.head} output can give ({low:g} to {high:g}; the targets "
            f"go from {float(y.min()):.3g} to {float(y.max()):.3g}): {min(lost, 9.99):.0%} of their variance can never be explained"
        )
        yield program.finding("output_range", "output layer", text, SURE)


# --- scales ---------------------------------------------------------------------------------------


def _inputs(program: Examined) -> Iterator[Finding]:
    x = program.probe.x
    if not x.is_floating_point() or _normalised_first(program):
        return
    rows = (
        x.double().reshape(len(x), -1)
        if x.dim() == 2
        else x.double()
        .movedim(1 if x.dim() > 3 else -1, -1)
        .reshape(-1, x.shape[1 if x.dim() > 3 else -1])
    )
    mean, deviation = rows.mean(0), rows.std(0, correction=0)
    size = rows.square().mean(0).sqrt()
    widest = int(size.argmax())
    live = deviation[deviation > 0]
    spread = float(live.max() / live.min()) if len(live) else 1.0
    offset = (
        float((mean.abs() / deviation.clamp_min(1e-12))[deviation > 0].max()) if len(live) else 0.0
    )
    largest, sizes = float(size.max()), _size_where_not_zero(rows)
    smallest = int(sizes.argmin())
    what = "input feature" if x.dim() == 2 else "channel"
    text = f"{what} {widest} has mean {float(mean[widest]):.3g} and standard deviation {float(deviation[widest]):.3g}"
    if spread > 10 and len(live) > 1:
        text += f"; the widest is {spread:.2g} times as wide as the narrowest"
    if largest > EXTREME or (spread > UNEQUAL and largest > 3):
        yield program.finding("inputs_unscaled", "inputs", text, 0.92 if largest > VAST else LIKELY)
    elif largest > LARGE or offset > 10 or (spread > 100 and x.dim() == 2 and largest > 1):
        yield program.finding("inputs_unscaled", "inputs", text, SUSPECT)
    elif sizes[smallest] < TINY:
        text = f"{what} {smallest} has a root mean square of {float(sizes[smallest]):.2g}"
        yield program.finding("inputs_unscaled", "inputs", text, SUSPECT)


def _size_where_not_zero(rows: Tensor) -> Tensor:
    """Root mean square of each column's entries other than 0, infinite where there are none: a
    column that is nearly always 0 is sparse, not small."""
    filled = (rows != 0).sum(0)
    size = (rows.square().sum(0) / filled.clamp_min(1)).sqrt()
    return size.where(filled > 0, torch.inf)


def _normalised_first(program: Examined) -> bool:
    assert program.seen is not None
    for layer in program.seen.layers:
        if layer.weighted:
            return False
        if Trait.NORMALISES in layer.traits:
            return True
    return False


def _targets(program: Examined) -> Iterator[Finding]:
    if program.task != "regression" or program.loss_kind in _ENTROPIES or program.seen is None:
        return
    y = program.probe.y.double()
    size, spread = float(y.square().mean().sqrt()), float(y.std(correction=0))
    if size > 10 or (0 < spread < 1e-3):
        text = (
            f"the targets have mean {float(y.mean()):.3g} and standard deviation "
            f"{spread:.3g}, the untrained outputs {float(program.seen.outputs.std()):.2g}"
        )
        yield program.finding("targets_unscaled", "targets", text, SUSPECT)


# --- the network as it starts ---------------------------------------------------------------------


def _start(program: Examined) -> Iterator[Finding]:
    seen = program.seen
    assert seen is not None
    weighted = [layer for layer in seen.weighted if layer.kind != "Embedding"]
    for layer in weighted[:-1]:
        if layer.units > 1 and layer.twins > 0.5:
            text = (
                f"{layer.twins:.0%} of the {layer.units} units of layer "
                f"{layer.name} start with the same weights and get the same gradient"
            )
            yield program.finding("symmetric_init", f"layer {layer.name}", text, SURE)
            break
    if (
        len(weighted) > 1
        and is_affine(program.model, program.probe.x[:32])
        and not _bottleneck(weighted)
    ):
        text = (
            f"the {len(weighted)} weighted layers have no non-linearity between them: "
            "the outputs are an affine function of the inputs (checked on 32 samples)"
        )
        yield program.finding("no_hidden_nonlinearity", "hidden layers", text, SURE)
    hidden = [(layer, act) for layer, act in seen.hidden() if layer.std > 0]
    if len(hidden) > 1 and hidden[0][0].std > 0:
        ratio = hidden[-1][0].std / hidden[0][0].std
        if ratio < 1e-3 or ratio > 1e3:
            text = (
                f"the spread of the signal goes from {hidden[0][0].std:.2g} in "
                f"the first layer to {hidden[-1][0].std:.2g} in the last hidden one"
            )
            yield program.finding("init_scale", "initial weights", text, SUSPECT)
    last = weighted[-1] if weighted else None
    if (
        len(weighted) > 1
        and weighted[-2].varies < FAINT * weighted[0].input_std
        and min(map(_gain, weighted[:-1])) < 0.1
    ):
        text = f"of the inputs' spread of {weighted[0].input_std:.2g} only {weighted[-2].varies:.2g} reaches the last hidden layer"
        yield program.finding("init_scale", "initial weights", text, 0.35)
    if (
        last is not None
        and last.input_std > 0
        and last.std > 30
        and seen.layers[0].input_std < EXTREME
    ):
        yield program.finding(
            "init_scale",
            "initial weights",
            f"the scores start with a spread of {last.std:.3g}",
            SUSPECT,
        )


def _gain(layer: Layer) -> float:
    """By how much a layer's weights make a signal larger: 1 by Glorot's rule, 1.4 by He's."""
    fan_in = layer.products / max(1, math.prod(layer.shape))
    return layer.weight * fan_in**0.5


def _bottleneck(layers: list[Any]) -> bool:
    """A narrow middle is a factorisation, which may well be linear."""
    widths = [math.prod(layer.shape) for layer in layers]
    return len(widths) > 1 and min(widths[:-1]) < widths[-1]


# --- numbers that are rarely right ----------------------------------------------------------------


def _numbers(program: Examined) -> Iterator[Finding]:
    recipe = program.recipe
    lr, kind = recipe.optimizer.arguments["lr"], recipe.optimizer.kind
    technique = find("optimizer", kind)
    adaptive, default = "adaptive" in technique.marks, technique.fields["lr"][1]
    if (adaptive and lr > max(0.03, 10 * default)) or (
        kind in ("sgd", "momentum", "nesterov") and lr > 2
    ):
        yield program.finding("lr_too_high", "optimizer.lr", f"{kind} with lr {lr:g}", 0.35)
    if (adaptive and lr < 1e-5) or (kind in ("sgd", "momentum", "nesterov") and lr < 1e-4):
        yield program.finding("lr_too_low", "optimizer.lr", f"{kind} with lr {lr:g}", 0.35)
    penalty = max(
        recipe.loss.l2, recipe.loss.l1, recipe.optimizer.arguments.get("weight_decay") or 0.0
    )
    layers = recipe.model.layers if recipe.model.kind == "layers" else ()
    rate = max((layer.rate for layer in layers if "dropout" in layer.kind), default=0.0)
    if penalty >= 1e-3 or rate >= 0.6:
        text = f"the largest penalty is {penalty:g}, the largest dropout rate {rate:g}"
        strong = penalty >= 0.05 or rate >= 0.8
        yield program.finding(
            "over_regularised", "penalties and dropout", text, 0.35 if strong else HINT
        )


def _hints(program: Examined) -> Iterator[Finding]:
    """What is rare, and only an experiment can tell whether it harms."""
    data, seen = program.recipe.data, program.seen
    assert seen is not None
    if (
        program.recipe.optimizer.kind == "rprop"
        and data.batch != "full"
        and data.batch < program.pipeline.size("train") / 4
    ):
        text = f"rprop goes by the signs of gradients alone, which on batches of {data.batch} are mostly noise"
        yield program.finding("optimizer_unsuited", "optimizer.kind", text, 0.35)
    if data.augment:
        kinds = ", ".join(part.kind for part in data.augment)
        yield program.finding(
            "augmentation_destructive", "data.augment", f"samples are augmented by {kinds}", HINT
        )
    if data.batch != "full" and data.batch <= 4 < program.pipeline.size("train"):
        yield program.finding("batch_too_small", "data.batch", f"batches of {data.batch}", HINT)
    hidden = [layer for layer in seen.weighted[:-1] if layer.kind != "Embedding"]
    wanted = 1 if program.task == "regression" else math.log2(max(2, program.pipeline.outputs)) + 1
    narrow = min(hidden, key=lambda layer: layer.units, default=None)
    many = (
        program.task == "regression" and program.outputs > 1
    )  # an autoencoder is narrow on purpose
    if narrow is not None and not many and (narrow.units == 1 or narrow.units < wanted):
        text = f"layer {narrow.name} has {narrow.units} unit{'s' * (narrow.units > 1)} for {program.pipeline.outputs} outputs"
        yield program.finding(
            "capacity_too_small", f"layer {narrow.name}", text, 0.3 if narrow.units == 1 else HINT
        )


CHECKS: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    _units,
    _pairing,
    _range,
    _inputs,
    _targets,
    _start,
    _numbers,
    _hints,
)
