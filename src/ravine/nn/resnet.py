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


class Block(nn.Module):
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


class BasicBlock(Block):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcuts: bool, projection: bool):
        super().__init__(inputs, width, stride, shortcuts, projection)
        self.body = nn.Sequential(
            _conv(inputs, width, 3, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _conv(width, width, 3),
            nn.BatchNorm2d(width),
        )


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions; the last has four times the maps."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcuts: bool, projection: bool):
        super().__init__(inputs, 4 * width, stride, shortcuts, projection)
        self.body = nn.Sequential(
            _conv(inputs, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _conv(width, width, 3, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _conv(width, 4 * width, 1),
            nn.BatchNorm2d(4 * width),
        )


class ResNet(nn.Module):
    """Stem, stages of blocks, mean over all positions, dense layer."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        counts: Sequence[int],
        width: int,
        block: type[BasicBlock | Bottleneck],
        shortcuts: bool,
        projection: bool,
        stem: str,
    ):
        super().__init__()
        if stem == "imagenet":
            self.stem = nn.Sequential(
                nn.Conv2d(channels, width, 7, 2, 3, bias=False),
                nn.BatchNorm2d(width),
                nn.MaxPool2d(3, 2, 1),
                nn.ReLU(),
            )
        else:
            self.stem = nn.Sequential(_conv(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        inputs = width
        stages = []
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(block(inputs, width * 2**stage, stride, shortcuts, projection))
                inputs = width * 2**stage * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(self.stem(x))  # [B, C, H, W]
        return self.head(torch.mean(y, (2, 3)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
