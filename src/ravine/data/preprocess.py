"""Preprocessing, fitted to the training part alone, in float64, and kept with the run.

Every function here is a technique: it receives the raw training inputs x [N, ...] and gives a ``Transform``. Where a
technique has ``of``, it can be applied to the targets of a regression instead; predictions then come back in the target's
units. Statistics run ``per`` feature (each entry of a row), per channel (axis 1 of images [N, C, H, W], the last axis of
anything else) or over everything (global).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ravine.catalogue import NonNegative, Real
from ravine.data.statistics import Rows, moments
from ravine.data.transform import Affine, Transform
from ravine.errors import InputError


def rescale(x: Tensor | Rows, *, low: Real = 0.0, high: Real = 1.0, of: Literal["inputs", "targets"] = "inputs") -> Transform:
    """Map the range of the data onto [low, high], one factor for everything.

    y = low + (high - low) (x - a) / (b - a), where [a, b] is 0 to 255 for bytes (0 to 1 if no byte is above 1), and the
    smallest and largest value of the training part for all else. Can be undone.

    >>> rescale(torch.tensor([[0, 51, 255]], dtype=torch.uint8))(torch.tensor([[51.0]]))
    tensor([[0.2000]], dtype=torch.float64)
    """
    if high <= low:
        raise InputError("preprocess.rescale", got=(low, high), expected="low < high")
    seen = moments(x, "global")
    a, b = seen.low, seen.high
    if Rows.of(x).dtype == torch.uint8:
        a, b = torch.zeros_like(a), torch.full_like(b, 255.0 if b.max() > 1 else 1.0)
    return _onto(a, b, low, high)


def center(x: Tensor | Rows, *, per: Literal["feature", "channel", "global"] = "feature", of: Literal["inputs", "targets"] = "inputs") -> Transform:
    """Subtract the mean: y = x - mean(x). Can be undone.

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
    """Zero mean and unit variance: y = (x - mean) / (sd + epsilon), sd over N as in scikit-learn. Can be undone.

    What is constant in the training part is centred and left unscaled.

    >>> standardize(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))(torch.tensor([[3.0, 6.0]]))
    tensor([[1., 1.]], dtype=torch.float64)
    """
    seen = moments(x, per)
    deviation = seen.variance.sqrt()
    tiny = deviation <= 10 * torch.finfo(torch.float64).eps * seen.mean.abs()  # constant up to rounding
    deviation = torch.where(tiny, 1.0, deviation + epsilon)
    return Affine(shift=seen.mean, scale=1 / deviation)


def _onto(a: Tensor, b: Tensor, low: float, high: float) -> Affine:
    """The map of [a, b] onto [low, high]; where a = b, onto low."""
    width = torch.where(b > a, b - a, 1.0)
    scale = (high - low) / width
    return Affine(shift=a - low / scale, scale=scale)
