"""Transforms: modules of buffers, fitted to the training part, kept with the run, restored without
the data.

A transform is its class, its plain ``settings`` and its buffers; ``pack`` takes a chain of them
apart and ``unpack`` builds it again. The classes are a closed table, so nothing that is stored can
name another object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import InputError

_KINDS: dict[str, type[Transform]] = {}


class Transform(nn.Module):
    """Rows in, rows out. ``inverse`` undoes ``forward`` where that can be."""

    def __init__(self, settings: Mapping[str, Any] | None = None, **buffers: Tensor):
        super().__init__()
        self.settings = dict(settings or {})
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def __init_subclass__(cls) -> None:
        _KINDS[cls.__name__] = cls

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def inverse(self, y: Tensor) -> Tensor:
        raise InputError(
            "preprocess", got=type(self).__name__, expected="a transform that can be undone"
        )


class Affine(Transform):
    """(x - shift) * scale, entry by entry; shift and scale broadcast against one row."""

    shift: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) * self.scale

    def inverse(self, y: Tensor) -> Tensor:
        return y / self.scale + self.shift


class SmoothClip(Transform):
    """z / sqrt(1 + (z / c)^2) with z = (x - shift) * scale: within (-c, c), nearly z in the middle."""

    shift: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        z = (x - self.shift) * self.scale
        limit = self.settings["limit"]
        return z / (1 + (z / limit).square()).sqrt() if limit else z

    def inverse(self, y: Tensor) -> Tensor:
        limit = self.settings["limit"]
        z = y / (1 - (y / limit).square()).clamp(min=1e-12).sqrt() if limit else y
        return z / torch.where(self.scale == 0, 1.0, self.scale) + self.shift


class Power(Transform):
    """Yeo and Johnson's transform with ``power`` for each feature. It saturates, so results outside
    [``low``, ``high``] are taken as these ends when it is undone."""

    power: Tensor
    low: Tensor
    high: Tensor

    def forward(self, x: Tensor) -> Tensor:
        p = self.power
        up, down = x.clamp(min=0), (-x).clamp(min=0)
        above = torch.where(p == 0, up.log1p(), ((up + 1) ** p - 1) / torch.where(p == 0, 1.0, p))
        q = 2 - p
        below = torch.where(
            q == 0, down.log1p(), ((down + 1) ** q - 1) / torch.where(q == 0, 1.0, q)
        )
        return torch.where(x >= 0, above, -below)

    def inverse(self, y: Tensor) -> Tensor:
        y = torch.minimum(torch.maximum(y, self.low), self.high)
        p = self.power
        up, down = y.clamp(min=0), (-y).clamp(min=0)
        q = 2 - p
        tiny = torch.finfo(y.dtype).tiny
        above = torch.where(
            p == 0,
            up.expm1(),
            (up * p + 1).clamp(min=tiny) ** (1 / torch.where(p == 0, 1.0, p)) - 1,
        )
        below = torch.where(
            q == 0,
            down.expm1(),
            (down * q + 1).clamp(min=tiny) ** (1 / torch.where(q == 0, 1.0, q)) - 1,
        )
        return torch.where(y >= 0, above, -below)


class Projection(Transform):
    """(x - mean) @ matrix on flattened rows; ``settings["shape"]`` is the shape of the result."""

    mean: Tensor  # [D]
    matrix: Tensor  # [D, k]
    back: Tensor  # [k, D]

    def forward(self, x: Tensor) -> Tensor:
        return ((x.flatten(1) - self.mean) @ self.matrix).unflatten(1, self.settings["shape"])

    def inverse(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.back + self.mean).unflatten(1, self.settings["raw_shape"])


class PerSample(Transform):
    """Each sample by its own mean and standard deviation, over ``settings["over"]``; NaN (padding)
    is passed over."""

    def forward(self, x: Tensor) -> Tensor:
        over = self.settings["over"]
        gaps = torch.isnan(x)
        count = (~gaps).sum(over, keepdim=True).clamp(min=1)
        mean = torch.nansum(x, over, keepdim=True) / count
        apart = x - mean
        deviation = (torch.nansum(apart.square(), over, keepdim=True) / count).sqrt()
        out = apart if self.settings["center"] else x
        return out / (deviation + self.settings["epsilon"]) if self.settings["scale"] else out


class OneHot(Transform):
    """Whole numbers [N, D] -> one-hot columns side by side, [N, sum K_d]; what was not seen in
    training gives zeros."""

    categories: Tensor  # [D, K], NaN after a column's last
    places: Tensor  # [sum K_d] which of the D * K comparisons are columns of the result

    def forward(self, x: Tensor) -> Tensor:
        equal = x[..., None] == self.categories
        return equal.flatten(1)[:, self.places].to(self.categories.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        equal = y.new_full((len(y), self.categories.numel()), -1.0)
        equal[:, self.places] = y
        best = equal.view(len(y), *self.categories.shape).argmax(2)
        return self.categories.gather(1, best.T).T


class OneHotSteps(Transform):
    """Tokens [N, T] -> [N, T, V]; tokens from V on give zeros."""

    values: Tensor  # [V]

    def forward(self, x: Tensor) -> Tensor:
        return (x[..., None] == self.values).to(self.values.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        return self.values[y.argmax(-1)]


class Polynomial(Transform):
    """Products of columns; ``factors`` [outputs, degree] names them, D for the constant 1."""

    factors: Tensor

    def forward(self, x: Tensor) -> Tensor:
        columns = torch.cat([x, x.new_ones(len(x), 1)], 1)
        product = columns[:, self.factors[:, 0]]
        for place in range(1, self.factors.shape[1]):
            product = product * columns[:, self.factors[:, place]]
        return product

    def inverse(self, y: Tensor) -> Tensor:
        return y[:, : self.settings["features"]]  # the first degree comes first


class Fourier(Transform):
    """sqrt(2 / k) cos(x W + b) on flattened rows."""

    matrix: Tensor  # [D, k]
    phase: Tensor  # [k]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(x.flatten(1) @ self.matrix + self.phase) * (2 / len(self.phase)) ** 0.5


# Transforms that leave each feature in its place.
FEATURE_WISE = (Affine, SmoothClip, Power)


class Chain(nn.ModuleList):
    """Transforms one after the other."""

    @property
    def transforms(self) -> list[Transform]:
        return list(self)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for transform in self:
            x = transform(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for transform in reversed(self.transforms):
            y = transform.inverse(y)
        return y


def fused(chain: Chain) -> Chain:
    """The same map with neighbouring affine maps made one."""
    short: list[Transform] = []
    for transform in chain.transforms:
        first = short[-1] if short else None
        if isinstance(transform, Affine) and isinstance(first, Affine):
            short.pop()
            # ((x - a) k - b) m = (x - (a + b / k)) (k m)
            transform = Affine(
                shift=first.shift + transform.shift / first.scale,
                scale=first.scale * transform.scale,
            )
        short.append(transform)
    return Chain(short)


def pack(chain: Chain, prefix: str) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The buffers of a chain by name, and what else is needed to build it again."""
    tensors: dict[str, Tensor] = {}
    plain = []
    for place, transform in enumerate(chain.transforms):
        buffers = dict(transform.named_buffers())
        tensors |= {
            f"{prefix}.{place}.{name}": value.cpu().contiguous() for name, value in buffers.items()
        }
        plain.append(
            {
                "kind": type(transform).__name__,
                "settings": transform.settings,
                "buffers": sorted(buffers),
            }
        )
    return tensors, plain


def unpack(tensors: Mapping[str, Tensor], plain: Iterable[Mapping[str, Any]], prefix: str) -> Chain:
    """The chain that ``pack`` took apart.

    >>> chain = Chain([Affine(shift=torch.tensor(2.0), scale=torch.tensor(0.5))])
    >>> unpack(*pack(chain, "inputs"), "inputs")(torch.tensor([4.0]))
    tensor([1.])
    """
    built = []
    for place, row in enumerate(plain):
        if row["kind"] not in _KINDS:
            raise InputError(
                "preprocess", got=row["kind"], expected=f"one of {', '.join(sorted(_KINDS))}"
            )
        buffers = {name: tensors[f"{prefix}.{place}.{name}"] for name in row["buffers"]}
        built.append(_KINDS[row["kind"]](row["settings"], **buffers))
    return Chain(built)
