"""What pictures of more than 8 bits and transparent ones become: one rule for all pictures of a set, which
is kept for new ones. Measured on training pictures, for no file says it: 12 bits are stored in 16."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

MEASURED = 256  # pictures that are looked at, spread over those of training
_NEAR = 0.1  # of the way from black to white: a shape is lost before a ground as near as this
_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners have
_LEAST_REAL = 1 / 8  # pictures of 0 to 1 whose largest number is below are not known as such
_WHOLE = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_CLEAR = ("RGBA", "LA", "PA", "La", "RGBa")


def deep(image: Image.Image) -> str:
    """Of which numbers a picture of more than 8 bits is, whole or real; empty for others."""
    return "real" if image.mode == "F" else "whole" if image.mode in _WHOLE else ""


def clear(image: Image.Image) -> bool:
    """Whether parts of a picture may be transparent."""
    return not deep(image) and (image.mode in _CLEAR or "transparency" in image.info)


@dataclass(frozen=True)
class Levels:
    """The numbers that become 0 and 255, in pictures of whole numbers and of real ones, and the ground
    (of 0 to 255) that is seen through transparent parts."""

    whole: tuple[float, float] = (0, 65535)
    real: tuple[float, float] = (0, 1)
    ground: int = 255

    def facts(self) -> dict[str, Any]:
        """As a run keeps them."""
        return {"whole": list(self.whole), "real": list(self.real), "ground": self.ground}

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None) -> Levels:
        """Those that a run has kept, if it has."""
        if kept is None:
            return cls()
        (least, most), (low, high) = kept["whole"], kept["real"]
        return cls((least, most), (low, high), int(kept["ground"]))

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture in 8 bits, nothing of it transparent."""
        if deep(image):
            low, high = self.real if image.mode == "F" else self.whole
            pixels = np.nan_to_num(np.asarray(image, np.float32), nan=low)
            scaled = ((pixels - low) * (255 / (high - low))).clip(0, 255)
            return Image.fromarray(np.rint(scaled).astype(np.uint8))
        if clear(image):
            whole = _rgba(image)
            ground = Image.new("RGBA", image.size, (self.ground,) * 3 + (255,))
            return Image.alpha_composite(ground, whole).convert("RGB")
        return image


def _rgba(image: Image.Image) -> Image.Image:
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


@dataclass
class Seen:
    """What one picture tells: the least and largest of its whole or real numbers, or how light what is
    seen of it is, from 0 to 1."""

    whole: tuple[float, float] | None = None
    real: tuple[float, float] | None = None
    light: float | None = None


def look(image: Image.Image) -> Seen:
    """What a picture tells of the rule for its set."""
    if deep(image):
        pixels = np.asarray(image)
        pixels = pixels[np.isfinite(pixels)]
        ends = (float(pixels.min()), float(pixels.max())) if pixels.size else None
        return Seen(real=ends) if image.mode == "F" else Seen(whole=ends)
    if clear(image):
        rgba = _rgba(image)
        alpha = np.asarray(rgba.getchannel("A"), np.float64)
        if 0 < alpha.sum() < 255 * alpha.size:
            light = np.asarray(rgba.convert("RGB").convert("L"), np.float64)
            return Seen(light=float((light * alpha).sum() / alpha.sum() / 255))
    return Seen()


def levels_for(seen: Sequence[Seen]) -> Levels:
    """The rule for a set, by some of its pictures. Transparent parts are white, unless more pictures are
    nearly white themselves than nearly black."""
    whole = _ends([each.whole for each in seen if each.whole])
    real = _ends([each.real for each in seen if each.real])
    lights = [each.light for each in seen if each.light is not None]
    pale = sum(light >= 1 - _NEAR for light in lights)
    dark = sum(light <= _NEAR for light in lights)
    return Levels(
        _around(whole, _most_whole) if whole else Levels.whole,
        _around(real, _most_real) if real else Levels.real,
        0 if pale > dark else 255,
    )


def _ends(pairs: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    return (min(low for low, _ in pairs), max(high for _, high in pairs)) if pairs else None


def _around(ends: tuple[float, float], most: Callable[[float], float]) -> tuple[float, float]:
    """The range from 0 on, or as far below it as above where there are numbers below."""
    high = most(max(abs(end) for end in ends))
    return (0 if ends[0] >= 0 else -high), high


def _most_whole(largest: float) -> float:
    """The largest number of the depth that a whole number needs.

    >>> [_most_whole(n) for n in (1, 255, 3987, 70000)]
    [255, 255, 4095, 131071]
    """
    bits = max(1, math.ceil(math.log2(largest + 1)))
    return 2 ** next((depth for depth in _DEPTHS if bits <= depth), bits) - 1


def _most_real(largest: float) -> float:
    """1 for fractions; as for whole numbers where they were turned into real ones (0 to 255); else the
    power of two above.

    >>> [_most_real(n) for n in (0.9, 1, 1.5, 255, 0.01, 0)]
    [1, 1, 2, 255, 0.015625, 1]
    """
    if largest == 0 or _LEAST_REAL <= largest <= 1:
        return 1
    if largest > 128:
        return _most_whole(largest)
    return 2 ** math.ceil(math.log2(largest))
