"""Residual networks: catalogue functions, and the modules that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.catalogue import Count, Flag, ResidualDepth
from ravine.errors import InputError
from ravine.nn.chain import Chain, chained, norm_relu, watched
from ravine.nn.stack import Shape, need_images


def resnet(
    shape: Shape,
    outputs: int,
    *,
    form: Literal["cifar", "imagenet"] = "cifar",
    depth: ResidualDepth = 20,
    width: Count | None = None,
    shortcuts: Flag = True,
    projection: Flag = False,
) -> nn.Module:
    """Residual network; ``shortcuts = false`` is the plain network of the same depth.

    ``form`` cifar: depth 6 n + 2 (20, 32, 44, 56, 110): a 3x3 convolution, three stages of n blocks
    of two convolutions with 16, 32, 64 maps (``width`` 16 is the first), the mean over all
    positions, a dense layer. Where maps double, the shortcut takes every second position and pads
    with zero maps (option A, no parameters), or with ``projection`` a 1x1 convolution (option B).
    imagenet: depth 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks), width 64, always option B;
    the stride of a bottleneck is on its 3x3 convolution.

    Errors: the input is not an image (C, H, W); ``depth`` is none of those of ``form``.

    >>> sum(p.numel() for p in resnet((3, 32, 32), 10, depth=20).parameters())
    269722

    Source: He et al., "Deep residual learning for image recognition", 2016.
    """
    need_images(shape)
    if form == "imagenet":
        return _published(shape, outputs, depth, width or 64, shortcuts)
    if depth < 8 or depth % 6 != 2:
        repair = (
            'set form = "imagenet"'
            if depth in (18, 34, 101, 152)
            else f"try {max(round((depth - 2) / 6), 1) * 6 + 2}"
        )
        raise InputError(
            "model.depth",
            got=depth,
            expected="6 n + 2 for form = cifar: 8, 14, 20, 32, 44, 56, 110",
            repair=repair,
        )
    return ResNet(
        shape[0],
        outputs,
        ((depth - 2) // 6,) * 3,
        width or 16,
        shortcuts,
        projection,
    )


def resnet18(shape: Shape, outputs: int, *, width: Count = 64) -> nn.Module:
    """ResNet-18 for images of about 224 pixels: ``resnet`` of form imagenet, depth 18.

    Its parameters are named as in the published checkpoints (conv1, bn1, layer1.0.conv1, …, fc), so
    that ``start.weights`` takes such a safetensors file as it is. ``width``: maps of the first
    stage; the published ones have 64.

    Errors: the input is not an image (C, H, W).

    >>> sum(p.numel() for p in resnet18((3, 224, 224), 1000).parameters())
    11689512

    Source: He et al., "Deep residual learning for image recognition", 2016.
    """
    return resnet(shape, outputs, form="imagenet", depth=18, width=width)


def resnet34(shape: Shape, outputs: int, *, width: Count = 64) -> nn.Module:
    """ResNet-34 for images of about 224 pixels; ``width`` and names as for ``resnet18``.

    Errors: the input is not an image (C, H, W).

    >>> sum(p.numel() for p in resnet34((3, 224, 224), 1000).parameters())
    21797672

    Source: He et al., "Deep residual learning for image recognition", 2016.
    """
    return resnet(shape, outputs, form="imagenet", depth=34, width=width)


def resnet50(shape: Shape, outputs: int, *, width: Count = 64) -> nn.Module:
    """ResNet-50 for images of about 224 pixels, the stride of a bottleneck on its 3x3 convolution.

    ``width`` and names as for ``resnet18``.

    Errors: the input is not an image (C, H, W).

    >>> sum(p.numel() for p in resnet50((3, 224, 224), 1000).parameters())
    25557032

    Source: He et al., "Deep residual learning for image recognition", 2016.
    """
    return resnet(shape, outputs, form="imagenet", depth=50, width=width)


_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _published(
    shape: Shape, outputs: int, depth: int, width: int, shortcuts: bool
) -> PublishedResNet:
    if depth not in _BLOCKS:
        raise InputError(
            "model.depth", got=depth, expected="18, 34, 50, 101 or 152 for form = imagenet"
        )
    return PublishedResNet(shape[0], outputs, _BLOCKS[depth], width, shortcuts, depth >= 50)


def resnet9(shape: Shape, outputs: int, *, width: Count = 64) -> nn.Module:
    """Residual network of nine layers that trains fast: 3x3 convolutions with batch norm, halved by
    maxima.

    A convolution of ``width`` maps; stages of a convolution with twice the maps of the stage before
    (at most 8 ``width``) and a 2x2 maximum, until the sides are at most 4 pixels (three stages for
    32 pixels, four for 64); x + f(x) with two convolutions after the first and the last stage; the
    maximum over all positions; a dense layer. Where small things matter wherever they are, maxima
    learn from far fewer samples than means.

    Errors: the input is not an image (C, H, W).

    >>> sum(p.numel() for p in resnet9((3, 32, 32), 10).parameters())
    6573130

    Source: Page, "How to train your ResNet", 2018; Coleman et al., "DAWNBench", 2017.
    """
    need_images(shape)
    return ResNet9(shape, outputs, width)


class PadShortcut(nn.Module):
    """Option A: every stride-th position, new maps of zeros after the old ones; no parameters."""

    def __init__(self, more: int, stride: int):
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


class ResidualBlock(nn.Module):
    """relu(body(x) + shortcut(x)), or relu(body(x)) without shortcut."""

    body: nn.Sequential

    def __init__(self, inputs: int, outputs: int, stride: int, shortcuts: bool, projection: bool):
        super().__init__()
        self.shortcut: nn.Module | None = None
        if shortcuts:
            self.shortcut = nn.Identity()
            if projection and (stride > 1 or inputs != outputs):
                self.shortcut = nn.Sequential(
                    _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
                )
            elif stride > 1 or inputs != outputs:
                self.shortcut = PadShortcut(outputs - inputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        added = None if self.shortcut is None else self.shortcut(x)
        if watched(self.body):
            y = self.body(x)
            return F.relu(y if added is None else y + added)
        *layers, last = self.body
        return norm_relu(last, F.relu, chained(layers, x), added)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, width: int, stride: int, shortcuts: bool, projection: bool):
        super().__init__(inputs, width, stride, shortcuts, projection)
        self.body = nn.Sequential(
            _conv(inputs, width, 3, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _conv(width, width, 3),
            nn.BatchNorm2d(width),
        )


class ResNet(nn.Module):
    """Stem, stages of blocks, mean over all positions, dense layer: the form for small images."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        counts: Sequence[int],
        width: int,
        shortcuts: bool,
        projection: bool,
    ):
        super().__init__()
        self.stem = Chain(_conv(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        inputs = width
        stages = []
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(BasicBlock(inputs, width * 2**stage, stride, shortcuts, projection))
                inputs = width * 2**stage
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(self.stem(x))  # [B, C, H, W]
        return self.head(torch.mean(y, (2, 3)))


class PublishedBlock(nn.Module):
    """A block of the ImageNet networks, its parameters named as in the published checkpoints."""

    def __init__(self, inputs: int, width: int, stride: int, shortcuts: bool, bottleneck: bool):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:  # 1x1, 3x3 (with the stride) and 1x1, which gives four times the maps
            self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        else:
            self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.bottleneck, self.shortcuts = bottleneck, shortcuts
        self.downsample: nn.Module | None = None
        if shortcuts and (stride > 1 or inputs != outputs):
            self.downsample = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(norm_relu(self.bn1, F.relu, self.conv1(x)))
        last = self.bn2
        if self.bottleneck:
            y, last = self.conv3(norm_relu(last, F.relu, y)), self.bn3
        added = x if self.downsample is None else self.downsample(x)
        return norm_relu(last, F.relu, y, added if self.shortcuts else None)


class PublishedResNet(nn.Module):
    """The form for ImageNet, its parameters named as in the published checkpoints: conv1, bn1,
    layer1 to layer4, fc."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        counts: Sequence[int],
        width: int,
        shortcuts: bool,
        bottleneck: bool,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = width
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(
                    PublishedBlock(inputs, width * 2**stage, stride, shortcuts, bottleneck)
                )
                inputs = width * 2**stage * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(counts)
        self.fc = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        # The maximum before the relu: the same values on a quarter of the entries.
        y = F.relu(self.maxpool(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            y = getattr(self, f"layer{stage + 1}")(y)  # [B, C, H, W]
        return self.fc(torch.mean(y, (2, 3)))


class ResNet9(nn.Module):
    """Convolutions and maxima with two residual blocks: what ``resnet9`` gives."""

    def __init__(self, shape: Shape, outputs: int, width: int):
        super().__init__()
        height, side = min(shape[1:]), max(shape[1:])
        count = max(1, min(math.ceil(math.log2(max(side, 8) / 4)), int(math.log2(max(height, 2)))))
        self.stem = Chain(_conv(shape[0], width, 3), nn.BatchNorm2d(width), nn.ReLU())
        stages, inputs = [], width
        for stage in range(1, count + 1):
            maps = min(width * 2**stage, 8 * width)
            parts: list[nn.Module] = [_conv(inputs, maps, 3), nn.BatchNorm2d(maps)]
            # The maximum before the relu: the same values on a quarter of the entries.
            parts += [nn.MaxPool2d(2), nn.ReLU()]
            if stage in (1, count):
                parts.append(_Residual(maps))
            stages.append(nn.Sequential(*parts))
            inputs = maps
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(self.stem(x))  # [B, C, H, W]
        return self.head(torch.amax(y, (2, 3)))


class _Residual(nn.Module):
    """x + f(x), f two convolutions."""

    def __init__(self, maps: int):
        super().__init__()
        self.body = Chain(
            _conv(maps, maps, 3),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
            _conv(maps, maps, 3),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
