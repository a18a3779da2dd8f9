"""Signals before training: how activations and gradients change with depth, for initialisers and
activations, beside theory."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from ravine.catalogue import find, make, table
from ravine.data.pipeline import Pipeline
from ravine.engine.programs import objective
from ravine.errors import InputError, unknown
from ravine.nn.analysis.traits import Trait, traits
from ravine.randomness import key
from ravine.recipe import Recipe
from ravine.study import measuring
from ravine.study.declare import Conclusion, OfRecipe, study
from ravine.study.directory import Study
from ravine.study.signals.figures import page_of
from ravine.study.signature import Depth, Names, Several

SATURATED = 0.02  # a derivative below this part of its largest value is saturated
BINS = 41
MANY = 0.1  # of the values: so many exact zeros are left out of a histogram
WEIGHTED = Trait.DENSE | Trait.CONVOLUTION
PROBED = 4  # samples on which modules are tried
NODES, FINEST, REACH = 4000, 1e-4, 12.0  # of Gaussian integrals: points, and sizes in deviations


@dataclass
class LayerSignal:
    """What one linear layer and the activation after it carry."""

    name: str
    linear: nn.Module
    activation: nn.Module | None = None
    z: Tensor = field(default_factory=lambda: torch.empty(0))  # before the activation
    a: Tensor = field(default_factory=lambda: torch.empty(0))  # after it
    before: Tensor = field(default_factory=lambda: torch.empty(0))  # the activation's own input
    gradient: Tensor = field(default_factory=lambda: torch.empty(0))  # of the loss by z


@study
def signals(
    study: Study,
    recipe: Recipe,
    *,
    initializers: Names = ("glorot_normal", "he_normal", "normal:0.01", "normal:0.3"),
    activations: Names = ("tanh", "relu", "sigmoid"),
    depth: Depth = 10,
    width: Several = 256,
    samples: Several = 256,
    **common: Unpack[OfRecipe],
) -> Conclusion:
    """Before training: activations and gradients by depth for initialisers and activations, theory
    beside.

    One batch goes through untrained networks, forward and back. Every pair of initialiser and
    activation makes a network of ``depth`` dense layers of ``width`` units on the recipe's data;
    ``depth=0`` takes the recipe's own model, with its own activations, under each initialiser.
    ``normal:0.01`` is the normal initialiser with that standard deviation.

    Every module that works entry by entry, and not linearly, is an activation, built in or not; what
    is measured lies after it. Theory (dashed): for wide layers z_l is normal with variance q_l = fan_in E[w^2]
    E[phi(sqrt(q_{l-1}) u)^2] + E[b^2], u standard normal, and the gradient's variance grows
    backwards by fan_out E[w^2] E[phi'(sqrt(q_l) u)^2] a layer. Glorot keeps both for slopes of one
    at zero, He for ReLU.

    Args:
        initializers (--init): Initialisers by commas: he_normal,normal:0.01.
        activations (--activation): Activations by commas: relu,leaky_relu:0.3.
        depth: Dense layers; 0: the recipe's own model.
        width: Units of each layer.
        samples: Samples of the batch.

    Source: Glorot and Bengio, 2010; He et al., 2015; Poole et al., 2016; Schoenholz et al., 2017.
    """
    if depth == 1:
        raise InputError("--depth", got=depth, expected="at least 2 layers, or 0 for the own model")
    pairs = [(i, a) for a in (activations if depth else ["own"]) for i in initializers]
    recipes = [_network(recipe, i, a, depth, width) for i, a in pairs]
    pipeline = measuring.pipeline_of(recipe, study.data)
    found = []
    for (initializer, activation), own in zip(pairs, recipes, strict=True):
        layers = passed(own, pipeline, samples, study.model if callable(study.model) else None)
        found.append(
            {
                "initializer": initializer,
                "activation": activation,
                "layers": [_statistics(layer) for layer in layers],
                "theory": theory(layers) if depth else None,
            }
        )
    return _conclude(study, found)


def _network(recipe: Recipe, initializer: str, activation: str, depth: int, width: int) -> Recipe:
    weights = _initializer(initializer)
    if not depth:
        return recipe.edit({"model.init": {"weights": weights}})
    return recipe.edit(
        {
            "model": {
                "kind": "mlp",
                "hidden": [width] * depth,
                "activation": make("layer", activation).explicit(),
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
        return make("initializer", {"kind": kind, name: float(number)}).explicit()
    except ValueError:
        raise InputError(
            "--init", got=text, expected="KIND or KIND:NUMBER, e.g. normal:0.01"
        ) from None


def passed(
    recipe: Recipe, pipeline: Pipeline, samples: int, module: Any = None
) -> list[LayerSignal]:
    """The layers of a recipe's untrained network after one batch has gone forward and back."""
    net = objective(recipe, pipeline, module, torch.float32)
    batch = next(pipeline.split("train", limit=samples, batch=samples))
    net.train()
    activations = _activations(net.model, batch.x)
    layers: list[LayerSignal] = []
    handles = [
        part.register_forward_hook(_recorder(name, activations, layers))
        for name, part in net.model.named_modules()
        if traits(part) & WEIGHTED or name in activations
    ]
    with torch.random.fork_rng(devices=[]):  # dropout draws from it
        torch.manual_seed(key(recipe.seed, "signals"))
        net(batch.x, batch.y).backward()
    for handle in handles:
        handle.remove()
    return layers


def _recorder(name: str, activations: set[str], layers: list[LayerSignal]) -> Any:
    """A forward hook: each call of a weighted layer begins a LayerSignal, the next activation belongs to
    it."""

    def linear(module: nn.Module, _: Any, output: Tensor) -> None:
        layer = LayerSignal(name, module, z=output.detach())
        layer.a = layer.z
        layers.append(layer)
        if output.requires_grad:
            output.register_hook(lambda gradient: setattr(layer, "gradient", gradient.detach()))

    def activation(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if layers and layers[-1].activation is None:
            layers[-1].activation, layers[-1].before = module, inputs[0].detach()
            layers[-1].a = output.detach()

    return activation if name in activations else linear


# --- what an activation is ------------------------------------------------------------------------


def _activations(model: nn.Module, x: Tensor) -> set[str]:
    """The names of a model's activations: modules that bend every entry alike, the outermost where
    one is made of others; and the few that are known to work on groups (softmax, maxout)."""
    trial = copy.deepcopy(model)  # so that neither buffers nor hooks of the model are touched
    inputs: dict[str, Tensor] = {}

    def seen(name: str) -> Any:
        def hook(_: nn.Module, given: Any, output: Any) -> None:
            if len(given) == 1 and isinstance(given[0], Tensor) and isinstance(output, Tensor):
                inputs[name] = given[0].detach()[:PROBED]

        return hook

    parts = dict(trial.named_modules())
    bare = {
        name: part
        for name, part in parts.items()
        if not any(traits(inner) & WEIGHTED for inner in part.modules())
    }
    handles = [part.register_forward_hook(seen(name)) for name, part in bare.items()]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        trial(x[:PROBED])
        for handle in handles:
            handle.remove()
        found = {
            name
            for name, given in inputs.items()
            if traits(parts[name]) & Trait.CROSS_ACTIVATION or is_elementwise(parts[name], given)
        }
    return {name for name in found if not any(name.startswith(f"{outer}.") for outer in found)}


def is_elementwise(module: nn.Module, x: Tensor) -> bool:
    """Whether a module is an activation: every output entry depends on its own input entry alone,
    in the same way in every sample, and not linearly. Found by trying, near inputs like x
    [N, ...].

    >>> x = torch.randn(4, 5)
    >>> is_elementwise(nn.GELU(), x), is_elementwise(nn.Softmax(-1), x), is_elementwise(nn.Dropout(), x)
    (True, False, False)
    """
    if not x.is_floating_point() or len(x) < 2:
        return False
    draw = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(x.shape, generator=draw, dtype=torch.float64)
    other = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    kept = torch.rand(x.shape, generator=draw) < 0.5
    module = copy.deepcopy(module).double()
    with torch.no_grad():
        try:
            y = module(x)
        except RuntimeError:
            return False  # it takes other inputs than it was seen to get, as layers of several members do
        if y.shape != x.shape or not torch.equal(module(x), y):
            return False  # it draws, or changes with each call
        # A kernel rounds the entries after its last full vector differently: so close, not equal.
        if not torch.allclose(module(torch.where(kept, x, other))[kept], y[kept], rtol=1e-9):
            return False  # an entry depends on others
        if not torch.allclose(module(x.flip(0)), y.flip(0), rtol=1e-9):
            return False  # a mask or noise that differs between samples
        bend = module(x + other) + module(0 * x) - y - module(other)
        return bool((bend.abs() > 1e-6 * (1 + y.abs())).any())


def _crosses(module: nn.Module | None) -> bool:
    """Whether an activation works on groups of entries, as softmax does."""
    return module is not None and Trait.CROSS_ACTIVATION in traits(module)


def _slopes(module: nn.Module, x: Tensor) -> Tensor:
    """The derivative of an elementwise module at every entry of x, in float64."""
    module = copy.deepcopy(module).double().eval()
    x = x.double().clone().requires_grad_()
    return torch.autograd.grad(module(x).sum(), x)[0]


def gaussian_moments(
    module: nn.Module | None, variance: float, shape: tuple[int, ...]
) -> tuple[float, float]:
    """E[phi(z)^2] and E[phi'(z)^2] for z normal with mean 0 and this variance, phi any elementwise
    module; ``shape`` is that of a sample, over which channels with slopes of their own are
    averaged.

    Midpoint rule in t for z = sd * 1e-4 sinh(t): it sees kinks and steps near zero however large
    the variance is.

    >>> [round(value, 4) for value in gaussian_moments(nn.ReLU(), 4.0, (1,))]
    [2.0, 0.5]
    """
    if module is None:
        return variance, 1.0
    end = math.asinh(REACH / FINEST)
    t = (torch.arange(NODES, dtype=torch.float64) + 0.5) * (2 * end / NODES) - end
    u = FINEST * torch.sinh(t)
    weights = torch.exp(-(u**2) / 2) * torch.cosh(t)
    weights /= weights.sum()
    z = (math.sqrt(variance) * u).view(-1, *(1 for _ in shape))
    module = copy.deepcopy(module).double().eval()
    if module(z).shape != z.shape:  # parameters of each channel
        z = z.expand(-1, *shape)
    z = z.clone().requires_grad_()
    y = module(z)
    (slope,) = torch.autograd.grad(y.sum(), z)
    second, derivative = (
        float(weights @ (values**2).flatten(1).mean(1)) for values in (y.detach(), slope)
    )
    return second, derivative


# --- what is measured -----------------------------------------------------------------------------


def _statistics(layer: LayerSignal) -> dict[str, Any]:
    a = layer.a.double()
    seen = a.numpy().ravel()
    if 0 < (seen == 0).mean() < 1 and (seen == 0).mean() > MANY:
        seen = seen[seen != 0]  # the half that is zero would flatten the rest
    counts, edges = np.histogram(seen, bins=BINS, range=tuple(np.percentile(seen, [0.2, 99.8])))
    n = len(a)  # a gradient of the mean loss is 1/n of a sample's
    dead, saturated = _idle(layer)
    return {
        "layer": layer.name,
        "activation mean": float(a.mean()),
        "activation variance": float(a.var()),
        "z variance": float(layer.z.double().var()),
        "gradient variance": float((layer.gradient.double() * n).var())
        if layer.gradient.numel()
        else None,
        "dead": dead,
        "saturated": saturated,
        "histogram": {"edges": edges, "density": counts},
    }


def _idle(layer: LayerSignal) -> tuple[float | None, float | None]:
    """The part of units whose derivative is zero for every sample, where one end of the activation
    is flat; the part of values where it is under 2 % of its largest, where both ends are."""
    if layer.activation is None or _crosses(layer.activation):
        return None, None
    x = layer.before
    slopes = _slopes(layer.activation, x).abs()
    middle = (
        torch.linspace(-10, 10, 2001).view(-1, *(1 for _ in x.shape[1:])).expand(-1, *x[0].shape)
    )
    largest = _slopes(layer.activation, middle).abs().amax()
    low, high = (
        _slopes(layer.activation, torch.full_like(x[:1], end)).abs().amax() for end in (-1e3, 1e3)
    )
    if max(low, high) < SATURATED * largest:
        return None, float((slopes < SATURATED * largest).double().mean())
    if min(low, high) > 0:
        return None, None
    axis = -1 if isinstance(layer.linear, nn.Linear) else 1
    units = slopes.movedim(axis, 0).flatten(1)
    return float((units == 0).all(1).double().mean()), None


# --- theory ---------------------------------------------------------------------------------------


def theory(layers: Sequence[LayerSignal]) -> dict[str, list[float]] | None:
    """Variances of z forward and of the gradient backward for wide layers, from the first layer's z
    and the last one's gradient; None where an activation does not work entry by entry."""
    if any(_crosses(layer.activation) for layer in layers):
        return None
    q = [float(layers[0].z.double().var())]
    slopes = []
    for before, layer in itertools.pairwise(layers):
        second, slope = gaussian_moments(before.activation, q[-1], tuple(before.z.shape[1:]))
        q.append(_gain(layer, 1) * second + _offset(layer))
        slopes.append(slope)
    back = [float((layers[-1].gradient.double() * len(layers[-1].z)).var())]
    for layer, slope in zip(reversed(layers), reversed(slopes), strict=False):
        back.append(back[-1] * _gain(layer, 0) * slope)
    return {"z variance": q, "gradient variance": back[::-1]}


def _gain(layer: LayerSignal, side: int) -> float:
    """fan_in (side 1) or fan_out (side 0) times the mean square of the weights."""
    weight: Tensor = layer.linear.weight.detach().double()  # type: ignore[operator]
    return weight.shape[side] * float((weight**2).mean())


def _offset(layer: LayerSignal) -> float:
    """The mean square of the biases."""
    bias = layer.linear.bias
    return 0.0 if bias is None else float((bias.detach().double() ** 2).mean())  # type: ignore[operator]


def _conclude(study: Study, found: list[dict[str, Any]]) -> Conclusion:
    if not all(one["layers"] for one in found):
        raise InputError(
            "recipe",
            got="a network without layers whose signals are followed",
            expected="one with dense, convolutional or recurrent layers of the catalogue",
            repair="--depth 10 follows a stack of dense layers on the same data",
        )
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
    return summary, page_of(study, summary)


def _percent(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(100 * max(known), 2) if known else None
