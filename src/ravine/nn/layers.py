"""Layers: dense, embedding, shape changes, dropout and noise, and blocks made of other layers.

Shapes are those of one sample. Features (F,); sequences (T, F), T time steps, or (T,) of whole
numbers; maps (C, L) or (C, H, W), channels first. Parameters start as torch.nn starts them, unless
``init`` of the layer or the model says otherwise.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ravine.catalogue import (
    Count,
    Flag,
    Integer,
    Layers,
    NonNegative,
    PerMember,
    Probability,
    Whole,
)
from ravine.errors import InputError
from ravine.nn.randomized import AlphaDropout, Dropout, GaussianNoise, SpatialDropout
from ravine.nn.stack import Shape, Stack, Tied, need_rank, stack


def dense(shape: Shape, *, units: Count, bias: Flag = True) -> nn.Module:
    """Fully connected layer: y = W x + b.

    (F,) -> (units,); sequences (T, F) -> (T, units), each step alone. ``bias = false`` leaves b out
    (before batch norm, for instance, where it has no effect). Parameters: weight [units, F], bias
    [units].

    Errors: the input is not a row of features (F,) or sequence (T, F).

    >>> dense((3,), units=2)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])

    Source: Rosenblatt, "The perceptron", 1958.
    """
    need_rank(
        shape,
        (1, 2),
        "features (F,) or sequences (T, F)",
        "put a flatten layer before the dense one",
    )
    return nn.Linear(shape[-1], units, bias=bias)


def flatten(shape: Shape) -> nn.Module:
    """All entries of a sample as one vector: (C, H, W) -> (C * H * W,).

    >>> flatten((2, 3, 3))(torch.zeros(5, 2, 3, 3)).shape
    torch.Size([5, 18])
    """
    return nn.Flatten()


def reshape(shape: Shape, *, to: tuple[Integer, ...]) -> nn.Module:
    """The entries of a sample in another shape; one extent may be -1, to be inferred.

    >>> reshape((12,), to=(3, -1))(torch.zeros(5, 12)).shape
    torch.Size([5, 3, 4])
    """
    return (
        nn.Unflatten(1, to) if len(shape) == 1 else nn.Sequential(nn.Flatten(), nn.Unflatten(1, to))
    )


def transpose(shape: Shape) -> nn.Module:
    """Swap the two axes of a sample: sequences (T, F) <-> maps (C, L), for a convolution after an
    embedding.

    Errors: a sample does not have two axes.

    >>> transpose((7, 3))(torch.zeros(5, 7, 3)).shape
    torch.Size([5, 3, 7])
    """
    need_rank(shape, (2,), "a sample of two axes", "only (T, F) and (C, L) can be transposed")
    return Transpose()


def embedding(shape: Shape, *, size: Count, vocabulary: Count | None = None) -> nn.Module:
    """A learned vector for each symbol: whole numbers (T,) -> (T, size).

    ``vocabulary`` is the number of symbols; none: that of the data. Parameters: weight [vocabulary,
    size], standard normal at first; an ``init`` of the model does not touch it, only one of the
    layer itself.

    Errors: neither ``vocabulary`` nor the data say the number of symbols.

    >>> embedding((7,), size=4, vocabulary=10)(torch.zeros(5, 7, dtype=torch.int64)).shape
    torch.Size([5, 7, 4])

    Source: Bengio et al., "A neural probabilistic language model", 2003.
    """
    if vocabulary is None:
        raise InputError(
            "vocabulary",
            expected="the number of symbols, for these data do not say it",
            repair="set vocabulary",
        )
    return nn.Embedding(vocabulary, size)


def dropout(
    shape: Shape,
    *,
    rate: PerMember[Probability] = 0.5,
    form: Literal["inverted", "classic"] = "inverted",
) -> nn.Module:
    """Zero each entry with probability ``rate`` while training.

    ``form`` inverted (default, as in PyTorch): y = x m / (1 - rate) in training, y = x in
    evaluation. classic (the paper): y = x m in training, y = (1 - rate) x in evaluation. m is 0
    with probability ``rate``, else 1, drawn for every entry. ``rate`` is the dropped fraction;
    texts that give a kept fraction p mean 1 - rate. ``ravine.nn.randomized.monte_carlo`` averages
    predictions over masks instead.

    >>> dropout((4,), rate=0.5).eval()(torch.ones(4))
    tensor([1., 1., 1., 1.])

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    2014.
    """
    return Dropout(rate, classic=form == "classic")


def spatial_dropout(shape: Shape, *, rate: PerMember[Probability] = 0.5) -> nn.Module:
    """Zero whole channels with probability ``rate`` while training, the others divided by 1 - rate:
    maps (C, ...).

    Errors: the input is not a map (C, H, W) or (C, L).

    >>> bool((spatial_dropout((8, 4, 4))(torch.ones(2, 8, 4, 4)).std((2, 3)) == 0).all())
    True

    Source: Tompson et al., "Efficient object localization using convolutional networks", 2015.
    """
    need_rank(shape, (2, 3, 4), "maps (C, L) or (C, H, W)", "use dropout for features")
    return SpatialDropout(rate)


def alpha_dropout(shape: Shape, *, rate: PerMember[Probability] = 0.1) -> nn.Module:
    """Dropout that keeps mean 0 and variance 1 after ``selu``: y = a (x m + s (1 - m)) + b, s =
    -1.7581.

    a = ((1 - rate) (1 + rate s^2))^(-1/2), b = -a rate s; y = x in evaluation.

    >>> alpha_dropout((4,)).eval()(torch.ones(4))
    tensor([1., 1., 1., 1.])

    Source: Klambauer et al., "Self-normalizing neural networks", 2017.
    """
    return AlphaDropout(rate)


def gaussian_noise(shape: Shape, *, std: PerMember[NonNegative] = 0.1) -> nn.Module:
    """Add normal noise of standard deviation ``std`` while training; as a first layer, noise on the
    inputs.

    >>> gaussian_noise((4,)).eval()(torch.ones(4))
    tensor([1., 1., 1., 1.])

    Source: Bishop, "Training with noise is equivalent to Tikhonov regularization", 1995.
    """
    return GaussianNoise(std)


def chain(shape: Shape, *, layers: Layers) -> nn.Module:
    """Several layers as one, for a branch of ``parallel``.

    >>> chain((3,), layers=({"kind": "dense", "units": 4}, "relu"))(torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """
    return stack(layers, shape, "layers")[0]


def residual(
    shape: Shape,
    *,
    layers: Layers,
    shortcut: Literal["auto", "identity", "projection", "none"] = "auto",
) -> nn.Module:
    """y = F(x) + S(x), F the layers given, S the shortcut.

    identity: S(x) = x. projection: a learned linear map to the shape of F(x): a strided 1x1
    convolution for maps, a dense layer for features. auto (default): identity where the shapes
    agree, else projection. none: y = F(x), the plain block. An activation after the sum is a layer
    after this one.

    Errors: the layers change the shape and ``shortcut`` does not make up for it.

    >>> residual((3,), layers=({"kind": "dense", "units": 3}, "relu"))(torch.zeros(5, 3)).shape
    torch.Size([5, 3])

    Source: He et al., "Deep residual learning for image recognition", 2016.
    """
    body, out = stack(layers, shape, "layers")
    if shortcut == "none":
        return body
    if shortcut == "identity" and out != shape:
        raise InputError(
            "shortcut",
            got=f"{shape} -> {out}",
            expected="layers that keep the shape",
            repair="use projection",
        )
    same = shortcut == "identity" or (shortcut == "auto" and out == shape)
    return Residual(body, nn.Identity() if same else _projection(shape, out))


def parallel(
    shape: Shape, *, layers: Layers, merge: Literal["concat", "sum"] = "concat", axis: Integer = 0
) -> nn.Module:
    """The same input through every layer of the list side by side; a branch of several layers is a
    ``chain``.

    ``merge`` concat (default) joins the outputs along ``axis`` of a sample (0: channels, or
    features), sum adds them. Behind it, heads of several targets go into the loss ``multi_task``.

    Errors: the branches end in shapes that cannot be merged.

    >>> parallel((3,), layers=({"kind": "dense", "units": 4}, {"kind": "dense", "units": 1}))(torch.zeros(5, 3)).shape
    torch.Size([5, 5])

    Source: Szegedy et al., "Going deeper with convolutions", 2015.
    """
    branches = [stack((part,), shape, f"layers.{i}") for i, part in enumerate(layers)]
    outs = [out for _, out in branches]
    if merge == "sum" and len(set(outs)) > 1:
        raise InputError(
            "layers",
            got=outs,
            expected="branches that end in one shape",
            repair="use merge = concat",
        )
    return Parallel(
        [branch for branch, _ in branches], merge == "concat", axis if axis < 0 else axis + 1
    )


def tied(shape: Shape, *, layer: Whole, transposed: Flag = False, bias: Flag = True) -> nn.Module:
    """Weight tying: the layer at place ``layer`` of the same list once more, with the same
    parameters.

    ``transposed`` applies its transpose: W^T x of a dense layer W, and the table's inner products E
    x of an embedding E, which makes the output weights of a language model its input embedding;
    ``bias`` adds a bias of its own then.

    >>> decoder = {"kind": "tied", "layer": 0, "transposed": True}
    >>> net = chain((4,), layers=({"kind": "dense", "units": 2}, "tanh", decoder))
    >>> sum(p.numel() for p in net.parameters()), net(torch.zeros(5, 4)).shape
    (14, torch.Size([5, 4]))

    Source: Press and Wolf, "Using the output embedding to improve language models", 2017.
    """
    return Tied(layer, transposed, bias)


class Transpose(nn.Module):
    """x [B, a, b] -> [B, b, a]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Residual(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: Stack, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Parallel(nn.Module):
    """Branches side by side, joined along an axis of the batch or added."""

    def __init__(self, branches: list[Stack], concat: bool, axis: int):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.concat, self.axis = concat, axis

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        return torch.cat(outputs, self.axis) if self.concat else torch.stack(outputs).sum(0)


def _projection(shape: Shape, out: Shape) -> nn.Module:
    if len(shape) == len(out) == 3:
        stride = (-(-shape[1] // out[1]), -(-shape[2] // out[2]))
        return nn.Conv2d(shape[0], out[0], 1, stride, bias=False)
    if len(shape) == len(out) == 1 or (len(shape) == len(out) == 2 and shape[0] == out[0]):
        return nn.Linear(shape[-1], out[-1], bias=False)
    if len(shape) == len(out) == 2:
        return nn.Conv1d(shape[0], out[0], 1, -(-shape[1] // out[1]), bias=False)
    raise InputError(
        "shortcut",
        got=f"{shape} -> {out}",
        expected="layers that keep the number of axes",
        repair="use none",
    )
