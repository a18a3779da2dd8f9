"""Findings about the network as it starts: its weights, and whether it is more than linear."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Remedies
from ravine.doctor.findings.scales import InputsUnscaled
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.probes import Layer, is_affine
from ravine.doctor.measure.untrained import Untrained
from ravine.doctor.remedies import fresh_start, other_activation
from ravine.engine.given_model import unregistered

SURE, SUSPECT = 0.95, 0.4


class SymmetricInit(Declaration):
    code = "symmetric_init"
    shown_by = "gradient_norm"
    rank = 70
    certain = True
    title = "Units of a layer start with the same weights."
    cause = "Units that start alike get the same gradient and stay alike."
    leads_to = "A layer of many units works as one."
    consequences = ("stuck", "underfitting", "capacity_too_small", "vanishing_gradient")
    seen_by = (
        "the share of a hidden layer's units whose weights and gradients equal another unit's."
    )
    what_to_do = "Draw the weights at random, by He's or Glorot's rule."
    kinds = frozenset({Kind.START})

    TWINS = 0.5  # of the units

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        for layer in program.weighted[:-1]:
            if layer.units > 1 and layer.twins > cls.TWINS:
                text = (
                    f"{layer.twins:.0%} of the {layer.units} units of layer {layer.name} start with "
                    "the same weights and get the same gradient"
                )
                yield Evidence(f"layer {layer.name}", text, SURE)
                return

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from fresh_start(case)


class FrozenWeights(Declaration):
    code = "frozen_weights"
    shown_by = "gradient_norm"
    rank = 75
    certain = True
    title = "Weights are frozen as they were drawn."
    cause = "What does not move does not learn; frozen layers are of use where they were trained before."
    leads_to = "The layers that move must make do with random features."
    consequences = ("stuck", "underfitting", "capacity_too_small", "vanishing_gradient")
    seen_by = (
        "`start.freeze` without `start.weights` and `start.unfreeze`, or weights that an optimiser does not "
        "hold, or of layers that run but get no gradient: an alarm where no weight moves, or where the same "
        "steps without it get much further. Layers in a plain list are looked for. `ravine.watch` sees whether the "
        "weights of a loop change."
    )
    what_to_do = (
        'No `start.freeze`; or weights to start from, or `start.unfreeze = "20%"`. An optimiser of all '
        "`model.parameters()`, and its `step()` after `loss.backward()`. Between layers no `detach()`, `.data`, "
        "`torch.no_grad()` or NumPy. Lists of layers are nn.ModuleList."
    )
    kinds = frozenset({Kind.LIMIT, Kind.LEARNING, Kind.START})

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        yield from cls._cut_off(program)
        start = program.recipe.start
        if not start.freeze or start.unfreeze is not None:
            return
        weights = [(name, p) for name, p in program.model.named_parameters() if p.dim() > 1]
        still = [
            name for name, _ in weights if any(fnmatchcase(name, each) for each in start.freeze)
        ]
        module = program.recipe.model.kind == "module"
        unheld = module and set(still) <= set(start.freeze)  # one by one: no person's pattern
        drawn = start.weights is None and (unheld or not module)
        if weights and len(still) == len(weights):
            text = f"none of the {len(weights)} weight tensors of the network moves"
            yield Evidence("start.freeze", text, SURE)
        elif still and drawn:
            how = "are not held by the optimiser" if unheld else "are frozen as they were drawn"
            text = (
                f"{len(still)} of {len(weights)} weight tensors {how} "
                f"({', '.join(still[:3])}{', …' if len(still) > 3 else ''})"
            )
            yield Evidence("start.freeze", text, SUSPECT)

    @classmethod
    def _cut_off(cls, program: Untrained) -> Iterator[Evidence]:
        if hidden := unregistered(program.model):
            text = (
                f"{len(hidden)} layer(s) stand in a Python list or dictionary ({', '.join(hidden[:3])}): neither "
                "trained nor stored"
            )
            yield Evidence("model", text, 0.6, remedies=())
        layers = program.seen.weighted if program.seen is not None else []
        cut = [layer.name for layer in layers if not layer.reached]
        if 0 < len(cut) < len(layers):
            text = (
                f"no gradient reaches {len(cut)} of {len(layers)} layers with weights, though they run "
                f"({', '.join(cut[:3])}{', …' if len(cut) > 3 else ''})"
            )
            yield Evidence("model", text, SUSPECT, remedies=())

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        seen = course.stepping
        if seen is None or not seen.still:
            return
        why = (
            "no gradient was computed: loss.backward() is missing"
            if seen.without_gradient
            else "optimizer.step() is missing, or the optimiser holds other parameters"
        )
        yield Evidence("loop", f"no weight changed in {seen.still} steps; {why}", SURE, remedies=())

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield {"start.freeze": []}, "let every weight move"


class InitScale(Declaration):
    code = "init_scale"
    shown_by = "gradient_norm"
    rank = 120
    title = "The initial weights are far too large or too small."
    cause = "The signal grows or shrinks from layer to layer."
    leads_to = "The first steps are lost, or the units saturate."
    consequences = (
        "vanishing_gradient",
        "exploding_gradient",
        "saturated_units",
        "dead_units",
        "stuck",
    )
    seen_by = "the spread of the signal from layer to layer before the first step; an experiment with He's weights."
    what_to_do = '`init = { weights = "he_normal" }`.'

    TIMES = 1e3  # the signal's spread in the last hidden layer against the first, and its inverse
    FAINT, WEAK = 1e-5, 0.1  # share of the inputs' spread that is left; gain of a layer
    SCORES = 30.0  # spread of the untrained scores

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        if program.seen is None:
            return
        where, weighted = "initial weights", program.weighted
        hidden = [layer for layer, _ in program.seen.hidden() if layer.std > 0]
        if len(hidden) > 1 and not 1 / cls.TIMES <= hidden[-1].std / hidden[0].std <= cls.TIMES:
            text = (
                f"the spread of the signal goes from {hidden[0].std:.2g} in the first layer to "
                f"{hidden[-1].std:.2g} in the last hidden one"
            )
            yield Evidence(where, text, SUSPECT)
        if len(weighted) > 1:
            given, left = weighted[0].input_std, weighted[-2].varies
            if left < cls.FAINT * given and min(map(_gain, weighted[:-1])) < cls.WEAK:
                text = f"of the inputs' spread of {given:.2g} only {left:.2g} reaches the last hidden layer"
                yield Evidence(where, text, 0.35)
        last = weighted[-1] if weighted else None
        usual = program.seen.layers and program.seen.layers[0].input_std < InputsUnscaled.EXTREME
        if last is not None and last.input_std > 0 and last.std > cls.SCORES and usual:
            yield Evidence(where, f"the scores start with a spread of {last.std:.3g}", SUSPECT)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from fresh_start(case)


def _gain(layer: Layer) -> float:
    """By how much a layer's weights make a signal larger: 1 by Glorot's rule, 1.4 by He's."""
    fan_in = layer.products / max(1, math.prod(layer.shape))
    return layer.weight * fan_in**0.5


class NoHiddenNonlinearity(Declaration):
    code = "no_hidden_nonlinearity"
    shown_by = "gradient_norm"
    rank = 130
    certain = True
    title = "There is no activation between the layers."
    cause = "Linear layers one after the other are one linear layer."
    leads_to = "The network can only separate classes by hyperplanes, or fit a linear function."
    consequences = ("underfitting", "capacity_too_small")
    seen_by = (
        "the input of the last layer, halfway between two samples, is the mean of its values at the "
        "two: the layers before it are an affine function."
    )
    what_to_do = "An activation after each hidden layer."
    kinds = frozenset({Kind.START})
    sound = 4

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        weighted = program.weighted
        if len(weighted) < 2 or not is_affine(program.model, program.probe.x[:32]):
            return
        widths = [math.prod(layer.shape) for layer in weighted]
        if min(widths[:-1]) < widths[-1]:
            return  # a narrow middle is a factorisation, which may well be linear
        text = (
            f"the {len(weighted)} weighted layers have no non-linearity between them: "
            "the outputs are an affine function of the inputs (checked on 32 samples)"
        )
        yield Evidence("hidden layers", text, SURE)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from other_activation(case)
