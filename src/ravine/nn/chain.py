"""Layers one after the other, in which a batch normalisation and the ReLU behind it are one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

NormReLU = Callable[
    [nn.BatchNorm2d, Callable[[Tensor], Tensor], Tensor, Tensor | None], Tensor | None
]
# what computes `norm_relu` in one pass, for the thread that sets it; None where it leaves it to the layers
COMPILED: ContextVar[NormReLU | None] = ContextVar("norm_relu", default=None)


def watched(layer: object) -> bool:
    """Whether hooks look at what a layer takes and gives."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return _has_any_global_hook() or any(getattr(layer, name, None) for name in hooks)


def norm_relu(
    norm: nn.Module, relu: Callable[[Tensor], Tensor], x: Tensor, added: Tensor | None = None
) -> Tensor:
    """relu(norm(x) + added), by the layers or as one function that the engine brings."""
    compiled = COMPILED.get()
    if compiled is not None and type(norm) is nn.BatchNorm2d:
        found = compiled(norm, relu, x, added)
        if found is not None:
            return found
    y = norm(x)
    return relu(y if added is None else y + added)


def chained(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """What the layers give, one after the other."""
    waiting: nn.Module | None = None  # a batch normalisation, until it is known what follows
    for layer in layers:
        if waiting is not None and type(layer) is nn.ReLU:
            x, waiting = norm_relu(waiting, layer, x), None
            continue
        x = x if waiting is None else waiting(x)
        waiting = layer if type(layer) is nn.BatchNorm2d else None
        x = x if waiting is not None else layer(x)
    return x if waiting is None else waiting(x)


class Chain(nn.Sequential):
    """``nn.Sequential`` by `chained`."""

    def forward(self, x: Tensor) -> Tensor:
        return chained(self, x)
