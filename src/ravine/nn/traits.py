"""What is known of layers: which networks run in bfloat16 with their weights cast once a step,
rather than at each use by autocast, and which see each sample alone.
"""

from __future__ import annotations

from torch import nn

from ravine.nn.convolution import ChannelPool, GlobalPool
from ravine.nn.layers import Parallel, Residual, Transpose
from ravine.nn.randomized import Dropout, GaussianNoise, SpatialDropout
from ravine.nn.recurrent import Recurrent
from ravine.nn.resnet import BasicBlock, Bottleneck, PadShortcut, ResNet
from ravine.nn.sequences import CharacterModel, SequenceClassifier
from ravine.nn.stack import Stack

_CONTAINERS = (
    nn.Sequential,
    nn.ModuleList,
    Stack,
    Parallel,
    Residual,
    Recurrent,
    BasicBlock,
    Bottleneck,
    ResNet,
    CharacterModel,
    SequenceClassifier,
)
_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU, nn.RNN, nn.Embedding)
_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.GroupNorm,
)  # parameters and sums stay float32
_OTHERS = (
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.SiLU,
    nn.GELU,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    GlobalPool,
    ChannelPool,
    Transpose,
    PadShortcut,
    Dropout,
    SpatialDropout,
    GaussianNoise,
)
_COUPLED = frozenset((nn.BatchNorm1d, nn.BatchNorm2d))
_KNOWN = frozenset((*_CONTAINERS, *_PRODUCTS, *_NORMS, *_OTHERS))


def takes_bfloat16(model: nn.Module) -> bool:
    """Whether every layer is known to take bfloat16 inputs and weights (the parameters of
    normalisation stay float32).

    >>> takes_bfloat16(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    True
    >>> takes_bfloat16(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)))  # autocast computes it in float32
    False
    """
    return all(type(part) in _KNOWN for part in model.modules())


def sees_samples_alone(model: nn.Module) -> bool:
    """Whether every layer is known to treat each sample by itself and to draw nothing: parts of a
    batch then add up.

    >>> sees_samples_alone(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), sees_samples_alone(nn.BatchNorm1d(2))
    (True, False)
    """
    return all(
        type(part) in _KNOWN - _COUPLED and getattr(part, "idle", True) for part in model.modules()
    )
