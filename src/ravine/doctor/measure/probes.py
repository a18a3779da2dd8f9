"""What is seen inside a network: each layer's outputs and gradients on one batch, through hooks
that are gone afterwards.

A probe never changes a number of the network: it looks at a copy, in its own random state. Only
numbers come back, no tensor is kept.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ravine.nn.analysis.output_layer import last_weighted
from ravine.nn.analysis.traits import Trait, flat_ends, observed_traits, traits
from ravine.nn.outputs import judged, shown

STEPWISE = 4.0  # times as long as its products a recurrent layer takes: one step after the other
_ACTIVATIONS = Trait.ACTIVATION | Trait.CROSS_ACTIVATION


@dataclass
class Layer:
    """One leaf module as it ran: what it is and what it gave on the probe samples."""

    name: str
    kind: str  # the class's name
    weighted: bool  # has a weight of at least two axes
    units: int
    shape: tuple[int, ...]
    traits: Trait
    mean: float
    std: float
    largest: float
    zero_units: float = 0.0  # fraction of units that are 0 on every probe sample
    flat: float = 0.0  # fraction of outputs at a flat end of a sigmoid or tanh
    reached: bool = True  # whether the weight has a gradient, be it zero
    gradient: float = 0.0  # root mean square of the weight's gradient
    weight: float = 0.0  # root mean square of the weight
    twins: float = (
        0.0  # fraction of units whose incoming weights and their gradients equal another unit's
    )
    input_std: float = 0.0
    # a unit's standard deviation from sample to sample, in the mean: what of the signal is left
    varies: float = 0.0
    products: float = 0.0  # multiplications of one sample, forwards


@dataclass
class Seen:
    """One probe: the layers in the order in which they ran, the output, the loss and whether all
    was finite."""

    layers: list[Layer]
    loss: float
    outputs: Tensor  # [n, ...] on the CPU, detached: numbers of the probe samples only
    finite: bool = True
    norm: float = 0.0  # of the whole gradient
    names: dict[str, int] = field(default_factory=dict)

    @property
    def weighted(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.weighted]

    @property
    def work(self) -> float:
        """Floating-point operations of one sample in training, forwards and backwards; those of
        recurrent layers counted by the time that they take."""
        times = (STEPWISE if Trait.RECURRENT in layer.traits else 1.0 for layer in self.layers)
        return 6.0 * sum(t * layer.products for t, layer in zip(times, self.layers, strict=True))

    def hidden(self) -> Iterator[tuple[Layer, Layer | None]]:
        """(weighted layer, the activation after it) for all weighted layers but the last."""
        places = [i for i, layer in enumerate(self.layers) if layer.weighted]
        for here, following in itertools.pairwise(places):
            acts = [x for x in self.layers[here + 1 : following] if x.traits & _ACTIVATIONS]
            yield self.layers[here], acts[0] if acts else None

    def head(self) -> list[Layer]:
        """What runs after the last weighted layer, activations only."""
        last = max((i for i, layer in enumerate(self.layers) if layer.weighted), default=-1)
        return [layer for layer in self.layers[last + 1 :] if layer.traits & _ACTIVATIONS]


Run = Callable[[nn.Module], tuple[Tensor, Tensor]]  # a network -> the loss, and what is shown of it


def look(model: nn.Module, loss: nn.Module, x: Tensor, y: Tensor) -> Seen:
    """Forward and backward on a copy of the network, without dropout, with batch statistics of
    these samples."""
    loss = copy.deepcopy(loss)

    def run(network: nn.Module) -> tuple[Tensor, Tensor]:
        output = network(x)
        return loss(judged(loss, output), y).mean(), shown(output)

    return look_at(model, run, x.device)


def look_at(model: nn.Module, run: Run, device: torch.device) -> Seen:
    """As ``look``, where ``run`` is what is done with the copy of the network."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.eval()
    for module in model.modules():
        if Trait.NORMALISES in traits(module):
            module.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return _look(model, run)


def _look(model: nn.Module, run: Run) -> Seen:
    layers: list[Layer] = []
    owners: list[nn.Module] = []
    handles = []
    for name, module in model.named_modules():
        if not list(module.children()) or isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            handles.append(module.register_forward_hook(_hook(name, layers, owners)))
    try:
        with torch.enable_grad():
            value, output = run(model)
            parameters = [p for p in model.parameters() if p.requires_grad]
            found = (
                torch.autograd.grad(value, parameters, allow_unused=True)
                if value.requires_grad
                else [None] * len(parameters)
            )
    finally:
        for handle in handles:
            handle.remove()
    gradients = {id(p): g for p, g in zip(parameters, found, strict=True)}
    for layer, owner in zip(layers, owners, strict=True):
        _weigh(layer, owner, gradients)
    square = sum(float(g.double().square().sum()) for g in found if g is not None)
    shown = output.detach().float().cpu()
    finite = bool(torch.isfinite(value)) and bool(torch.isfinite(shown).all()) and square == square
    return Seen(layers, float(value.detach()), shown, finite, square**0.5)


def _hook(name: str, layers: list[Layer], owners: list[nn.Module]) -> Any:
    def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        value = output[0] if isinstance(output, tuple) else output
        if (
            not isinstance(value, Tensor)
            or not value.is_floating_point()
            or value.dim() < 1
            or value.numel() == 0
        ):
            return
        layers.append(_measured(name, module, inputs[0] if inputs else None, value.detach()))
        owners.append(module)

    return hook


def _measured(name: str, module: nn.Module, given: object, value: Tensor) -> Layer:
    kind = type(module).__name__
    weighted = any(p.dim() >= 2 for p in module.parameters(recurse=False))
    unit_axis = -1 if value.dim() <= 3 else 1
    rows = (
        value.movedim(unit_axis, -1).reshape(-1, value.shape[unit_axis]).float()
    )  # [samples and places, units]
    layer = Layer(
        name,
        kind,
        weighted,
        rows.shape[-1],
        tuple(value.shape[1:]),
        observed_traits(module),
        float(rows.mean()),
        float(rows.std(correction=0)),
        float(rows.abs().max()),
    )
    if not weighted:
        layer.zero_units, layer.flat = _dead_and_flat(module, rows)
    layer.varies = float(rows.std(0, correction=0).mean())
    if isinstance(given, Tensor) and given.is_floating_point():
        layer.input_std = float(given.detach().float().std(correction=0))
    return layer


def _dead_and_flat(module: nn.Module, rows: Tensor) -> tuple[float, float]:
    """The share of units that are 0 in every row, and of outputs at the flat ends of a sigmoid or
    tanh; rows [N, units]."""
    flat = 0.0
    ends = flat_ends(module)
    if ends is not None:
        low, high = ends
        near = 0.02 * (high - low)
        flat = float(((rows < low + near) | (rows > high - near)).float().mean())
    return float((rows == 0).all(0).float().mean()), flat


def measured_layer(module: nn.Module, output: Tensor) -> dict[str, Any]:
    """What a watch keeps of an activation's output: numbers only."""
    kind, axis = type(module).__name__, -1 if output.dim() <= 3 else 1
    rows = output.detach()[:128].movedim(axis, -1).reshape(-1, output.shape[axis])
    dead, flat = _dead_and_flat(module, rows)
    rectifies = Trait.RECTIFIES in observed_traits(module)
    return {"kind": kind, "zero_units": dead if rectifies else 0.0, "flat": flat}


def _weigh(layer: Layer, owner: nn.Module, gradients: dict[int, Tensor | None]) -> None:
    weights = [p for p in owner.parameters(recurse=False) if p.dim() >= 2]
    if not weights:
        return
    weight = weights[0]
    gradient = gradients.get(id(weight))
    places = 1 if not layer.shape else math.prod(layer.shape) / layer.units
    layer.products = (
        0.0 if isinstance(owner, nn.Embedding) else places * sum(w.numel() for w in weights)
    )
    layer.weight = float(weight.detach().double().square().mean().sqrt())
    layer.reached = gradient is not None
    layer.gradient = 0.0 if gradient is None else float(gradient.double().square().mean().sqrt())
    rows = weight.detach().flatten(1)
    if gradient is not None:
        rows = torch.cat([rows, gradient.flatten(1)], 1)
    if len(rows) > 1 and not isinstance(owner, nn.RNNBase | nn.Embedding):
        mix = torch.rand(
            rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64
        ).to(rows.device)
        _, counts = torch.unique(
            (rows * mix).sum(1), return_counts=True
        )  # equal rows have equal sums
        layer.twins = float(counts[counts > 1].sum()) / len(rows)


# --- the last layer -------------------------------------------------------------------------------


def is_affine(model: nn.Module, x: Tensor) -> bool:
    """Whether what reaches the last weighted layer is an affine function of the inputs: halfway
    between two inputs lies the mean of their values.
    """
    model = copy.deepcopy(model).eval()
    last = last_weighted(model, x)
    embedding = next((m for m in model.modules() if isinstance(m, nn.Embedding)), None)
    if last is None or len(x) < 2 or x.is_floating_point() == (embedding is not None):
        return False
    seen: list[Tensor] = []
    handles = [
        last.register_forward_hook(
            lambda module, inputs, output: seen.append(inputs[0].detach().double())
        )
    ]
    given = x if embedding is None else embedding(x).detach()  # of tokens: their vectors
    parts: list[Tensor] = []
    if embedding is not None:
        handles.append(
            embedding.register_forward_hook(lambda module, inputs, output: parts[len(seen)])
        )
    noise = torch.randn(given.shape, generator=torch.Generator().manual_seed(0)).to(given)
    there, here = given + 3 * (given - given.mean(0)) + 3 * given.std() * noise, given.roll(1, 0)
    parts += [there, here, (there + here) / 2]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for part in parts:
                model(part if embedding is None else x)
    except Exception:  # it may read some inputs as places in a table
        return False
    finally:
        for handle in handles:
            handle.remove()
    if len(seen) != 3:
        return False
    a, b, middle = seen
    scale = float((a - b).abs().mean())
    off = float(((a + b) / 2 - middle).abs().mean())
    return scale > 1e-20 and off < 1e-4 * scale
