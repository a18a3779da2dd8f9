"""Signals before training: how activations and gradients change with depth, for initialisers and
activations, beside theory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine.catalogue import find, make, table
from ravine.data.pipeline import Pipeline
from ravine.engine.programs import objective
from ravine.errors import InputError, unknown
from ravine.randomness import key
from ravine.recipe import Recipe
from ravine.study import measuring
from ravine.study.directory import Study

INITIALIZERS = ("glorot_normal", "he_normal", "normal:0.01", "normal:0.3")
ACTIVATIONS = ("tanh", "relu", "sigmoid")
SATURATED = 0.02  # a derivative below this part of its largest value is saturated
BINS = 41


@dataclass
class Layer:
    """What one linear layer and the activation behind it carry."""

    name: str
    linear: nn.Module
    activation: nn.Module | None = None
    z: Tensor = field(default_factory=lambda: torch.empty(0))  # before the activation
    a: Tensor = field(default_factory=lambda: torch.empty(0))  # behind it
    gradient: Tensor = field(default_factory=lambda: torch.empty(0))  # of the loss by z


def signals(
    recipe: Recipe,
    *,
    initializers: Sequence[str] = INITIALIZERS,
    activations: Sequence[str] = ACTIVATIONS,
    depth: int | None = 10,
    width: int = 256,
    samples: int = 256,
    model: Any = None,
    data: Any = None,
    out: str | Path | None = None,
    quiet: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Send a batch through untrained networks and measure activations and gradients by depth; gives
    the study's summary.

    Every pair of initialiser and activation makes a network of ``depth`` dense layers of ``width``
    units on the recipe's data; ``depth=None`` takes the recipe's own model, with its own
    activations, under each initialiser. ``normal:0.01`` is the normal initialiser with that
    standard deviation.

    Theory (dashed): for wide layers z_l is normal with variance q_l = fan_in E[w^2]
    E[phi(sqrt(q_{l-1}) u)^2] + E[b^2], u standard normal, and the gradient's variance grows
    backwards by fan_out E[w^2] E[phi'(sqrt(q_l) u)^2] a layer. Glorot keeps both for slopes of one
    at zero, He for ReLU.

    Source: Glorot and Bengio, 2010; He et al., 2015; Poole et al., 2016; Schoenholz et al., 2017.
    """
    if depth is not None and (depth < 2 or width < 2):
        raise InputError("--depth and --width", got=[depth, width], expected="at least 2")
    pairs = [(i, a) for a in (activations if depth is not None else ["own"]) for i in initializers]
    recipes = [_network(recipe, i, a, depth, width) for i, a in pairs]
    options = {
        "initializers": list(initializers),
        "activations": list(activations),
        "depth": depth,
        "width": width,
        "samples": samples,
    }
    if samples < 2:
        raise InputError("--samples", got=samples, expected="a whole number of at least 2")
    study = Study.enter(
        "signals", recipe, options, out, model=model, data=data, quiet=quiet, command=command
    )
    pipeline = measuring.pipeline_of(recipe, data)
    found = []
    for (initializer, activation), own in zip(pairs, recipes, strict=True):
        layers = passed(own, pipeline, samples, model if callable(model) else None)
        found.append(
            {
                "initializer": initializer,
                "activation": activation,
                "layers": [_statistics(layer) for layer in layers],
                "theory": theory(layers) if depth is not None else None,
            }
        )
    return _conclude(study, found)


def _network(
    recipe: Recipe, initializer: str, activation: str, depth: int | None, width: int
) -> Recipe:
    weights = _initializer(initializer)
    if depth is None:
        return recipe.edit({"model.init": {"weights": weights}})
    find("layer", activation)
    return recipe.edit(
        {
            "model": {
                "kind": "mlp",
                "hidden": [width] * depth,
                "activation": activation,
                "init": {"weights": weights},
            }
        }
    )


def _initializer(text: str) -> dict[str, Any]:
    """``he_normal``, or a kind with its first number: ``normal:0.01``."""
    kind, _, number = text.partition(":")
    if kind not in table("initializer"):
        raise unknown("--init", kind, table("initializer"))
    part = find("initializer", kind)
    if not number:
        return {"kind": kind}
    name = "std" if "std" in part.fields else next(iter(part.fields), None)
    if name is None:
        raise InputError("--init", got=text, expected=f"{kind} alone: it has no numbers")
    try:
        return make("initializer", {"kind": kind, name: float(number)}).said()
    except ValueError:
        raise InputError(
            "--init", got=text, expected="KIND or KIND:NUMBER, e.g. normal:0.01"
        ) from None


def passed(recipe: Recipe, pipeline: Pipeline, samples: int, module: Any = None) -> list[Layer]:
    """The layers of a recipe's untrained network after one batch has gone forward and back."""
    net = objective(recipe, pipeline, module, torch.float32)
    layers = _layers(net.model)
    handles = [handle for layer in layers for handle in _watch(layer)]
    batch = next(pipeline.split("train", limit=samples, batch=samples))
    net.train()
    with torch.random.fork_rng(devices=[]):  # dropout draws from it
        torch.manual_seed(key(recipe.seed, "signals"))
        net(batch.x, batch.y).backward()
    for handle in handles:
        handle.remove()
    return layers


def _layers(model: nn.Module) -> list[Layer]:
    """Linear and convolutional layers, each with the activation that follows it."""
    layers: list[Layer] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            layers.append(Layer(name, module))
        elif layers and layers[-1].activation is None and _is_activation(module):
            layers[-1].activation = module
    return layers


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.activation"


def _watch(layer: Layer) -> list[Any]:
    def linear(_: nn.Module, __: Any, output: Tensor) -> None:
        layer.z = output.detach()
        layer.a = layer.z
        if output.requires_grad:
            output.register_hook(lambda gradient: setattr(layer, "gradient", gradient.detach()))

    def activation(_: nn.Module, __: Any, output: Tensor) -> None:
        layer.a = output.detach()

    handles = [layer.linear.register_forward_hook(linear)]
    if layer.activation is not None:
        handles.append(layer.activation.register_forward_hook(activation))
    return handles


def _statistics(layer: Layer) -> dict[str, Any]:
    a = layer.a.double()
    seen = a.numpy().ravel()
    if isinstance(layer.activation, nn.ReLU) and (seen > 0).any():
        seen = seen[seen > 0]  # the half that is zero would flatten the rest
    counts, edges = np.histogram(seen, bins=BINS, range=tuple(np.percentile(seen, [0.2, 99.8])))
    n = len(a)  # a gradient of the mean loss is 1/n of a sample's
    return {
        "layer": layer.name,
        "activation mean": float(a.mean()),
        "activation variance": float(a.var()),
        "z variance": float(layer.z.double().var()),
        "gradient variance": float((layer.gradient.double() * n).var())
        if layer.gradient.numel()
        else None,
        "dead": _dead(layer),
        "saturated": _saturated(layer),
        "histogram": {"edges": edges, "density": counts},
    }


def _dead(layer: Layer) -> float | None:
    """The part of units that are zero for every sample; for units that can be."""
    if not isinstance(layer.activation, nn.ReLU):
        return None
    units = layer.a.transpose(0, 1).flatten(1)
    return float((units == 0).all(1).double().mean())


def _saturated(layer: Layer) -> float | None:
    """The part of values where a bounded activation's derivative is under 2 % of its largest."""
    limits: dict[Any, float] = {
        nn.Sigmoid: 1 / (1 + math.exp(-5.3)),
        nn.Tanh: math.sqrt(1 - SATURATED),
    }
    limit = limits.get(type(layer.activation))
    if limit is None:
        return None
    a = layer.a if isinstance(layer.activation, nn.Tanh) else 2 * layer.a - 1
    bound = limit if isinstance(layer.activation, nn.Tanh) else 2 * limit - 1
    return float((a.abs() > bound).double().mean())


# --- theory ---------------------------------------------------------------------------------------


def theory(layers: Sequence[Layer]) -> dict[str, list[float]]:
    """Variances of z forward and of the gradient backward for wide layers, from the first layer's z
    and the last one's gradient."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    weights = weights / weights.sum()
    q = [float(layers[0].z.double().var())]
    for before, layer in itertools.pairwise(layers):
        u = torch.from_numpy(math.sqrt(q[-1]) * nodes)
        second = float((_phi(before, u).numpy() ** 2 * weights).sum())
        q.append(_gain(layer, 1) * second + _offset(layer))
    back = [float((layers[-1].gradient.double() * len(layers[-1].z)).var())]
    for place in range(len(layers) - 2, -1, -1):
        u = torch.from_numpy(math.sqrt(q[place]) * nodes).requires_grad_()
        (slope,) = torch.autograd.grad(_phi(layers[place], u).sum(), u)
        back.append(
            back[-1] * _gain(layers[place + 1], 0) * float((slope.numpy() ** 2 * weights).sum())
        )
    return {"z variance": q, "gradient variance": back[::-1]}


def _phi(layer: Layer, u: Tensor) -> Tensor:
    return u if layer.activation is None else layer.activation.double()(u)


def _gain(layer: Layer, side: int) -> float:
    """fan_in (side 1) or fan_out (side 0) times the mean square of the weights."""
    weight: Tensor = layer.linear.weight.detach().double()  # type: ignore[operator]
    return weight.shape[side] * float((weight**2).mean())


def _offset(layer: Layer) -> float:
    """The mean square of the biases."""
    bias = layer.linear.bias
    return 0.0 if bias is None else float((bias.detach().double() ** 2).mean())  # type: ignore[operator]


def _conclude(study: Study, found: list[dict[str, Any]]) -> dict[str, Any]:
    from ravine.study.pictures.signals import page_of

    table = []
    for one in found:
        hidden = one["layers"][:-1] or one["layers"]
        first, last = hidden[0], hidden[-1]
        grads = [layer["gradient variance"] for layer in hidden if layer["gradient variance"]]
        table.append(
            {
                "initializer": one["initializer"],
                "activation": one["activation"],
                "signal, last / first layer": math.sqrt(last["z variance"] / first["z variance"])
                if first["z variance"]
                else None,
                "gradient, first / last layer": math.sqrt(grads[0] / grads[-1])
                if grads and grads[-1]
                else None,
                "dead in %": _percent([layer["dead"] for layer in hidden]),
                "saturated in %": _percent([layer["saturated"] for layer in hidden]),
            }
        )
    summary = {"table": table, "networks": found}
    return study.finish(summary, page_of(study, summary))


def _percent(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(100 * max(known), 2) if known else None
