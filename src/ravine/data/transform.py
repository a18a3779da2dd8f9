"""Transforms: modules of buffers, fitted to the training part, kept with the run, restored without the data.

A transform is its class, its plain ``settings`` and its buffers; ``pack`` takes a chain of them apart and ``unpack`` builds it
again. The classes are a closed table, so nothing that is stored can name another object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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
        raise InputError("preprocess", got=type(self).__name__, expected="a transform that can be undone")


class Affine(Transform):
    """(x - shift) * scale, entry by entry; shift and scale broadcast against one row."""

    shift: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) * self.scale

    def inverse(self, y: Tensor) -> Tensor:
        return y / self.scale + self.shift


class Chain(nn.ModuleList):
    """Transforms one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        for transform in self:
            x = transform(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for transform in reversed(list(self)):
            y = transform.inverse(y)
        return y


def pack(chain: Iterable[Transform], prefix: str) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The buffers of a chain by name, and what else is needed to build it again."""
    tensors: dict[str, Tensor] = {}
    plain = []
    for place, transform in enumerate(chain):
        buffers = dict(transform.named_buffers())
        tensors |= {f"{prefix}.{place}.{name}": value.cpu().contiguous() for name, value in buffers.items()}
        plain.append({"kind": type(transform).__name__, "settings": transform.settings, "buffers": sorted(buffers)})
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
            raise InputError("preprocess", got=row["kind"], expected=f"one of {', '.join(sorted(_KINDS))}")
        buffers = {name: tensors[f"{prefix}.{place}.{name}"] for name in row["buffers"]}
        built.append(_KINDS[row["kind"]](row["settings"], **buffers))
    return Chain(built)
