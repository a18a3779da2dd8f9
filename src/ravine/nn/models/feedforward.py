"""Models of tables and images: ``shape`` of one sample, ``outputs`` numbers; classifiers give
logits.

Convolutional models take maps (C, H, W).
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from ravine.catalogue import Count, Layer, Layers, PerMember, Probability, Text, Widths, make
from ravine.errors import InputError
from ravine.nn.stack import Shape, need_images, stack


def layers(shape: Shape, outputs: int, *, layers: Layers) -> nn.Module:
    """A list of layers, each built for the shape of its input; parameters are named by the layer's
    place: ``0.weight``.

    The last layer's outputs are the model's. A relu right before a maxpool is computed after it: same
    values and gradients.

    >>> layers((4,), 2, layers=({"kind": "dense", "units": 8}, "relu", {"kind": "dense", "units": 2}))[0]
    Linear(in_features=4, out_features=8, bias=True)
    """
    return stack(layers, shape)[0]


def module(
    shape: Shape, outputs: int, *, name: Text = "module", code: Text | None = None
) -> nn.Module:
    """A module that was given in Python; a recipe can name it, not hold it. ``code`` is the sha256 of
    its source.

    Errors: always, in a recipe that is trained without ``model``.
    """
    raise InputError(
        "model",
        got=f"{name}, a module given in Python",
        expected="that module, which no file holds",
        repair="in Python ravine.resume(run, model=...); on the command line --with FILE.py, where it is defined",
    )


def linear(shape: Shape, outputs: int) -> nn.Module:
    """A linear model, s = W x + b: linear regression with ``squared``, softmax regression with
    ``cross_entropy``.

    >>> sum(p.numel() for p in linear((1, 8, 8), 10).parameters())
    650

    Source: Gauss, 1809 (least squares); Cox, "The regression analysis of binary sequences", 1958
    (logits).
    """
    return _stack(shape, "flatten", _dense(outputs))


def softmax(shape: Shape, outputs: int) -> nn.Module:
    """Softmax regression: the linear model, whose logits go into ``cross_entropy``.

    >>> sum(p.numel() for p in softmax((1, 8, 8), 10).parameters())
    650

    Source: Cox, "The regression analysis of binary sequences", 1958.
    """
    return linear(shape, outputs)


def mlp(
    shape: Shape,
    outputs: int,
    *,
    hidden: Widths = (128,),
    activation: Layer = "relu",
    dropout: PerMember[Probability] = 0.0,
    norm: Literal["none", "batch", "layer"] = "none",
) -> nn.Module:
    """Multi-layer perceptron: for each ``hidden`` width dense, ``norm``, ``activation``, dropout;
    then a dense layer.

    >>> mlp((1, 8, 8), 10, hidden=(32, 16))
    Stack(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=64, out_features=32, bias=True)
      (2): ReLU()
      (3): Dropout(rate=0)
      ...

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors",
    1986.
    """
    between = [] if norm == "none" else [f"{norm}_norm"]
    parts: list[object] = ["flatten"]
    for width in hidden:
        parts += [_dense(width), *between, activation, {"kind": "dropout", "rate": dropout}]
    return _stack(shape, *parts, _dense(outputs))


def maxout_mlp(
    shape: Shape,
    outputs: int,
    *,
    hidden: Widths = (128,),
    pieces: Count = 4,
    dropout: PerMember[Probability] = 0.5,
) -> nn.Module:
    """Perceptron of maxout units: each is the maximum of ``pieces`` linear functions; dropout
    after each layer.

    >>> sum(p.numel() for p in maxout_mlp((4,), 2, hidden=(3,), pieces=2).parameters())
    38

    Source: Goodfellow et al., "Maxout networks", 2013.
    """
    parts: list[object] = ["flatten"]
    for width in hidden:
        parts += [
            _dense(width * pieces),
            {"kind": "maxout", "pieces": pieces},
            {"kind": "dropout", "rate": dropout},
        ]
    return _stack(shape, *parts, _dense(outputs))


def lenet(
    shape: Shape,
    outputs: int,
    *,
    channels: Widths = (32, 64),
    kernel: Count = 5,
    dense: tuple[Count, ...] = (512,),
    padding: Literal["same", "valid"] = "same",
    activation: Layer = "relu",
    pool: Literal["maxpool", "avgpool"] = "maxpool",
    dropout: PerMember[Probability] = 0.0,
) -> nn.Module:
    """LeNet: convolution, activation and 2x2 pooling for each of ``channels``, then dense layers.

    The default is the modern form (5x5 kernels, 32 and 64 maps, 512 dense units); LeNet-5 as
    published has channels (6, 16), dense (120, 84), padding valid on 32x32 images, tanh and average
    pooling. ``dropout`` follows each dense layer.

    ``kernel`` is the convolutions' side, ``pool`` maxpool or avgpool.

    Errors: the input is not an image (C, H, W), or too small.

    >>> sum(p.numel() for p in lenet((1, 28, 28), 10).parameters())
    1663370

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    need_images(shape)
    parts: list[object] = []
    for width in channels:
        parts += [
            {"kind": "conv", "channels": width, "kernel": kernel, "padding": padding},
            activation,
            pool,
        ]
    parts += ["flatten"]
    for width in dense:
        parts += [_dense(width), activation, {"kind": "dropout", "rate": dropout}]
    return _stack(shape, *parts, _dense(outputs))


def alexnet(
    shape: Shape,
    outputs: int,
    *,
    size: Literal["auto", "full", "small"] = "auto",
    dropout: PerMember[Probability] = 0.5,
    version: Literal["paper", "later"] = "paper",
) -> nn.Module:
    """AlexNet: five convolutions, three overlapping 3x3 max poolings of stride 2, dense layers with
    dropout.

    ``size`` full, for images of at least 67 pixels: 96 maps 11x11 of stride 4, 256 maps 5x5, 384,
    384 and 256 maps 3x3, dense 4096 and 4096, response normalisation after the first two; one
    tower in place of the paper's two (whose second, fourth and fifth layers see half of the maps
    each: groups of 2). small, under 67 pixels: 64 maps 5x5 of stride 1, 192 maps 5x5, 384, 256 and
    256 maps 3x3, dense 1024 and 1024, every layer padded. auto chooses by the shorter side.
    ``dropout`` precedes each hidden dense layer. ``version`` later is the one that most code builds
    (torchvision's, 61.1 million parameters; Krizhevsky, "One weird trick", 2014): at full size
    64-192-384-256-256 maps without response normalisation, the first convolution padded by 2.

    Errors: the input is not an image (C, H, W), or too small.

    >>> sum(p.numel() for p in alexnet((3, 16, 16), 10).parameters())
    4560714

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
    networks", 2012.
    """
    need_images(shape)
    full = size == "full" or (size == "auto" and min(shape[1:]) >= 67)
    pool = {"kind": "maxpool", "size": 3, "stride": 2, "padding": "valid" if full else "same"}
    of_paper = {"kind": "local_response_norm", "bias": 2.0, "alpha_on": "sum"}
    published = full and version == "paper"
    norm: list[object] = [of_paper] if published else []
    maps = (96, 256, 384, 384, 256) if published else (64, 192, 384, 256, 256)
    width = 4096 if full else 1024
    first: dict[str, object] = {"kernel": 5, "padding": "same"}
    if full:
        first = {"kernel": 11, "stride": 4, "padding": "valid" if published else 2}
    parts: list[object] = [{"kind": "conv", "channels": maps[0], **first}, "relu", *norm, pool]
    parts += [_conv(maps[1], 5), "relu", *norm, pool]
    for channels in maps[2:]:
        parts += [_conv(channels), "relu"]
    parts += [pool, "flatten"]
    for _ in range(2):
        parts += [{"kind": "dropout", "rate": dropout}, _dense(width), "relu"]
    return _stack(shape, *parts, _dense(outputs))


def vgg(
    shape: Shape,
    outputs: int,
    *,
    depth: Literal[11, 13, 16, 19] = 16,
    width: Count = 64,
    norm: Literal["none", "batch"] = "none",
    dense: tuple[Count, ...] = (4096, 4096),
    dropout: PerMember[Probability] = 0.5,
) -> nn.Module:
    """VGG: blocks of 3x3 convolutions; from block to block the maps double and the sides halve.

    ``width`` is that of the first block; at most eight times as much is reached. Five blocks; a
    pooling that images are too small for is left out. ``dropout`` follows each dense layer.
    For images of 32 pixels dense (512,) and batch norm are usual.

    Errors: the input is not an image (C, H, W).

    >>> sum(p.numel() for p in vgg((3, 32, 32), 10, depth=11, width=8, dense=(64,)).parameters())
    149370

    Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
    recognition", 2015.
    """
    need_images(shape)
    counts = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[
        depth
    ]
    between = [] if norm == "none" else ["batch_norm"]
    parts: list[object] = []
    side = min(shape[1:])
    for block, count in enumerate(counts):
        for _ in range(count):
            parts += [_conv(width * min(2**block, 8)), *between, "relu"]
        if side >= 2:
            parts.append("maxpool")
            side //= 2
    parts.append("flatten")
    for units in dense:
        parts += [_dense(units), "relu", {"kind": "dropout", "rate": dropout}]
    return _stack(shape, *parts, _dense(outputs))


def all_cnn(
    shape: Shape, outputs: int, *, width: Count = 96, dropout: PerMember[Probability] = 0.5
) -> nn.Module:
    """The all-convolutional net (All-CNN-C): convolutions of stride 2 in place of pooling, no dense
    layer.

    Nine convolutions of ``width`` and 2 ``width`` maps; input dropout 0.2, ``dropout`` after each
    one of stride 2; the mean over all positions of the last maps is the output.

    Errors: the input is not an image (C, H, W).

    >>> sum(p.numel() for p in all_cnn((3, 32, 32), 10).parameters())
    1369738

    Source: Springenberg et al., "Striving for simplicity: the all convolutional net", 2015.
    """
    need_images(shape)
    drop = {"kind": "dropout", "rate": dropout}
    parts: list[object] = [{"kind": "dropout", "rate": min(dropout, 0.2)}]
    for maps in (width, 2 * width):
        parts += [
            _conv(maps),
            "relu",
            _conv(maps),
            "relu",
            {**_conv(maps), "stride": 2},
            "relu",
            drop,
        ]
    parts += [
        _conv(2 * width),
        "relu",
        _conv(2 * width, 1),
        "relu",
        _conv(outputs, 1),
        "relu",
        "global_pool",
    ]
    return _stack(shape, *parts)


def _stack(shape: Shape, *parts: object) -> nn.Module:
    return stack([make("layer", part) for part in parts], shape, "model")[0]


def _dense(units: int) -> dict[str, object]:
    return {"kind": "dense", "units": units}


def _conv(channels: int, kernel: int = 3) -> dict[str, object]:
    return {"kind": "conv", "channels": channels, "kernel": kernel, "padding": "same"}
