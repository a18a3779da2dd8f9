"""Residual networks: blocks and the network around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PadShortcut(nn.Module):
    """Option A: every stride-th position, new maps of zeros behind the old ones; no parameters."""

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
        y = self.body(x)
        return F.relu(y if self.shortcut is None else y + self.shortcut(x))


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
        self.stem = nn.Sequential(_conv(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU())
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
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(F.relu(y)))
        if self.shortcuts:
            y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y)


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


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
