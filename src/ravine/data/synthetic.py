"""Data made on the spot: shapes in the plane, rendered characters, and the sequence tasks of
recurrent networks.

Every function here is a technique: it receives ``root``, which it does not need, and gives a
``Source``. Equal numbers and an equal ``seed`` give equal data.
"""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ravine.catalogue import Count, Integer, NonNegative, Positive, Probability
from ravine.data.objects.pairs import from_pairs
from ravine.data.room import check_made
from ravine.data.source import Source
from ravine.errors import InputError

_ALPHABETS = {
    "upper": string.ascii_uppercase,
    "lower": string.ascii_lowercase,
    "digits": string.digits,
    "letters": string.ascii_letters,
}
# of the copying task; 0 stays free, as it is the padding of token sequences
_BLANK, _GO, _SYMBOLS = (
    1,
    2,
    8,
)


def blobs(
    root: Path,
    *,
    samples: Count = 1000,
    classes: Count = 3,
    features: Count = 2,
    deviation: Positive = 1.0,
    seed: Integer = 0,
) -> Source:
    """Gaussian clouds, one a class, around centres drawn from [-10, 10] (scikit-learn's
    make_blobs).

    ``samples`` points of ``features`` numbers in ``classes`` classes, equally many in each;
    ``deviation`` is each cloud's standard deviation, ``seed`` decides all that is drawn.

    Errors: fewer than 2 classes.

    >>> blobs(Path(), samples=9).parts["train"].x.shape
    torch.Size([9, 2])
    """
    from sklearn.datasets import make_blobs

    if classes < 2:
        raise InputError("data.source.classes", got=classes, expected="at least 2")
    check_made("features", features, features * (classes + 2.0 * samples))
    x, y = make_blobs(
        samples, features, centers=classes, cluster_std=deviation, random_state=_state(seed)
    )[:2]
    return from_pairs({"train": (x.astype(np.float32), y)})


def circles(
    root: Path,
    *,
    samples: Count = 1000,
    noise: NonNegative = 0.1,
    factor: Probability = 0.5,
    seed: Integer = 0,
) -> Source:
    """Two circles in the plane, the inner one of radius ``factor`` (scikit-learn's make_circles).

    ``samples`` points, half on each circle of radii 1 and ``factor``; ``noise`` is the standard
    deviation of both coordinates, ``seed`` decides what is drawn.

    Errors: ``factor`` is 1, where both circles are one.

    >>> circles(Path(), samples=8).parts["train"].x.shape
    torch.Size([8, 2])
    """
    from sklearn.datasets import make_circles

    if factor == 1:
        raise InputError("data.source.factor", got=factor, expected="below 1")
    check_made("samples", samples, 6.0 * samples)
    x, y = make_circles(samples, noise=noise, factor=factor, random_state=_state(seed))
    return from_pairs({"train": (x.astype(np.float32), y)})


def spirals(
    root: Path,
    *,
    samples: Count = 900,
    classes: Count = 3,
    turns: Positive = 0.75,
    noise: NonNegative = 0.2,
    seed: Integer = 0,
) -> Source:
    """Interleaved spirals in the plane, one a class: radius r from 0 to 1, angle 2 pi (turns r +
    class / classes) + noise.

    ``noise`` is the standard deviation of the angle, in radians.

    ``samples`` points in ``classes`` classes; ``seed`` decides the noise.

    Errors: fewer than 2 classes.

    >>> spirals(Path(), samples=9).parts["train"].x.shape
    torch.Size([9, 2])
    """
    if classes < 2:
        raise InputError("data.source.classes", got=classes, expected="at least 2")
    check_made("samples", samples, 8.0 * samples)
    random = np.random.default_rng(_state(seed))
    y = np.arange(samples) % classes
    radius = (np.arange(samples) // classes + 1) / -(-samples // classes)
    angle = 2 * np.pi * (turns * radius + y / classes) + random.normal(0, noise, samples)
    x = np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1)
    return from_pairs({"train": (x.astype(np.float32), y)})


def characters(
    root: Path,
    *,
    samples: Count = 2600,
    size: Count = 28,
    alphabet: Literal["upper", "lower", "digits", "letters"] = "upper",
    rotation: NonNegative = 15.0,
    noise: NonNegative = 0.05,
    seed: Integer = 0,
) -> Source:
    """Rendered characters: uint8 [1, size, size], one class a character, of random height, place
    and tilt.

    Drawn with the font that Pillow brings. ``rotation`` is the largest tilt in degrees, ``noise``
    the standard deviation of noise as a fraction of the full range. No download.

    ``samples`` images of ``size`` by ``size`` pixels; ``alphabet`` says of which characters:
    upper, lower (26 classes each), digits (10) or letters (52). ``seed`` decides all that is
    drawn.

    Errors: fewer samples than characters.

    >>> characters(Path(), samples=26, size=12).parts["train"].x.shape
    torch.Size([26, 1, 12, 12])
    """
    letters = _ALPHABETS[alphabet]
    if samples < len(letters):
        raise InputError(
            "data.source.samples",
            got=samples,
            expected=f"at least {len(letters)}, one for each character",
        )
    check_made("size", size, 3.0 * samples * size**2)
    random = np.random.default_rng(_state(seed))
    y = np.arange(samples) % len(letters)
    x = np.stack([_render(letters[k], size, rotation, random) for k in y]).astype(np.float64)
    x = np.clip(x + random.normal(0, 255 * noise, x.shape), 0, 255).round().astype(np.uint8)
    return from_pairs({"train": (x[:, None], y)}, classes=tuple(letters))


def parity(root: Path, *, samples: Count = 4000, length: Count = 10, seed: Integer = 0) -> Source:
    """Sequences [length, 1] of -1 and 1; the class is whether the number of ones is odd.

    ``seed`` decides the bits of the ``samples`` sequences.

    >>> parity(Path(), samples=6, length=4).parts["train"].x.shape
    torch.Size([6, 4, 1])
    """
    check_made("length", length, 3.0 * samples * length)
    random = np.random.default_rng(_state(seed))
    bits = random.integers(0, 2, (samples, length))
    bits[0, 0] ^= bits[: min(2, samples)].sum() % 2 == 0  # both classes occur
    return from_pairs(
        {"train": ((2.0 * bits - 1)[:, :, None].astype(np.float32), bits.sum(1) % 2)},
        classes=("even", "odd"),
    )


def copying(
    root: Path, *, samples: Count = 4000, symbols: Count = 10, delay: Count = 20, seed: Integer = 0
) -> Source:
    """The copying task: remember ``symbols`` symbols over ``delay`` blanks, then output them.

    Inputs are tokens [T], T = 2 symbols + delay: the symbols (3 to 10), blanks (1), a signal (2),
    blanks. The target at each step is a blank, and at the last ``symbols`` steps the symbols.

    ``seed`` decides the symbols of the ``samples`` sequences.

    >>> copying(Path(), samples=6, symbols=3, delay=2).parts["train"].x.shape
    torch.Size([6, 8])

    Source: Hochreiter, Schmidhuber 1997; in this form Arjovsky, Shah, Bengio, "Unitary evolution
    recurrent neural networks", 2016.
    """
    check_made("delay", delay, 3.0 * samples * (2 * symbols + delay))
    random = np.random.default_rng(_state(seed))
    drawn = random.integers(3, 3 + _SYMBOLS, (samples, symbols))
    drawn.flat[:_SYMBOLS] = np.arange(3, 3 + min(_SYMBOLS, drawn.size))
    x = np.full((samples, 2 * symbols + delay), _BLANK)
    x[:, :symbols] = drawn
    x[:, symbols + delay - 1] = _GO
    y = np.full_like(x, _BLANK)
    y[:, -symbols:] = drawn
    names = ("padding", "blank", "go", *"abcdefgh")
    source = from_pairs({"train": (x, y)}, "sequence", classes=names)
    source.vocabulary = len(names)
    return source


def adding(root: Path, *, samples: Count = 4000, length: Count = 50, seed: Integer = 0) -> Source:
    """The adding task: sequences [length, 2] of uniform numbers and marks; the target is the sum of
    the two that are marked.

    Each half has one mark. Always answering 1 has a squared error of 1/6.

    ``seed`` decides the numbers and marks of the ``samples`` sequences.

    Errors: ``length`` below 2.

    >>> adding(Path(), samples=6, length=4).parts["train"].x.shape
    torch.Size([6, 4, 2])

    Source: Hochreiter, Schmidhuber, "Long short-term memory", 1997.
    """
    if length < 2:
        raise InputError("data.source.length", got=length, expected="at least 2")
    check_made("length", length, 5.0 * samples * length)
    random = np.random.default_rng(_state(seed))
    values, marks, rows = (
        random.random((samples, length)),
        np.zeros((samples, length)),
        np.arange(samples),
    )
    first, second = (
        random.integers(0, length // 2, samples),
        random.integers(length // 2, length, samples),
    )
    marks[rows, first] = marks[rows, second] = 1
    target = values[rows, first] + values[rows, second]
    return from_pairs(
        {"train": (np.stack([values, marks], 2).astype(np.float32), target.astype(np.float32))}
    )


def _state(seed: int) -> int:
    return seed % 2**32


@cache
def _font(height: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(height)


def _render(character: str, size: int, rotation: float, random: np.random.Generator) -> np.ndarray:
    """One character as an array [size, size], white on black."""
    from PIL import Image, ImageDraw

    font = _font(max(1, round(size * random.uniform(0.6, 0.9))))
    canvas = Image.new("L", (size, size))
    left, top, right, bottom = font.getbbox(character)
    place = (
        random.uniform(-0.08, 0.08, 2) * size
        + size / 2
        - np.array([left + right, top + bottom]) / 2
    )
    ImageDraw.Draw(canvas).text(tuple(place), character, fill=255, font=font)
    return np.asarray(canvas.rotate(random.uniform(-rotation, rotation), Image.Resampling.BILINEAR))
