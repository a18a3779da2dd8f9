"""What kind of layer is this? One table: class -> traits, for the layers of torch.nn and Ravine's.

Traits are of two sorts. *What a layer is* (an activation, a normalisation, a convolution, …) holds
for subclasses too. *What is promised of its forward pass* (samples alone, bfloat16, channel by
channel) holds for the exact class only, because a subclass may compute something else. A container
is promised for what it does besides calling its children, so a network keeps a promise where every
one of its modules does.
"""

from __future__ import annotations

import contextlib
import copy
from enum import Flag, auto
from functools import cache

import torch
from torch import nn

from ravine.catalogue import make, table
from ravine.errors import InputError
from ravine.nn.activations import ELU, LeakyReLU, Maxout, PReLU
from ravine.nn.attention import Positions, SelfAttention, SinusoidalPositions, TransformerBlock
from ravine.nn.chain import Chain
from ravine.nn.convolution import ChannelPool, GlobalPool, LocallyConnected
from ravine.nn.layers import Parallel, Residual, Transpose
from ravine.nn.models.characters import (
    CharacterModel,
    ConvolvedCharacters,
    NgramLogits,
    ZeroEmbedding,
)
from ravine.nn.models.resnet import BasicBlock, PadShortcut, PublishedBlock, PublishedResNet, ResNet
from ravine.nn.models.sequences import SequenceClassifier
from ravine.nn.models.tabular import (
    CategoryTable,
    FeatureScale,
    MemberLinear,
    MixedActivation,
    PeriodicEmbedding,
    SharedLinear,
    TabularNetwork,
)
from ravine.nn.models.transformers import (
    LanguageModel,
    NormalEmbedding,
    NormalLinear,
    SequenceTransformer,
)
from ravine.nn.normalization import BatchNorm
from ravine.nn.randomized import AlphaDropout, Dropout, GaussianNoise, SpatialDropout
from ravine.nn.recurrent import Recurrent
from ravine.nn.stack import Stack, call


class Trait(Flag):
    """What is known of a layer; combine with ``|``, ask with ``in`` (all of them) or ``&`` (any).

    >>> Trait.ACTIVATION in traits(nn.ReLU()), Trait.NORMALISES in traits(nn.ReLU())
    (True, False)
    """

    NONE = 0
    # what a layer is
    ACTIVATION = auto()  # a nonlinear function of each entry alone
    CROSS_ACTIVATION = auto()  # one of several entries together: softmax, maxout, GLU
    RECTIFIES = auto()  # an activation that is 0 for all negative inputs: units can be dead
    SATURATES = auto()  # an activation that is flat at both ends: units can be saturated
    NORMALISES = auto()
    BATCH_STATISTICS = auto()  # a normalisation by the statistics of the batch
    RANDOM = auto()  # draws in training
    DENSE = auto()
    CONVOLUTION = auto()
    RECURRENT = auto()
    EMBEDS = auto()  # rows of a table by whole numbers
    # what is promised of the exact class
    SAMPLES_ALONE = auto()  # each sample's output depends on that sample only, in training too
    BFLOAT16 = auto()  # bfloat16 inputs and weights give a bfloat16 output of that accuracy;
    # parameters of normalisation stay float32
    CHANNELWISE = auto()  # channel c of the output depends on channel c of the input only


_PROMISES = Trait.SAMPLES_ALONE | Trait.BFLOAT16 | Trait.CHANNELWISE
_POINTWISE = Trait.ACTIVATION | _PROMISES
_CROSS = Trait.CROSS_ACTIVATION | Trait.SAMPLES_ALONE
_PRODUCT = Trait.SAMPLES_ALONE | Trait.BFLOAT16

_ROWS: tuple[tuple[Trait, tuple[type[nn.Module], ...]], ...] = (
    # --- containers, and layers that only move entries
    (_PROMISES, (nn.Sequential, nn.ModuleList, Chain, Stack, Residual)),
    (_PROMISES, (BasicBlock, ResNet, PublishedBlock, PublishedResNet)),
    (_PRODUCT, (Parallel, Recurrent, CharacterModel, ConvolvedCharacters, NgramLogits)),
    (_PRODUCT, (SequenceClassifier,)),
    (_PRODUCT, (SelfAttention, TransformerBlock, LanguageModel, SequenceTransformer)),
    (_PRODUCT, (Positions, SinusoidalPositions)),
    (_PROMISES, (nn.Identity, GlobalPool, nn.MaxPool1d, nn.MaxPool2d)),
    (_PROMISES, (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)),
    (_PRODUCT, (nn.Flatten, nn.Unflatten, Transpose, ChannelPool, PadShortcut)),
    # --- layers with weights
    (Trait.DENSE | _PRODUCT, (nn.Linear, NormalLinear)),
    (Trait.CONVOLUTION | _PRODUCT, (nn.Conv1d, nn.Conv2d)),
    (Trait.CONVOLUTION, (nn.Conv3d, nn.modules.conv._ConvTransposeNd)),
    (Trait.RECURRENT, (nn.RNNBase,)),
    (Trait.RECURRENT | _PRODUCT, (nn.RNN, nn.LSTM, nn.GRU)),
    (Trait.EMBEDS | _PRODUCT, (nn.Embedding, NormalEmbedding, ZeroEmbedding)),
    (Trait.DENSE | Trait.SAMPLES_ALONE, (CategoryTable,)),
    (
        Trait.SAMPLES_ALONE,
        (TabularNetwork, PeriodicEmbedding, FeatureScale, SharedLinear, MemberLinear),
    ),
    (Trait.SAMPLES_ALONE, (LocallyConnected,)),
    # --- activations
    (_POINTWISE | Trait.RECTIFIES, (nn.ReLU, nn.ReLU6)),
    (_POINTWISE | Trait.SATURATES, (nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Hardtanh)),
    (_POINTWISE | Trait.SATURATES, (nn.Softsign,)),
    (_POINTWISE, (nn.LeakyReLU, LeakyReLU, nn.ELU, ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU)),
    (_POINTWISE, (nn.Mish, nn.Hardswish, nn.Hardshrink, nn.Softshrink, nn.Threshold)),
    # computed in float32 by autocast, or short of accuracy in bfloat16
    (_POINTWISE & ~Trait.BFLOAT16, (nn.Softplus, nn.LogSigmoid, nn.Tanhshrink)),
    # its slopes are parameters that stay float32, and so would the output
    (_POINTWISE & ~Trait.BFLOAT16, (nn.PReLU, PReLU)),
    (_POINTWISE & ~Trait.BFLOAT16 | Trait.RANDOM, (nn.RReLU,)),
    (Trait.ACTIVATION | Trait.SAMPLES_ALONE, (MixedActivation,)),
    (_CROSS, (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d, nn.GLU)),
    (_CROSS | Trait.BFLOAT16, (Maxout,)),
    # --- normalisation
    (Trait.NORMALISES | Trait.BATCH_STATISTICS, (nn.modules.batchnorm._BatchNorm, BatchNorm)),
    (Trait.NORMALISES | Trait.BATCH_STATISTICS | Trait.BFLOAT16, (nn.BatchNorm1d, nn.BatchNorm2d)),
    (Trait.NORMALISES | _PRODUCT, (nn.LayerNorm, nn.GroupNorm)),
    (Trait.NORMALISES | Trait.SAMPLES_ALONE, (nn.RMSNorm, nn.LocalResponseNorm)),
    (Trait.NORMALISES, (nn.modules.instancenorm._InstanceNorm,)),
    (Trait.NORMALISES | Trait.SAMPLES_ALONE, (nn.InstanceNorm1d, nn.InstanceNorm2d)),
    # --- random layers; channel by channel in evaluation, where they draw nothing
    (Trait.RANDOM | _PROMISES, (Dropout, SpatialDropout, GaussianNoise)),
    (Trait.RANDOM | Trait.SAMPLES_ALONE | Trait.CHANNELWISE, (AlphaDropout, nn.AlphaDropout)),
    (Trait.RANDOM | Trait.SAMPLES_ALONE | Trait.CHANNELWISE, (nn.FeatureAlphaDropout,)),
    (Trait.RANDOM | Trait.SAMPLES_ALONE | Trait.CHANNELWISE, (nn.modules.dropout._DropoutNd,)),
    (Trait.RANDOM | Trait.SAMPLES_ALONE | Trait.CHANNELWISE, (nn.Dropout, nn.Dropout1d)),
    (Trait.RANDOM | Trait.SAMPLES_ALONE | Trait.CHANNELWISE, (nn.Dropout2d, nn.Dropout3d)),
)
TABLE: dict[type[nn.Module], Trait] = {kind: found for found, kinds in _ROWS for kind in kinds}
FAR = 1e9  # an input at which a saturating activation is flat in float32
_SHAPES = ((4, 6), (4, 6, 5), (4, 6, 5, 5))  # of inputs on which an unknown module is tried


def traits(layer: nn.Module | type[nn.Module]) -> Trait:
    """The traits of a layer by its class; of an unknown class those of its nearest known ancestor,
    without promises.

    >>> Trait.NORMALISES in traits(nn.SyncBatchNorm(3)), Trait.SAMPLES_ALONE in traits(nn.Linear)
    (True, True)
    """
    kind = layer if isinstance(layer, type) else type(layer)
    if kind in TABLE:
        return TABLE[kind]
    known = (TABLE[ancestor] for ancestor in kind.__mro__ if ancestor in TABLE)
    return next(known, Trait.NONE) & ~_PROMISES


@cache
def catalogue_traits(kind: str) -> Trait:
    """The traits of a layer of the catalogue by its name; none for layers that must be given sizes.

    >>> Trait.SATURATES in catalogue_traits("tanh"), catalogue_traits("dense")
    (True, <Trait.NONE: 0>)
    """
    if kind not in table("layer"):
        return Trait.NONE
    for shape in ((32,), (32, 5), (32, 5, 5)):
        with contextlib.suppress(InputError, ValueError):  # another rank, or sizes are missing
            return traits(call("layer", make("layer", kind), shape))
    return Trait.NONE


def any_layer(model: nn.Module, wanted: Trait) -> bool:
    """Whether a layer of the model has one of these traits.

    >>> any_layer(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), Trait.CONVOLUTION | Trait.RECURRENT)
    False
    """
    return any(traits(part) & wanted for part in model.modules())


def every_layer(model: nn.Module, wanted: Trait) -> bool:
    """Whether every module of the model has all of these traits."""
    return all(wanted in traits(part) for part in model.modules())


def takes_bfloat16(model: nn.Module) -> bool:
    """Whether every layer is known to take bfloat16 inputs and weights, so that weights can be cast
    once a step, not at each use by autocast (the parameters of normalisation stay float32).

    >>> takes_bfloat16(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    True
    >>> takes_bfloat16(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)))  # autocast computes it in float32
    False
    """
    return every_layer(model, Trait.BFLOAT16)


def sees_samples_alone(model: nn.Module) -> bool:
    """Whether every layer is known to treat each sample by itself and to draw nothing: the gradient
    of a batch is then the sum of those of its parts.

    >>> sees_samples_alone(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), sees_samples_alone(nn.BatchNorm1d(2))
    (True, False)
    """
    return every_layer(model, Trait.SAMPLES_ALONE) and all(
        getattr(part, "idle", False) for part in model.modules() if traits(part) & Trait.RANDOM
    )


def observed_traits(layer: nn.Module) -> Trait:
    """The traits of a layer; of a class that is not in the table, and has no weights, also whether
    it acts as an activation, found by trying a copy of it in evaluation mode.

    >>> class Swish(nn.Module):
    ...     def forward(self, x): return x * x.sigmoid()
    >>> observed_traits(Swish())
    <Trait.ACTIVATION: 1>
    """
    known = traits(layer)
    weights = any(p.dim() > 1 for p in layer.parameters())
    if type(layer) in TABLE or known or weights or any(True for _ in layer.children()):
        return known
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for shape in _SHAPES:
            # a module that cannot be copied, or refuses this shape, may raise anything
            with contextlib.suppress(Exception):
                return _tried(copy.deepcopy(layer).eval().cpu(), shape)
    return Trait.NONE


def is_activation(layer: nn.Module) -> bool:
    """Whether a layer is a nonlinear function of each entry alone, by the table or by trying.

    >>> is_activation(nn.PReLU()), is_activation(nn.Softmax(1)), is_activation(nn.Identity())
    (True, False, False)
    """
    return Trait.ACTIVATION in observed_traits(layer)


def flat_ends(layer: nn.Module) -> tuple[float, float] | None:
    """The values between which a saturating activation lies; None for other layers.

    >>> flat_ends(nn.Tanh()), flat_ends(nn.ReLU())
    ((-1.0, 1.0), None)
    """
    if Trait.SATURATES not in observed_traits(layer):
        return None
    with torch.no_grad():
        low, high = layer.forward(torch.tensor([[-FAR, FAR]]))[0].tolist()
    return min(low, high), max(low, high)


def _tried(layer: nn.Module, shape: tuple[int, ...]) -> Trait:
    """Whether changing some entries changes those alone, and not in a straight line. ``forward`` is
    called, so that no hook sees the trial; on a clone, since it may work in place."""
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in layer.parameters()), torch.float32)
    x, moved = (3 * torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    some = torch.rand(shape, generator=generator) < 0.5
    y, other, middle, end = (
        layer.forward(given)
        for given in (x.clone(), torch.where(some, moved, x), (x + moved) / 2, moved.clone())
    )
    straight = torch.allclose(middle, (y + end) / 2, rtol=1e-3, atol=1e-4, equal_nan=True)
    if y.shape != x.shape or straight or not torch.equal(y[~some], other[~some]):
        return Trait.NONE
    found = Trait.ACTIVATION
    if not layer.forward(-x.abs()).any():
        found |= Trait.RECTIFIES
    ends = [layer.forward(torch.full_like(x, end)) for end in (-FAR, -2 * FAR, FAR, 2 * FAR)]
    if (
        all(torch.equal(one, two) for one, two in (ends[:2], ends[2:]))
        and found == Trait.ACTIVATION
    ):
        found |= Trait.SATURATES
    return found
