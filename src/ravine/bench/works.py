"""What is timed: shapes, sizes and the network, as a recipe, as a plain PyTorch module, and as
Keras layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

BATCH = 128


@dataclass(frozen=True)
class Work:
    """One network on synthetic data of the real data's shape."""

    title: str
    shape: tuple[int, ...]
    classes: int
    samples: int  # a multiple of the batch: every step is a whole one
    epochs: int  # that a round takes
    model: dict[str, Any]  # as in a recipe
    torch: Callable[[], Any]
    keras: Callable[[Any], list[Any]] | None = None
    vocabulary: int | None = None  # inputs and targets are symbols, a target for every step
    batch: int = BATCH

    @property
    def steps(self) -> int:
        return self.samples // self.batch


def operations(work: Work) -> float:
    """Floating-point operations of a training step's products: a forward pass, and twice as many
    back through it, but for the gradient at the inputs, which nobody needs.
    """
    from torch import nn

    from ravine.nn.analysis.layer_table import summarise

    network = work.torch()
    found = summarise(network, work.shape, vocabulary=work.vocabulary)
    first = next(row for row in found["layers"] if row["flops"])
    layer, spared = (
        network.get_submodule(first["name"]),
        0.0 if work.vocabulary else float(first["flops"]),
    )
    if isinstance(layer, nn.RNNBase):
        spared *= layer.input_size / (layer.input_size + layer.hidden_size)
    return work.batch * (3 * found["flops"] - spared)


def arrays(work: Work, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, the same for every competitor."""
    draws = np.random.default_rng(seed)
    if work.vocabulary:
        text = draws.integers(work.vocabulary, size=(work.samples, work.shape[0] + 1))
        return text[:, :-1].astype(np.int64), text[:, 1:].astype(np.int64)
    x = draws.standard_normal((work.samples, *work.shape), dtype=np.float32)
    y = np.concatenate(
        [np.arange(work.classes), draws.integers(work.classes, size=work.samples - work.classes)]
    )
    return x, y.astype(np.int64)


def _mlp(*widths: int) -> Callable[[], Any]:
    def build() -> Any:
        from torch import nn

        layers: list[Any] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return build


def _keras_mlp(*widths: int) -> Callable[[Any], list[Any]]:
    return lambda layers: (
        [layers.Dense(w, activation="relu") for w in widths[:-1]] + [layers.Dense(widths[-1])]
    )


def _lenet() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def _keras_lenet(layers: Any) -> list[Any]:
    return [
        layers.Conv2D(32, 5, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 5, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
        layers.Dense(10),
    ]


def _lstm() -> Any:
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(28, 128, batch_first=True), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    return Classifier()


def _resnet(blocks: int) -> Any:
    """ResNet of 6 n + 2 layers, n blocks in each stage."""
    from torch import nn

    class ConvBlock(nn.Module):
        def __init__(self, inputs: int, channels: int, stride: int):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, channels, 3, stride, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
                nn.BatchNorm2d(channels),
            )
            self.more, self.stride = channels - inputs, stride

        def forward(self, x: Any) -> Any:
            shortcut = x
            if self.more:  # no parameters: every second position, maps of zeros after the old ones
                shortcut = nn.functional.pad(
                    x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more)
                )
            return (self.body(x) + shortcut).relu()

    layers: list[Any] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        for i in range(blocks):
            layers.append(ConvBlock(inputs, channels, stride if i == 0 else 1))
            inputs = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _char_lstm() -> Any:
    from torch import nn

    class Characters(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(65, 64)
            self.lstm, self.head = nn.LSTM(64, 256, 2, batch_first=True), nn.Linear(256, 65)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(self.table(x))[0])

    return Characters()


_LENET = [
    {"kind": "conv", "channels": 32, "kernel": 5, "padding": "same"},
    "relu",
    {"kind": "maxpool"},
    {"kind": "conv", "channels": 64, "kernel": 5, "padding": "same"},
    "relu",
    {"kind": "maxpool"},
    "flatten",
    {"kind": "dense", "units": 512},
    "relu",
    {"kind": "dense", "units": 10},
]
_RECURRENT = [{"kind": "lstm", "units": 128}, {"kind": "dense", "units": 10}]
_CHARACTERS = [
    {"kind": "embedding", "size": 64, "vocabulary": 65},
    {"kind": "lstm", "units": 256, "layers": 2, "output": "all"},
    {"kind": "dense", "units": 65},
]

WORKS: dict[str, Work] = {
    "small_mlp": Work(
        "MLP 64-32-10",
        (64,),
        10,
        12_800,
        5,
        {"kind": "mlp", "hidden": (32,)},
        _mlp(64, 32, 10),
        _keras_mlp(32, 10),
    ),
    "mnist_mlp": Work(
        "MLP 784-256-256-10",
        (784,),
        10,
        12_800,
        5,
        {"kind": "mlp", "hidden": (256, 256)},
        _mlp(784, 256, 256, 10),
        _keras_mlp(256, 256, 10),
    ),
    "lenet": Work(
        "LeNet 5x5 32-64, dense 512",
        (1, 28, 28),
        10,
        2_560,
        4,
        {"layers": _LENET},
        _lenet,
        _keras_lenet,
    ),
    "lstm": Work(
        "LSTM 128, 28 steps of 28",
        (28, 28),
        10,
        6_400,
        5,
        {"layers": _RECURRENT},
        _lstm,
        lambda layers: [layers.LSTM(128), layers.Dense(10)],
    ),
    "resnet20": Work(
        "ResNet-20, 3x32x32",
        (3, 32, 32),
        10,
        1_280,
        3,
        {"kind": "resnet", "depth": 20},
        partial(_resnet, 3),
    ),
    "resnet8": Work(
        "ResNet-8, 3x32x32",
        (3, 32, 32),
        10,
        640,
        4,
        {"kind": "resnet", "depth": 8},
        partial(_resnet, 1),
    ),
    "char_lstm": Work(
        "char LSTM 2x256, 64 steps",
        (64,),
        65,
        1_280,
        3,
        {"layers": _CHARACTERS},
        _char_lstm,
        lambda layers: [
            layers.Embedding(65, 64),
            layers.LSTM(256, return_sequences=True),
            layers.LSTM(256, return_sequences=True),
            layers.Dense(65),
        ],
        vocabulary=65,
        batch=64,
    ),
}
POPULATIONS: dict[str, tuple[str, int]] = {  # name -> (the work of each member, members)
    "small_mlp_x25": ("small_mlp", 25),
    "small_mlp_x100": ("small_mlp", 100),
    "mnist_mlp_x25": ("mnist_mlp", 25),
    "lenet_x8": ("lenet", 8),
    "resnet8_x25": ("resnet8", 25),
}
