"""Augmentation: batched, on the device, each sample by its own draw, the label kept (mixup and cutmix apart).

Every function here is a technique: it receives the samples of a training batch before preprocessing and a ``Draw``, the only randomness.
Geometric techniques in a row are one affine map, sampled once; flips and whole-pixel shifts are exact.
"""

from __future__ import annotations

from typing import Literal

from ravine.catalogue import Count, Probability, Real
from ravine.data.draw import Draw, Samples
from ravine.data.warp import Warp, matrix
from ravine.errors import InputError


def flip(
    batch: Samples, draw: Draw, *, axis: Literal["horizontal", "vertical", "both"] = "horizontal", p: Probability = 0.5
) -> Samples:
    """Mirror images left to right, upside down, or each by its own chance, with probability ``p``."""
    _images(batch, "flip")
    sign_x = 1.0 - 2.0 * draw.chance(len(batch), p).float() if axis != "vertical" else 1.0
    sign_y = 1.0 - 2.0 * draw.chance(len(batch), p).float() if axis != "horizontal" else 1.0
    return batch.warped(Warp(matrix(sign_x, 0, 0, 0, sign_y, 0), "constant", 0.0, exact=True))


def shift(
    batch: Samples,
    draw: Draw,
    *,
    pixels: Count = 2,
    fill: Literal["nearest", "constant", "reflect"] = "constant",
    value: Real = 0.0,
) -> Samples:
    """Move images by whole pixels, -``pixels`` to ``pixels`` each way."""
    _images(batch, "shift")
    across, down = (draw.integers(len(batch), low=-pixels, high=pixels).float() for _ in range(2))
    return batch.warped(Warp(matrix(1, 0, -across, 0, 1, -down), fill, value, exact=True))


def _images(batch: Samples, name: str) -> None:
    if len(batch.shape) != 4:
        raise InputError(
            f"data.augment.{name}", got=f"samples of shape {list(batch.shape[1:])}", expected="images [C, H, W]"
        )
