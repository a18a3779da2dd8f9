"""Layers that draw random numbers as pure functions of a key: any step can be entered without
replaying others.

The contract, in four lines. A random layer subclasses `Randomized`. The engine puts a key into the
layer's buffer ``key`` before each step, and the layer's draws are then functions of that key alone,
alike under ``torch.func.vmap`` and in a direct call. A layer whose key was never set draws from
PyTorch's global generator, as ``torch.nn`` does. A buffer that makes a layer the identity for one
value names it in ``idle_at``; ``mark_idle_layers`` spares the work where all members have it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ravine import randomness

_SELU_NEGATIVE = -1.7580993408473766  # the limit of SELU at minus infinity


class Randomized(nn.Module):
    """The base of random layers: ``key`` (int64 scalar, not saved) is what its draws depend on."""

    key: Tensor
    idle_at: tuple[str, float] | None = (
        None  # (buffer, value): with this value the layer does nothing
    )
    idle = False
    samples_axis = 0  # of what is drawn for
    part: tuple[int, int, int] | None = None  # of a batch: see ``drawing_part``

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)
        self._unset = self.key

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Randomized:
        set_before = self.keyed
        super()._apply(fn, recurse)
        if not set_before:
            self._unset = self.key
        return self

    @property
    def keyed(self) -> bool:
        """Whether somebody has put a key in place of the one that the layer was made with."""
        return self.key is not self._unset

    def uniform(self, shape: tuple[int, ...] | torch.Size, device: torch.device) -> Tensor:
        """float32 uniforms in [0, 1)."""
        if not self.keyed:
            return torch.rand(shape, device=device)
        return self._drawn(randomness.uniform, shape)

    def normal(self, shape: tuple[int, ...] | torch.Size, device: torch.device) -> Tensor:
        """float32 standard normals."""
        if not self.keyed:
            return torch.randn(shape, device=device)
        return self._drawn(randomness.normal, shape)

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...] | torch.Size) -> Tensor:
        """What the whole batch draws, of which this may be a part."""
        if self.part is None:
            return draw(self.key, shape)
        first, count, whole = self.part
        if self.samples_axis == 0:  # samples lie one behind the other
            return draw(self.key, shape, first * (math.prod(shape) // count))
        axis = self.samples_axis
        of_all = (*shape[:axis], whole, *shape[axis + 1 :])
        return draw(self.key, of_all).narrow(axis, first, count)


@contextmanager
def drawing_part(part: tuple[int, int, int]) -> Iterator[None]:
    """Within it random layers see a part of a batch, (first, count, whole) in samples, and draw for it
    what they would draw for it in the whole batch."""
    Randomized.part = part
    try:
        yield
    finally:
        Randomized.part = None


class Dropout(Randomized):
    """Zero each entry with probability ``rate`` while training.

    ``inverted`` divides the others by 1 - rate while training; ``classic`` multiplies all by 1 -
    rate in evaluation instead.
    """

    rate: Tensor
    idle_at = ("rate", 0.0)

    def __init__(self, rate: float = 0.5, classic: bool = False):
        super().__init__()
        self.register_buffer("rate", _number(rate), persistent=False)
        self.classic = classic

    inplace = False

    @property
    def p(self) -> float:
        """The rate under torch.nn.Dropout's name: networks of transformers read it for attention."""
        return float(self.rate)

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.idle:
            return x
        if not self.training:
            return x * (1 - self.rate).to(x.dtype) if self.classic else x
        kept = self.kept(self.mask_shape(x), x.device).to(x.dtype)
        if self.classic:
            return x * kept
        return x * (kept * (1 / (1 - self.rate).clamp_min(1e-12)).to(x.dtype))

    def kept(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """1 for what is kept, else 0."""
        if not self.keyed:
            return (torch.rand(shape, device=device) >= self.rate).float()
        return self._drawn(partial(randomness.at_least, self.rate), shape)

    def extra_repr(self) -> str:
        return f"rate={float(self.rate):g}" + (", classic" if self.classic else "")


class SpatialDropout(Dropout):
    """Zero whole channels: one draw for each sample and channel, x [B, C, ...]."""

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (*x.shape[:2], *(1 for _ in x.shape[2:]))


class AlphaDropout(Dropout):
    """Dropout for SELU networks: dropped entries take SELU's limit, an affine map restores mean and
    variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.idle or not self.training:
            return x
        kept = self.uniform(self.mask_shape(x), x.device) >= self.rate
        scale = ((1 - self.rate) * (1 + self.rate * _SELU_NEGATIVE**2)).clamp_min(1e-12).rsqrt()
        shift = -scale * self.rate * _SELU_NEGATIVE
        return (torch.where(kept, x, _SELU_NEGATIVE) * scale + shift).to(x.dtype)


class GaussianNoise(Randomized):
    """Add normal noise of standard deviation ``std`` while training."""

    std: Tensor
    idle_at = ("std", 0.0)

    def __init__(self, std: float = 0.1):
        super().__init__()
        self.register_buffer("std", _number(std), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.idle or not self.training:
            return x
        return x + (self.normal(x.shape, x.device) * self.std).to(x.dtype)

    def extra_repr(self) -> str:
        return f"std={float(self.std):g}"


_OURS: dict[type[nn.Module], type[Dropout]] = {
    nn.Dropout: Dropout,
    nn.Dropout1d: SpatialDropout,
    nn.Dropout2d: SpatialDropout,
    nn.Dropout3d: SpatialDropout,
    nn.AlphaDropout: AlphaDropout,
}


def seeded(module: nn.Module) -> nn.Module:
    """A copy of a person's module with stateless dropout in place of torch.nn's; parameters keep
    their names."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in _OURS:
                setattr(parent, name, _ours(child))
    return _ours(module) if type(module) in _OURS else module


def _ours(layer: Any) -> nn.Module:
    return _OURS[type(layer)](layer.p).train(layer.training)


def set_keys(module: nn.Module, *parts: int | str) -> None:
    """Give every random layer of a module its key: ``key(*parts, i)`` for the i-th."""
    layers = [layer for layer in module.modules() if isinstance(layer, Randomized)]
    for i, layer in enumerate(layers):
        layer.key = torch.tensor(randomness.key(*parts, i), device=layer.key.device)


def release(module: nn.Module) -> nn.Module:
    """Take all keys away: from here on the module behaves as torch.nn's layers do. Gives the module
    itself."""
    for layer in module.modules():
        if isinstance(layer, Randomized):
            layer.idle = False
            layer.key = layer._unset
    return module


def mark_idle_layers(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Spare the work of layers that do nothing in any member. ``buffers``: all members', by name
    ([P, ...]).

    >>> net = nn.Sequential(Dropout(0.0))
    >>> mark_idle_layers(net, dict(net.named_buffers())); net[0].idle
    True
    """
    for name, layer in module.named_modules():
        if getattr(layer, "idle_at", None):
            buffer, value = layer.idle_at
            full = f"{name}.{buffer}" if name else buffer
            layer.idle = bool((buffers[full] == value).all())


def monte_carlo(
    module: nn.Module, x: Tensor, samples: int = 100, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the outputs over draws of the random layers, all else in
    evaluation mode.

    Source: Gal and Ghahramani, "Dropout as a Bayesian approximation", 2016.

    >>> mean, std = monte_carlo(nn.Sequential(Dropout(0.5)), torch.ones(1, 4), samples=400)
    >>> bool(((mean - 1).abs() < 0.2).all() and ((std - 1).abs() < 0.1).all())
    True
    """
    module = copy.deepcopy(module).eval()
    for layer in module.modules():
        if isinstance(layer, Randomized):
            layer.train()
    outputs = []
    with torch.no_grad():
        for sample in range(samples):
            set_keys(module, seed, "monte_carlo", sample)
            outputs.append(module(x))
    drawn = torch.stack(outputs)  # [samples, B, ...]
    return drawn.mean(0), drawn.std(0, correction=0)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
