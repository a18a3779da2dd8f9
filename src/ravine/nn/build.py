"""From a recipe's parts to modules: models with statelessly drawn parameters, losses, and the
layout of a row."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ravine.catalogue import MEMBER, Init, Part, make
from ravine.errors import InputError, first_line
from ravine.layout import Layout
from ravine.nn.analysis.traits import Trait, traits
from ravine.nn.convolution import LocallyConnected
from ravine.nn.loss.criterion import SampleLoss
from ravine.nn.loss.own_loss import OwnLoss
from ravine.nn.randomized import mark_idle_layers
from ravine.nn.room import Room
from ravine.nn.stack import Shape, Stack, call, evaluated, example
from ravine.randomness import generator, key

__all__ = ["build", "build_loss", "initialise", "kind_of", "layout", "mark_idle_layers"]

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # of a name: in_proj_bias, attentionBias
_A_NORM = re.compile(r"Norm(\d*d)?$")  # RMSNorm, LayerNorm2d
_LOSSES = {
    "classification": "cross_entropy",
    "sequence": "cross_entropy",
    "regression": "squared",
    "multilabel": "binary_cross_entropy",
}


def build(
    part: Part | str | dict[str, Any],
    shape: Shape,
    outputs: int,
    *,
    vocabulary: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    batch: Tensor | Callable[[], Tensor] | None = None,
) -> nn.Module:
    """The module of a recipe's model part, its parameters a function of the seed alone.

    Everything is drawn in float64 and then cast, so float32 and float64 agree. ``vocabulary`` fills
    the fields of that name which were left open; ``batch`` are inputs for data-dependent
    initialisers (lsuv), or what makes them.

    >>> net = build("mlp", (4,), 3, seed=1)
    >>> bool((build("mlp", (4,), 3, seed=1)[1].weight == net[1].weight).all())
    True
    """
    made: Any = _with_vocabulary(_made("model", part), vocabulary)
    try:
        with torch.random.fork_rng(devices=[]), Room():
            module: nn.Module = call("model", made, shape, outputs)
    except InputError as error:
        raise error if error.where else error.under("model") from None
    module = module.double()
    initialise(
        module,
        made.init,
        seed,
        batch=partial(_unit_batch, module, shape, seed) if batch is None else batch,
    )
    return module.to(dtype)


def initialise(
    module: nn.Module,
    init: Init | None,
    seed: int,
    *,
    batch: Tensor | Callable[[], Tensor] | None = None,
) -> None:
    """Draw every parameter anew: torch's own defaults, then the named initialisers, a layer's own
    before the model's.

    Defaults come from each module's ``reset_parameters`` under a generator for (seed, module name),
    named initialisers from one for (seed, parameter name). Embedding tables and normalisation
    layers keep their defaults unless their own layer names an initialiser; a recurrent layer's
    gates are drawn one by one. A tied parameter is drawn once. ``batch``: inputs for data-dependent
    initialisers (lsuv), or what makes them.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for name, part in module.named_modules():
            reset = getattr(part, "reset_parameters", None) or getattr(
                part, "_reset_parameters", None
            )
            if callable(reset):
                torch.default_generator.manual_seed(key(seed, "init", name))
                reset()
        chosen = dict(_chosen(module, init))
        for name, (owner, parameter, technique) in chosen.items():
            _fill(name, owner, parameter, technique, seed)
        targets = {
            owner: technique for owner, _, technique in chosen.values() if technique.kind == "lsuv"
        }
        if targets:
            inputs = batch() if callable(batch) else batch
            if inputs is None:
                raise InputError(
                    "model.init",
                    got="lsuv",
                    expected="inputs to scale layers by",
                    repair="use he_normal",
                )
            _unit_variance(module, targets, inputs)


def build_loss(
    part: Part | str | dict[str, Any], task: str | None, *, counts: Sequence[int] | None = None
) -> nn.Module:
    """The loss module of a recipe's loss part.

    ``counts`` are the samples of each class in the training part, for balanced class weights.

    >>> type(build_loss("auto", "classification")).__name__
    'CrossEntropy'
    """
    made: Any = _made("loss", part)
    if made.kind == "auto" and task in _LOSSES:
        made = make("loss", {**made.model_dump(exclude_unset=True), "kind": _LOSSES[task]})
    loss: Any = call("loss", made)
    if not isinstance(loss, SampleLoss):
        annotations = made.technique.fields
        members = [
            n for n, (a, _) in annotations.items() if MEMBER in getattr(a, "__metadata__", ())
        ]
        loss = OwnLoss(copy.deepcopy(loss), task, members)
    weights = class_weights(made.class_weights, counts)
    if weights is not None:
        if not loss.weighable:
            raise InputError("loss.class_weights", got=made.kind, expected="a loss over classes")
        loss.class_weights = weights
        loss.divides_by_weights = made.class_weights_divisor == "weights"
    return loss


def kind_of(module: nn.Module, name: str) -> str:
    """``"weight"``, ``"bias"`` or ``"norm"``, by the module that owns the parameter of this name;
    only weights are decayed.

    All parameters of a normalisation, and the slopes of an activation, are "norm". A bias has the
    word in its name (``bias``, ``in_proj_bias``, ``bias_hh_l0``), or is a vector called ``b``.

    >>> kind_of(nn.MultiheadAttention(4, 2), "in_proj_bias"), kind_of(nn.LayerNorm(4), "weight")
    ('bias', 'norm')
    """
    vector = getattr(module, name).dim() < 2
    # the slopes of an activation (PReLU) are scales too: not decayed (He et al., 2015)
    if traits(module) & (Trait.NORMALISES | Trait.ACTIVATION):
        return "norm"
    if vector and _A_NORM.search(type(module).__name__):  # a person's own
        return "norm"
    words = {word.lower() for word in _WORDS.findall(name)}
    return "bias" if "bias" in words or (vector and "b" in words) else "weight"


def layout(module: nn.Module) -> Layout:
    """The columns of a row of theta: parameters that require gradients, tied ones once, layers
    counted from the input.

    >>> [(e.name, e.kind, e.layer) for e in layout(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))).entries]
    [('0.weight', 'weight', 0), ('1.weight', 'weight', 1), ('0.bias', 'bias', 0), ('1.bias', 'bias', 1)]
    """
    rows, unit_axes = [], {}
    places: dict[tuple[nn.Module, str], int] = {}
    for name, owner, parameter in _owned(module):
        if parameter.requires_grad:
            leaf = name.rpartition(".")[2]
            depth = (
                leaf.rpartition("_l")[2].partition("_")[0] if isinstance(owner, nn.RNNBase) else ""
            )
            layer = places.setdefault((owner, depth), len(places))
            rows.append((name, tuple(parameter.shape), kind_of(owner, leaf), layer))
            unit_axes[name] = getattr(owner, "unit_axes", 1)
    return Layout.of(rows, unit_axes)


def _owned(module: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """(full name, the module that owns it, parameter), each parameter once."""
    owners = {
        f"{prefix}.{leaf}" if prefix else leaf: owner
        for prefix, owner in module.named_modules()
        for leaf in owner._parameters
    }
    for name, parameter in module.named_parameters():
        yield name, owners[name], parameter


def _chosen(
    module: nn.Module, init: Init | None
) -> Iterator[tuple[str, tuple[nn.Module, nn.Parameter, Any]]]:
    """The named initialiser of each parameter that has one."""
    own = {
        f"{prefix}.{child}" if prefix else child: layer_init
        for prefix, part in module.named_modules()
        if isinstance(part, Stack)
        for child, layer_init in part.inits.items()
    }
    for name, owner, parameter in _owned(module):
        layer = max((place for place in own if name.startswith(place + ".")), key=len, default=None)
        kind = kind_of(owner, name.rpartition(".")[2])
        asked = [own[layer]] if layer is not None else []
        if kind != "norm" and not isinstance(owner, nn.Embedding) and init is not None:
            asked.append(init)
        field = (
            "weights"
            if kind == "weight" or (kind == "norm" and name.endswith("weight"))
            else "biases"
        )
        technique = next((found for i in asked if (found := getattr(i, field)) is not None), None)
        if technique is not None:
            yield name, (owner, parameter, technique)


def _fill(name: str, owner: nn.Module, parameter: nn.Parameter, technique: Part, seed: int) -> None:
    draws = generator(seed, "init", name)
    drawn = torch.empty(parameter.shape, dtype=torch.float64)
    for block in _blocks(owner, drawn):
        try:
            call("initializer", technique, block, _fans(owner, block), draws)
        except InputError as error:
            raise error.under(f"model.init ({name})") from None
        except (RuntimeError, OverflowError) as error:  # torch's: to-from exceeds the limit
            expected, repair = "numbers that its draws can hold", first_line(error)[:200]
            raise InputError(f"model.init ({name})", expected=expected, repair=repair) from None
    parameter.copy_(drawn)


def _blocks(owner: nn.Module, drawn: Tensor) -> Sequence[Tensor]:
    """The parts that are drawn one by one: the gates of a recurrent layer, the kernels of an untied
    convolution."""
    if isinstance(owner, LocallyConnected) and drawn.dim() == 3:
        return drawn.unbind(0)
    return drawn.chunk({nn.LSTM: 4, nn.GRU: 3}.get(type(owner), 1))


def _fans(owner: nn.Module, block: Tensor) -> tuple[int, int]:
    """fan_in and fan_out of a weight [out, in, kernel...], in groups [out, in / groups, kernel...];
    of a bias, its own extent."""
    if isinstance(owner, LocallyConnected):
        return owner.fans
    if block.dim() < 2:
        return block.numel(), block.numel()
    area = block[0, 0].numel()
    if not isinstance(owner, nn.modules.conv._ConvNd):
        return block.shape[1] * area, block.shape[0] * area
    within = owner.groups  # one input reaches the outputs of its group alone
    if owner.transposed:  # stored as [in, out / groups, kernel...]
        return block.shape[0] // within * area, block.shape[1] * area
    return block.shape[1] * area, block.shape[0] // within * area


def _unit_variance(module: nn.Module, targets: dict[nn.Module, Any], batch: Tensor) -> None:
    """Scale the weights of the chosen layers, from the input on, until their outputs over the batch
    have variance 1."""

    def rescale(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        part = targets[layer]
        for _ in range(part.iterations):
            deviation = float(output.std())
            if abs(deviation**2 - 1) <= part.tolerance or deviation == 0:
                break
            layer.weight.div_(deviation)  # type: ignore[operator]
            output = layer.forward(*given)
        return output

    kinds = (nn.Linear, nn.modules.conv._ConvNd, LocallyConnected)
    hooks = [layer.register_forward_hook(rescale) for layer in targets if isinstance(layer, kinds)]
    with evaluated(module):
        module(batch.double() if batch.is_floating_point() else batch)
    for hook in hooks:
        hook.remove()


def _unit_batch(module: nn.Module, shape: Shape, seed: int, size: int = 256) -> Tensor:
    """Stand-ins for data: standard normal inputs, or uniform symbols for an embedding."""
    batch, draws = example(module, shape, size), generator(seed, "init", "batch")
    if batch.is_floating_point():
        return batch.normal_(generator=draws)
    table = next(m for m in module.modules() if isinstance(m, nn.Embedding))
    return batch.random_(0, table.num_embeddings, generator=draws)


def _made(kind: str, part: Part | str | dict[str, Any]) -> Part:
    try:
        return make(kind, part)
    except InputError as error:
        raise error.under(kind) from None


def _with_vocabulary(part: Part, vocabulary: int | None) -> Part:
    """The part with the data's vocabulary in each ``vocabulary`` field that was left open, nested
    layers included."""
    if vocabulary is None:
        return part
    changes: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if name == "vocabulary" and value is None:
            changes[name] = vocabulary
        elif isinstance(value, Part):
            changes[name] = _with_vocabulary(value, vocabulary)
        elif isinstance(value, tuple) and any(isinstance(item, Part) for item in value):
            changes[name] = tuple(
                _with_vocabulary(item, vocabulary) if isinstance(item, Part) else item
                for item in value
            )
    return part.model_copy(update=changes) if changes else part


def class_weights(
    weights: str | Sequence[float] | None, counts: Sequence[int] | None
) -> Tensor | None:
    """The weight of each class [K], float64; ``counts`` are those of the training part."""
    if weights is None:
        return None
    if weights != "balanced":
        if counts is not None and len(counts) != len(weights):
            raise InputError(
                "loss.class_weights",
                got=f"{len(weights)} weights",
                expected=f"{len(counts)}, one for each class",
            )
        return torch.tensor(weights, dtype=torch.float64)
    if counts is None:
        raise InputError(
            "loss.class_weights",
            got="balanced",
            expected="class targets, whose counts give the weights",
        )
    number = torch.as_tensor(counts, dtype=torch.float64)
    return number.sum() / (len(number) * number.clamp_min(1))
