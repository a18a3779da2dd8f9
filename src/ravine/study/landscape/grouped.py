"""Several networks of one architecture as one: where each had its own convolution, all have one
grouped convolution.

Activations hold the P members one after another along the channels: [B, P C, H, W], or [B, P F]
where there are no positions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.engine.rows.population import Population, view
from ravine.nn.analysis.traits import Trait, traits
from ravine.nn.models.resnet import PadShortcut


class Grouped:
    """What P rows of a population give for the same inputs, in evaluation mode: [B, C, H, W] -> [P,
    B, K].

    The weights are views of theta, so whatever is written there counts at the next call.
    """

    def __init__(self, population: Population):
        self.members = len(population)
        entries = {
            e.name.removeprefix("model."): view(population.theta.detach(), e)
            for e in population.layout.entries
        }
        buffers = {
            name.removeprefix("model."): stacked for name, stacked in population.buffers.items()
        }
        model = copy.deepcopy(population.objectives[0].model)
        self.model = _replaced(model, "", {**entries, **buffers}, self.members).eval()

    @classmethod
    def takes(cls, model: nn.Module) -> bool:
        """Whether every layer is known, and convolutions over images are among them.

        >>> Grouped.takes(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
        True
        >>> Grouped.takes(nn.Sequential(nn.Linear(2, 2)))
        False
        """
        parts = list(model.modules())
        return any(type(part) is nn.Conv2d for part in parts) and all(map(_known, parts))

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = x.repeat(1, self.members, 1, 1).contiguous(memory_format=torch.channels_last)
            y = self.model(x)  # [B, P K]
            return y.view(len(x), self.members, -1).transpose(0, 1)


def _known(part: nn.Module) -> bool:
    if type(part) is nn.Conv2d:
        return part.padding_mode == "zeros"
    if type(part) is nn.BatchNorm2d:
        return part.track_running_stats
    if type(part) is nn.Flatten:
        return part.start_dim == 1 and part.end_dim == -1
    if type(part) in (nn.Linear, PadShortcut):
        return True
    own = any(True for _ in part.parameters(recurse=False))  # a point's own, by channel or not
    return Trait.CHANNELWISE in traits(part) and not own


def _replaced(module: nn.Module, name: str, stacked: dict[str, Tensor], members: int) -> nn.Module:
    """The module with every layer replaced that must keep the members separate."""
    layers: dict[type[nn.Module], type[_Members]] = {
        nn.Conv2d: _Convolution,
        nn.BatchNorm2d: _Norm,
        nn.Linear: _Dense,
        nn.Flatten: _Flatten,
        PadShortcut: _Shortcut,
    }
    if type(module) in layers:
        own = {
            path.rpartition(".")[2]: value
            for path, value in stacked.items()
            if path.rpartition(".")[0] == name
        }
        return layers[type(module)](module, own, members)
    for child, part in list(module.named_children()):
        setattr(module, child, _replaced(part, f"{name}.{child}".lstrip("."), stacked, members))
    return module


class _Members(nn.Module):
    """A layer of P members: the layer as it was, and its stacked parameters and buffers [P,
    ...]."""

    def __init__(self, layer: nn.Module, own: dict[str, Tensor], members: int):
        super().__init__()
        self.alone: tuple[Any] = (layer,)  # in a tuple: not a child of this module
        self.own, self.members = own, members

    def flat(self, name: str) -> Tensor | None:
        """[P, C, ...] -> [P C, ...]; None where the layer has no such parameter."""
        return self.own[name].flatten(0, 1) if name in self.own else None


class _Convolution(_Members):
    def forward(self, x: Tensor) -> Tensor:
        (conv,) = self.alone
        weight = self.own["weight"].flatten(0, 1)  # [P K, C, h, w]
        groups = self.members * conv.groups
        return F.conv2d(
            x, weight, self.flat("bias"), conv.stride, conv.padding, conv.dilation, groups
        )


class _Norm(_Members):
    def forward(self, x: Tensor) -> Tensor:
        (norm,) = self.alone
        mean, variance = self.own["running_mean"].flatten(), self.own["running_var"].flatten()
        return F.batch_norm(
            x, mean, variance, self.flat("weight"), self.flat("bias"), False, 0.0, norm.eps
        )


class _Dense(_Members):
    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x), self.members, -1).transpose(0, 1)  # [P, B, F]
        y = rows @ self.own["weight"].transpose(1, 2)
        if "bias" in self.own:
            y = y + self.own["bias"][:, None]
        return y.transpose(0, 1).flatten(1)


class _Flatten(_Members):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)


class _Shortcut(_Members):
    def forward(self, x: Tensor) -> Tensor:
        apart = x.unflatten(1, (self.members, -1))  # [B, P, C, H, W]
        (shortcut,) = self.alone
        thinned = apart[..., :: shortcut.stride, :: shortcut.stride]
        padded = F.pad(thinned, (0, 0, 0, 0, 0, shortcut.more))
        return padded.flatten(1, 2).contiguous(memory_format=torch.channels_last)
