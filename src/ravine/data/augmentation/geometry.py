"""Geometric augmentation of images: batched, on the device, each sample by its own draw, the label
kept.

Every function here is a technique: it receives the raw samples of a training batch, before
preprocessing, and a ``Draw``, the only randomness. Those in a row are one affine map that is
sampled once (bilinear); flips and whole-pixel shifts are exact, and bytes stay bytes. ``fill`` says
what fills the outside of the image: the nearest pixel, a constant ``value``, or the image reflected at
its edge.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ravine.catalogue import Count, Flag, Positive, Probability, Real
from ravine.data.augmentation.draw import Draw, Samples, need_images
from ravine.data.augmentation.warp import Warp, matrix
from ravine.errors import InputError


def flip(
    batch: Samples,
    draw: Draw,
    *,
    axis: Literal["horizontal", "vertical", "both"] = "horizontal",
    p: Probability = 0.5,
) -> Samples:
    """Mirror images left to right, upside down, or both by independent chances, each with
    probability ``p``.

    ``axis`` horizontal: left to right; vertical: upside down.

    Errors: the samples are not images [C, H, W].

    >>> from ravine.data.augmentation.draw import samples
    >>> flip(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0), p=1.0).x
    tensor([[[[2., 1.],
              [4., 3.]]]])
    """
    need_images(batch, "flip")
    across = _sign(draw.chance(len(batch), p)) if axis != "vertical" else 1.0
    down = _sign(draw.chance(len(batch), p)) if axis != "horizontal" else 1.0
    return batch.warped(Warp(matrix(across, 0, 0, 0, down, 0), None, 0.0, exact=True))


def shift(
    batch: Samples,
    draw: Draw,
    *,
    pixels: Count = 2,
    fraction: Probability | None = None,
    fill: Literal["nearest", "constant", "reflect"] = "constant",
    value: Real = 0.0,
) -> Samples:
    """Move images by whole pixels, uniformly from -``pixels`` to ``pixels`` each way.

    ``fraction`` takes the place of ``pixels``: up to this part of the width across and of the height
    down, in whole pixels (Keras's shift ranges below 1).

    ``fill`` says what fills the outside of the image: the nearest pixel, a constant ``value`` (of the
    raw samples), or the image reflected at its edge.

    Errors: the samples are not images [C, H, W].

    >>> from ravine.data.augmentation.draw import samples
    >>> shift(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0), pixels=1).x.shape
    torch.Size([1, 1, 2, 2])
    """
    need_images(batch, "shift")
    height, width = batch.shape[2:]
    most = [pixels if fraction is None else round(fraction * side) for side in (width, height)]
    across, down = (draw.integers(len(batch), low=-n, high=n).float() for n in most)
    return batch.warped(Warp(matrix(1, 0, -across, 0, 1, -down), fill, value, exact=True))


def crop(
    batch: Samples,
    draw: Draw,
    *,
    padding: Count = 4,
    fill: Literal["nearest", "constant", "reflect"] = "constant",
    value: Real = 0.0,
) -> Samples:
    """Pad each side by ``padding`` pixels and cut out a random part of the original size: usual
    for CIFAR-10.

    The same as ``shift`` by as many pixels.

    ``fill`` says what fills the outside of the image: the nearest pixel, a constant ``value`` (of the
    raw samples), or the image reflected at its edge.

    Errors: the samples are not images [C, H, W].

    >>> from ravine.data.augmentation.draw import samples
    >>> crop(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0), padding=1).x.shape
    torch.Size([1, 1, 2, 2])

    Source: He et al., "Deep residual learning for image recognition", 2016.
    """
    return shift(batch, draw, pixels=padding, fill=fill, value=value)


def resized_crop(
    batch: Samples,
    draw: Draw,
    *,
    scale: tuple[Probability, Probability] = (0.08, 1.0),
    ratio: tuple[Positive, Positive] = (0.75, 1.3333333333333333),
) -> Samples:
    """Cut out a rectangle of random area and aspect and enlarge it to the image's size (bilinear).

    Its area is the image's times a uniform number from ``scale``, its width over its height
    log-uniform from ``ratio`` (both cut to the image), its place uniform.

    Errors: the samples are not images [C, H, W]; ``scale`` or ``ratio`` is no (low, high) with
    low > 0.

    >>> from ravine.data.augmentation.draw import samples
    >>> resized_crop(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0), scale=(0.5, 1.0)).x.shape
    torch.Size([1, 1, 2, 2])

    Source: Szegedy et al., "Going deeper with convolutions", 2015.
    """
    need_images(batch, "resized_crop")
    if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:  # tiny ones count as 0
        raise InputError(
            "data.augment.resized_crop",
            got=f"scale {scale}, ratio {ratio}",
            expected="(low, high), low > 0",
        )
    size = len(batch)
    height, width = batch.shape[2:]
    area = draw.uniform(size, low=scale[0], high=scale[1])
    aspect = torch.exp(draw.uniform(size, low=math.log(ratio[0]), high=math.log(ratio[1])))
    # fractions of the width and of the height
    across = (area * aspect * height / width).sqrt().clamp(max=1.0)
    down = (area / aspect * width / height).sqrt().clamp(max=1.0)
    right = draw.uniform(size, low=-0.5, high=0.5) * (1 - across) * width
    below = draw.uniform(size, low=-0.5, high=0.5) * (1 - down) * height
    return batch.warped(Warp(matrix(across, 0, right, 0, down, below), None, 0.0, exact=False))


def rotate(
    batch: Samples,
    draw: Draw,
    *,
    degrees: Positive = 10.0,
    fill: Literal["nearest", "constant", "reflect"] = "constant",
    value: Real = 0.0,
) -> Samples:
    """Turn images about their centre by an angle uniform in [-``degrees``, ``degrees``].

    ``fill`` says what fills the outside of the image: the nearest pixel, a constant ``value`` (of the
    raw samples), or the image reflected at its edge.

    Errors: the samples are not images [C, H, W].

    >>> from ravine.data.augmentation.draw import samples
    >>> rotate(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0), degrees=45.0).x.shape
    torch.Size([1, 1, 2, 2])
    """
    need_images(batch, "rotate")
    angle = draw.uniform(len(batch), low=-degrees, high=degrees) * (math.pi / 180)
    cosine, sine = angle.cos(), angle.sin()
    return batch.warped(Warp(matrix(cosine, -sine, 0, sine, cosine, 0), fill, value, exact=False))


def zoom(
    batch: Samples,
    draw: Draw,
    *,
    low: Positive = 0.9,
    high: Positive = 1.1,
    apart: Flag = False,
    fill: Literal["nearest", "constant", "reflect"] = "constant",
    value: Real = 0.0,
) -> Samples:
    """Scale images about their centre by a factor log-uniform in [``low``, ``high``]; above 1
    enlarges.

    ``apart``: the width and the height by a factor each, as Keras's zoom range.

    ``fill`` says what fills the outside of the image: the nearest pixel, a constant ``value`` (of the
    raw samples), or the image reflected at its edge.

    Errors: the samples are not images [C, H, W]; ``low`` is above ``high``.

    >>> from ravine.data.augmentation.draw import samples
    >>> zoom(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0), high=2.0).x.shape
    torch.Size([1, 1, 2, 2])
    """
    need_images(batch, "zoom")
    if low > high:
        raise InputError(
            "data.augment.zoom", got=f"low = {low}, high = {high}", expected="low at most high"
        )
    ends = {"low": math.log(low), "high": math.log(high)}
    across = torch.exp(draw.uniform(len(batch), **ends))
    down = torch.exp(draw.uniform(len(batch), **ends)) if apart else across
    return batch.warped(Warp(matrix(1 / across, 0, 0, 0, 1 / down, 0), fill, value, exact=False))


def shear(
    batch: Samples,
    draw: Draw,
    *,
    degrees: Positive = 10.0,
    fill: Literal["nearest", "constant", "reflect"] = "constant",
    value: Real = 0.0,
) -> Samples:
    """Slant images horizontally and vertically, each by an angle uniform in [-``degrees``,
    ``degrees``] (below 90).

    ``fill`` says what fills the outside of the image: the nearest pixel, a constant ``value`` (of the
    raw samples), or the image reflected at its edge.

    Errors: the samples are not images [C, H, W]; ``degrees`` is 90 or more.

    >>> from ravine.data.augmentation.draw import samples
    >>> shear(samples([[[[1.0, 2.0], [3.0, 4.0]]]]), Draw(0), degrees=20.0).x.shape
    torch.Size([1, 1, 2, 2])
    """
    need_images(batch, "shear")
    if degrees >= 90:
        raise InputError("data.augment.shear.degrees", got=degrees, expected="below 90")
    across, down = (
        torch.tan(draw.uniform(len(batch), low=-degrees, high=degrees) * (math.pi / 180))
        for _ in range(2)
    )
    return batch.warped(Warp(matrix(1, across, 0, down, 1, 0), fill, value, exact=False))


def _sign(turned: Tensor) -> Tensor:
    return 1.0 - 2.0 * turned.float()
