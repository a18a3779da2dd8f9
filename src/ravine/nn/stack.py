"""A list of layers as one module: each layer is built for the shape of its input, and raises an error where
it cannot take it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.catalogue import Init, Part, make, table
from ravine.errors import InputError, first_line
from ravine.nn.chain import chained
from ravine.nn.padding import lengths_of

Shape = tuple[int, ...]


class Stack(nn.Sequential):
    """Layers one after the other; ``inits`` holds the initialisers that single layers ask for, by
    the layer's name.

    ``read_to_end``: so many of the first layers read padded sequences to their own end; recurrent
    ones among them get the lengths of the sequences that went in.
    """

    def __init__(
        self, children: dict[str, nn.Module], inits: dict[str, Init], read_to_end: int = 0
    ):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.inits, self.read_to_end = inits, read_to_end

    def forward(self, x: Any) -> Any:
        if not self.read_to_end:
            return chained(self, x)
        lengths = lengths_of(x)
        child: Any
        for i, child in enumerate(self):
            with_lengths = i < self.read_to_end and hasattr(child, "to_ends")
            x = child.to_ends(x, lengths) if with_lengths else child(x)
        return x


class Tied(nn.Module):
    """Another layer's weights at a second place; `stack` binds it to that layer, which alone owns
    the parameters."""

    source: tuple[Any]  # in a tuple: not a child of this module

    def __init__(self, place: int, transposed: bool, bias: bool):
        super().__init__()
        self.place, self.transposed, self.has_bias = place, transposed, bias
        self.bias: nn.Parameter | None = None

    def bind(self, source: nn.Module | None, shape: Shape) -> Shape:
        """Take the weights of ``source``; the shape after this layer."""
        if source is None:
            raise InputError(
                "layer", got=self.place, expected="the place of an earlier layer of the same list"
            )
        self.source = (source,)
        if not self.transposed:
            return output_shape(source, shape)
        if not isinstance(source, nn.Linear | nn.Embedding):
            raise InputError(
                "layer",
                got=type(source).__name__,
                expected="a dense layer or an embedding to transpose",
            )
        linear = isinstance(source, nn.Linear)
        given, width = source.weight.shape if linear else reversed(source.weight.shape)
        if shape[-1] != given:
            raise InputError(
                "", got=shape, expected=f"{given} features, what layer {self.place} gives"
            )
        if self.has_bias:
            self.bias = nn.Parameter(torch.zeros(width))
        return (*shape[:-1], width)

    def forward(self, x: Tensor) -> Tensor:
        source = self.source[0]
        if not self.transposed:
            return source(x)
        return F.linear(
            x, source.weight.t() if isinstance(source, nn.Linear) else source.weight, self.bias
        )


def stack(
    parts: Sequence[Part | str | dict[str, Any]], shape: Shape, where: str = "model.layers"
) -> tuple[Stack, Shape]:
    """The layers as one module, and the shape of one sample after them.

    Children are named by their place in the list. A ReLU right before a max pooling is computed after it:
    the same values and gradients on a fraction of the entries.
    """
    children: dict[str, nn.Module] = {}
    inits: dict[str, Init] = {}
    kinds: list[str] = []
    sequence = shape
    for i, given in enumerate(parts):
        try:
            part: Any = make("layer", given)
            layer, shape = build_layer(part, shape, children)
        except InputError as error:
            raise error.under(f"{where}.{i}") from None
        children[str(i)] = layer
        kinds.append(part.kind)
        if part.init is not None:
            inits[str(i)] = part.init
    reads = _read_to_end(kinds, children, sequence)
    return Stack({str(i): children[str(i)] for i in _order(kinds)}, inits, reads), shape


# layers that act on each step of a sequence alone, besides activations
_STEPWISE = ("embedding", "dense", "layer_norm", "dropout", "alpha_dropout", "gaussian_noise")


def _read_to_end(kinds: Sequence[str], children: Mapping[str, nn.Module], shape: Shape) -> int:
    """How many of the first layers read a padded sequence of this shape to its own end: up to the
    recurrent layer that gives its last state; 0 where other layers stand before it."""
    if len(shape) > 2 or (len(shape) == 1 and kinds[:1] != ["embedding"]):
        return 0
    for i, kind in enumerate(kinds):
        recurrent = hasattr(children[str(i)], "to_ends")
        if recurrent and getattr(children[str(i)], "last", False):
            return i + 1
        if not recurrent and kind not in _STEPWISE and not _activation(kind):
            return 0
    return 0


def _activation(kind: str) -> bool:
    known = table("layer").get(kind)
    return known is not None and known.module.endswith("activations")


def call(kind: str, part: Any, *given: Any) -> Any:
    """A part's function on what its kind receives, with the technique's own fields."""
    found = part.technique.function()(*given, **part.arguments)
    # a layer that was given as a module is every member's own
    return copy.deepcopy(found) if "copied" in part.technique.marks else found


def build_layer(
    part: Any, shape: Shape, before: Mapping[str, nn.Module] | None = None
) -> tuple[nn.Module, Shape]:
    """One layer and the shape of one sample after it; ``before`` are the layers that a tied one
    may name."""
    layer: nn.Module = call("layer", part, shape)
    if isinstance(layer, Tied):
        return layer, layer.bind((before or {}).get(str(layer.place)), shape)
    try:
        return layer, output_shape(layer, shape)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            "",
            got=f"an input of shape {shape} for {part.kind}",
            expected="a shape that this layer can take",
            repair=first_line(error),
        ) from None


def output_shape(module: nn.Module, shape: Shape) -> Shape:
    """The shape of one sample after a module, from a run on one sample of zeros.

    >>> output_shape(nn.Conv2d(1, 8, 3), (1, 28, 28))
    (8, 26, 26)
    """
    device = next((p.device for p in module.parameters()), None)
    with evaluated(module):
        output = module(example(module, shape, device=device))
    return tuple((output[0] if isinstance(output, tuple) else output).shape[1:])


@contextlib.contextmanager
def in_order(module: nn.Module) -> Iterator[None]:
    """Stacks run their layers in the order in which they were given, as people read them."""
    held = [(part, dict(part._modules)) for part in module.modules() if isinstance(part, Stack)]
    try:
        for part, children in held:
            part._modules = dict(sorted(children.items(), key=lambda item: int(item[0])))
        yield
    finally:
        for part, children in held:
            part._modules = children


@contextlib.contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and the modes as before afterwards."""
    parts = list(module.modules())
    training = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, mode in zip(parts, training, strict=True):
            part.training = mode


def example(
    module: nn.Module, shape: Shape, batch: int = 1, device: str | torch.device | None = None
) -> Tensor:
    """A batch of zeros that the module takes: whole numbers where it begins with an embedding."""
    leaves = [m for m in module.modules() if not list(m.children())]
    if leaves and isinstance(leaves[0], nn.Embedding):
        return torch.zeros(batch, *shape, dtype=torch.int64, device=device)
    real = next(
        (p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype()
    )
    return torch.zeros(batch, *shape, dtype=real, device=device)


def need_rank(shape: Shape, ranks: Sequence[int], expected: str, repair: str) -> None:
    """Refuse a shape of another rank."""
    if len(shape) not in ranks:
        raise InputError("", got=shape, expected=expected, repair=repair)


def by_rank(
    shape: Shape, choices: Mapping[int, Callable[..., nn.Module]], what: str
) -> Callable[..., nn.Module]:
    """The class for one-dimensional (C, L) or two-dimensional (C, H, W) maps."""
    need_rank(
        shape,
        list(choices),
        f"maps of shape (C, L) or (C, H, W) for {what}",
        "put it before flatten and dense layers",
    )
    return choices[len(shape)]


def _order(kinds: Sequence[str]) -> list[int]:
    order = list(range(len(kinds)))
    for i in range(len(kinds) - 1):
        if kinds[i] == "relu" and kinds[i + 1] == "maxpool":
            order[i], order[i + 1] = i + 1, i
    return order


def need_sequences(shape: Shape, ranks: tuple[int, ...]) -> None:
    """Refuse samples that are not sequences, for a model."""
    try:
        need_rank(
            shape,
            ranks,
            "sequences: (T,) of whole numbers" + (" or (T, F)" if 2 in ranks else ""),
            "reshape the data",
        )
    except InputError as error:
        raise error.under("model") from None


def symbols(vocabulary: int | None) -> int:
    """The number of symbols that an embedding holds."""
    if vocabulary is None:
        raise InputError(
            "model.vocabulary",
            expected="the number of symbols, for these data do not say it",
            repair="set vocabulary",
        )
    return vocabulary


def need_images(shape: Shape) -> None:
    """Refuse a model whose input is not an image (C, H, W)."""
    try:
        need_rank(
            shape,
            (3,),
            "images of shape (C, H, W)",
            "x[:, None] gives gray images their channel; tables want an mlp",
        )
    except InputError as error:
        raise error.under("model") from None
