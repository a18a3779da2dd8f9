"""Preprocessing, fitted to the training part alone, in float64, and kept with the run.

Every function here is a technique: it receives the raw training inputs x [N, ...] and gives a
``Transform``. Where a technique has ``of``, it can be applied to the targets of a regression
instead; predictions then come back in the target's units. Statistics run ``per`` feature (each
entry of a sample), per channel (axis 1 of images [N, C, H, W], the last axis of anything else) or
over everything (global).
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor

from ravine.catalogue import Count, Flag, Integer, NonNegative, Positive, Real
from ravine.data.preprocessing.statistics import Rows, moments
from ravine.data.preprocessing.transform import (
    Affine,
    Fourier,
    OneHot,
    OneHotSteps,
    PerSample,
    Polynomial,
    Transform,
)
from ravine.errors import InputError
from ravine.randomness import generator

_MOST_COLUMNS = 100_000
_MOST_FACTORS = 1_000_000  # of all products together
_MOST_CATEGORIES = 1_000


def rescale(
    x: Tensor | Rows,
    *,
    low: Real = 0.0,
    high: Real = 1.0,
    of: Literal["inputs", "targets"] = "inputs",
) -> Transform:
    """Map the range of the data onto [low, high], one factor for everything.

    y = low + (high - low) (x - a) / (b - a), where [a, b] is 0 to 255 for bytes (0 to 1 if no byte
    is above 1), and the smallest and largest value of the training part for all else. Can be
    undone. For [-1, 1] set low = -1.

    Errors: ``high`` is not above ``low``.

    >>> rescale(torch.tensor([[0, 51, 255]], dtype=torch.uint8))(torch.tensor([[51.0]]))
    tensor([[0.2000]])
    """
    _rising("rescale", low, high)
    rows = Rows.of(x)
    if rows.dtype == torch.uint8:
        binary = all(bool((chunk <= 1).all()) for chunk in rows.again())
        a, b = (
            torch.tensor(0.0, dtype=torch.float64),
            torch.tensor(1.0 if binary else 255.0, dtype=torch.float64),
        )
    else:
        seen = moments(rows, "global")
        a, b = seen.low, seen.high
    return _onto(a, b, low, high)


def minmax(
    x: Tensor | Rows,
    *,
    low: Real = 0.0,
    high: Real = 1.0,
    per: Literal["feature", "channel", "global"] = "feature",
    of: Literal["inputs", "targets"] = "inputs",
) -> Transform:
    """Map each feature's own range in the training part onto [low, high].

    y = low + (high - low) (x - min) / (max - min); a constant feature becomes low. New data may lie
    outside. Can be undone. The same as scikit-learn's MinMaxScaler.

    ``per`` feature, channel, or global: one range for everything. ``of`` targets: of a
    regression's targets, undone in predictions.

    Errors: ``high`` is not above ``low``.

    >>> minmax(torch.tensor([[0.0, 5.0], [4.0, 7.0]]))(torch.tensor([[1.0, 7.0]]))
    tensor([[0.2500, 1.0000]], dtype=torch.float64)
    """
    _rising("minmax", low, high)
    seen = moments(x, per)
    return _onto(seen.low, seen.high, low, high)


def center(
    x: Tensor | Rows,
    *,
    per: Literal["feature", "channel", "global"] = "feature",
    of: Literal["inputs", "targets"] = "inputs",
) -> Transform:
    """Subtract the mean of the training part: y = x - mean. Can be undone.

    Lectures that print ``X = mean(X)`` mean X -= mean(X).

    ``per`` feature, channel, or global: one mean for everything. ``of`` targets: of a
    regression's targets, undone in predictions.

    >>> center(torch.tensor([[1.0], [3.0]]))(torch.tensor([[4.0]]))
    tensor([[2.]], dtype=torch.float64)
    """
    mean = moments(x, per).mean
    return Affine(shift=mean, scale=torch.ones_like(mean))


def standardize(
    x: Tensor | Rows,
    *,
    per: Literal["feature", "channel", "global"] = "feature",
    epsilon: NonNegative = 0.0,
    of: Literal["inputs", "targets"] = "inputs",
) -> Transform:
    """Zero mean and unit variance: y = (x - mean) / (sd + epsilon). Can be undone.

    The standard deviation is over N, as in scikit-learn's StandardScaler. What is constant in the
    training part is centred and not scaled. With of = "targets" a regression is trained on
    standardised targets and predicts in the target's units.

    ``per`` feature, channel, or global: one mean and deviation for everything.

    >>> standardize(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))(torch.tensor([[3.0, 6.0]]))
    tensor([[1., 1.]], dtype=torch.float64)

    Source: LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998.
    """
    seen = moments(x, per)
    deviation = seen.variance.sqrt()
    constant = deviation <= 10 * torch.finfo(torch.float64).eps * seen.mean.abs()  # up to rounding
    return Affine(shift=seen.mean, scale=1 / torch.where(constant, 1.0, deviation + epsilon))


def normalize(
    x: Tensor | Rows, *, mean: Real | tuple[Real, ...], std: Positive | tuple[Positive, ...]
) -> Transform:
    """A given mean and standard deviation: y = (x - mean) / std.

    One number for all, or one for each channel. Nothing is fitted. Can be undone. The numbers are
    in the units of the data as they arrive here: for the usual ones of images, ImageNet's mean =
    [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225], put ``rescale`` before it.

    Errors: ``mean`` or ``std`` has neither one number nor one for each channel.

    >>> normalize(torch.zeros(1, 3, 2, 2), mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])(torch.ones(1, 3, 1, 1)).flatten()
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    shape = Rows.of(x).shape
    centre, width = (
        _by_channel(value, shape, name) for value, name in ((mean, "mean"), (std, "std"))
    )
    return Affine(shift=centre, scale=1 / width)


def per_sample(
    x: Tensor | Rows,
    *,
    center: Flag = True,
    scale: Flag = True,
    per: Literal["sample", "channel"] = "sample",
    epsilon: NonNegative = 1e-8,
) -> Transform:
    """Each sample by its own mean and standard deviation: y = (x - mean(x)) / (sd(x) + epsilon).

    Over the whole sample, or over each of its channels. Nothing is fitted, so it cannot be undone.
    On images this is global contrast normalisation: brighter light makes no difference.

    ``center`` subtracts the mean, ``scale`` divides by the deviation; ``per`` sample, or
    channel of each sample.

    Errors: ``per`` channel for rows of a table, which have none.

    >>> per_sample(torch.zeros(1, 4))(torch.tensor([[1.0, 1.0, 3.0, 3.0]]))
    tensor([[-1., -1.,  1.,  1.]])
    """
    rank = len(Rows.of(x).shape) + 1
    channel = 1 if rank >= 4 else rank - 1
    over = [axis for axis in range(1, rank) if per == "sample" or axis != channel]
    if not over:
        raise InputError(
            "preprocess.per_sample.per",
            got="channel",
            expected="sample: rows of a table have no channels",
        )
    return PerSample({"center": center, "scale": scale, "over": over, "epsilon": epsilon})


def one_hot(x: Tensor | Rows, *, per: Literal["feature", "step"] = "feature") -> Transform:
    """A column of 0 and 1 for each value of a whole number.

    Per feature: [N, D] -> [N, K_1 + … + K_D], the values of each column that the training part has,
    in rising order, as scikit-learn's OneHotEncoder. Per step: tokens [N, T] -> [N, T, V], V the
    largest token of the training part plus one. What the training part does not have gives zeros.
    Can be undone.

    ``per`` is feature or step.

    Errors: numbers with a fraction; samples that are not rows [D]; over 1,000 values in one
    column.

    >>> one_hot(torch.tensor([[3, 0], [7, 1]]))(torch.tensor([[7.0, 0.0]]))
    tensor([[0., 1., 1., 0.]], dtype=torch.float64)
    """
    rows = Rows.of(x)
    if len(rows.shape) != 1:
        raise InputError(
            "preprocess.one_hot",
            got=f"samples of shape {list(rows.shape)}",
            expected="whole numbers [D]",
        )
    seen: list[Tensor] = [torch.empty(0, dtype=torch.float64)] * rows.shape[0]
    for chunk in rows.chunks():
        if bool((chunk != chunk.round()).any()):
            raise InputError(
                "preprocess.one_hot", got="numbers with a fraction", expected="whole numbers"
            )
        seen = [torch.cat([old, chunk[:, column]]).unique() for column, old in enumerate(seen)]
    most = max(len(values) for values in seen)
    if most > _MOST_CATEGORIES and per == "feature":
        raise InputError(
            "preprocess.one_hot",
            got=f"{most} values in one column",
            expected=f"at most {_MOST_CATEGORIES}",
        )
    if per == "step":
        return OneHotSteps(
            values=torch.arange(int(max(values.max() for values in seen)) + 1, dtype=torch.float64)
        )
    categories = torch.full((len(seen), most), torch.nan, dtype=torch.float64)
    for column, values in enumerate(seen):
        categories[column, : len(values)] = values
    return OneHot(categories=categories, places=(~categories.isnan()).flatten().nonzero().flatten())


def polynomial(x: Tensor | Rows, *, degree: Count = 2, interactions: Flag = False) -> Transform:
    """All products of features up to ``degree``: x_1, x_2, x_1^2, x_1 x_2, x_2^2, … (no constant).

    With ``interactions`` no feature occurs twice in a product. The order is that of scikit-learn's
    PolynomialFeatures. Undoing takes the features themselves.

    Errors: samples that are not rows [D]; over 100,000 products.

    >>> polynomial(torch.zeros(1, 2))(torch.tensor([[2.0, 3.0]]))
    tensor([[2., 3., 4., 6., 9.]])
    """
    width = _table("polynomial", x)
    if interactions:
        degree = min(degree, width)
        products = sum(math.comb(width, order) for order in range(1, degree + 1))
    else:
        products = math.comb(width + degree, degree) - 1
    if products > _MOST_COLUMNS or products * degree > _MOST_FACTORS:
        raise InputError(
            "preprocess.polynomial.degree",
            got=degree,
            expected=f"at most {_MOST_COLUMNS:,} products, of {_MOST_FACTORS:,} factors in all",
            repair=f"{width} features make too many; reduce them with pca first",
        )
    pick = itertools.combinations if interactions else itertools.combinations_with_replacement
    factors = [
        [*product, *[width] * (degree - order)]
        for order in range(1, degree + 1)
        for product in pick(range(width), order)
    ]
    return Polynomial({"features": width}, factors=torch.tensor(factors))


def fourier(
    x: Tensor | Rows, *, features: Count = 256, gamma: Positive | None = None, seed: Integer = 0
) -> Transform:
    """Random Fourier features: y = sqrt(2 / k) cos(x W + b), whose inner products approach
    exp(-gamma |x - x'|^2).

    W is normal with variance 2 gamma, b uniform in [0, 2 pi). ``gamma`` is 1 / (D var(x)) unless
    given, as the "scale" of scikit-learn's support vector machines. Cannot be undone.

    ``features`` is k; ``seed`` decides W and b.

    >>> fourier(torch.zeros(4, 3), features=8, gamma=0.5)(torch.zeros(2, 3).double()).shape
    torch.Size([2, 8])

    Source: Rahimi, Recht, "Random features for large-scale kernel machines", 2007.
    """
    width = torch.Size(Rows.of(x).shape).numel()
    if gamma is None:
        variance = float(moments(x, "global").variance)
        gamma = 1 / (width * variance) if variance > 0 else 1.0
    source = generator(seed, "fourier")
    matrix = (
        torch.randn(width, features, generator=source, dtype=torch.float64) * (2 * gamma) ** 0.5
    )
    return Fourier(
        matrix=matrix,
        phase=torch.rand(features, generator=source, dtype=torch.float64) * 2 * torch.pi,
    )


def _rising(name: str, low: float, high: float) -> None:
    if high <= low:
        raise InputError(
            f"preprocess.{name}", got=f"low = {low}, high = {high}", expected="low below high"
        )


def _onto(a: Tensor, b: Tensor, low: float, high: float) -> Affine:
    """The map of [a, b] onto [low, high]; where a = b, onto low."""
    scale = (high - low) / torch.where(b > a, b - a, 1.0)
    return Affine(shift=a - low / scale, scale=scale)


def _by_channel(value: float | tuple[float, ...], shape: tuple[int, ...], name: str) -> Tensor:
    """The given numbers, shaped to broadcast along the channel."""
    given = torch.atleast_1d(torch.as_tensor(value, dtype=torch.float64))
    image = len(shape) >= 3
    channels = shape[0] if image else shape[-1]
    if len(given) not in (1, channels):
        raise InputError(
            f"preprocess.normalize.{name}",
            got=f"{len(given)} numbers",
            expected=f"1 or {channels}, one for each channel",
        )
    return given.view(-1, *[1] * (len(shape) - 1)) if image else given


def _table(name: str, x: Tensor | Rows) -> int:
    shape = Rows.of(x).shape
    if len(shape) != 1:
        raise InputError(
            f"preprocess.{name}",
            got=f"samples of shape {list(shape)}",
            expected="rows of a table [D]",
        )
    return shape[0]
