"""A list of layers as one module: each layer is told the shape that reaches it, and says so where it cannot take it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ravine.catalogue import Init, Part, find, make
from ravine.errors import InputError

Shape = tuple[int, ...]


class Stack(nn.Sequential):
    """Layers one behind the other; ``inits`` holds the initialisers that single layers ask for, by the layer's name."""

    def __init__(self, children: dict[str, nn.Module], inits: dict[str, Init]):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.inits = inits


def stack(parts: Sequence[Part | str | dict[str, Any]], shape: Shape, where: str = "model.layers") -> tuple[Stack, Shape]:
    """The layers as one module, and the shape of one sample behind them.

    Children are named by their place in the list. A ReLU right before a max pooling runs behind it: the same values and
    gradients on a fraction of the entries.
    """
    children: dict[str, nn.Module] = {}
    inits: dict[str, Init] = {}
    kinds: list[str] = []
    for i, part in enumerate(parts):
        try:
            part = make("layer", part)
            layer, shape = build_layer(part, shape, children)
        except InputError as error:
            raise error.under(f"{where}.{i}") from None
        children[str(i)] = layer
        kinds.append(part.kind)
        if part.init is not None:
            inits[str(i)] = part.init
    return Stack({str(i): children[str(i)] for i in _order(kinds)}, inits), shape


def call(kind: str, part: Part, *given: Any) -> Any:
    """A part's function on what its kind receives, with the technique's own fields."""
    technique = find(kind, part.kind)  # type: ignore[attr-defined]
    return technique.function()(*given, **{name: getattr(part, name) for name in technique.fields})


def build_layer(part: Part, shape: Shape, before: Mapping[str, nn.Module] | None = None) -> tuple[nn.Module, Shape]:
    """One layer and the shape of one sample behind it; ``before`` are the layers of the list that a tied one may name."""
    layer: nn.Module = call("layer", part, shape)
    if hasattr(layer, "bind"):
        layer.bind((before or {}).get(str(layer.place)))
    try:
        return layer, output_shape(layer, shape)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        said = str(error).strip().splitlines()[0]
        raise InputError(
            "", got=f"an input of shape {shape} for {part.kind}", expected="a shape that this layer can take", repair=said
        ) from None


def output_shape(module: nn.Module, shape: Shape) -> Shape:
    """The shape of one sample behind a module, from a run on the meta device: nothing is computed.

    >>> output_shape(nn.Conv2d(1, 8, 3), (1, 28, 28))
    (8, 26, 26)
    """
    state = {name: tensor.detach().to("meta") for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            output = functional_call(module, state, (example(module, shape, device="meta"),))
    finally:
        for m, mode in training.items():
            m.training = mode
    return tuple((output[0] if isinstance(output, tuple) else output).shape[1:])


def example(module: nn.Module, shape: Shape, batch: int = 1, device: str | torch.device = "cpu") -> Tensor:
    """A batch of zeros that the module takes: whole numbers where it begins with an embedding."""
    leaves = [m for m in module.modules() if not list(m.children())]
    if leaves and isinstance(leaves[0], nn.Embedding):
        return torch.zeros(batch, *shape, dtype=torch.int64, device=device)
    real = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
    return torch.zeros(batch, *shape, dtype=real, device=device)


def need_rank(shape: Shape, ranks: Sequence[int], expected: str, repair: str) -> None:
    """Refuse a shape of another rank."""
    if len(shape) not in ranks:
        raise InputError("", got=shape, expected=expected, repair=repair)


def by_rank(shape: Shape, choices: dict[int, Callable[..., nn.Module]], what: str) -> Callable[..., nn.Module]:
    """The class for one-dimensional (C, L) or two-dimensional (C, H, W) maps."""
    need_rank(shape, list(choices), f"maps of shape (C, L) or (C, H, W) for {what}", "put it before flatten and dense layers")
    return choices[len(shape)]


def _order(kinds: Sequence[str]) -> list[int]:
    order = list(range(len(kinds)))
    for i in range(len(kinds) - 1):
        if kinds[i] == "relu" and kinds[i + 1] == "maxpool":
            order[i], order[i + 1] = i + 1, i
    return order
