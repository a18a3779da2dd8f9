"""The only randomness of augmentation, and the samples it works on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ravine import randomness
from ravine.data.augmentation.warp import Warp, resolve
from ravine.data.preprocessing.statistics import Rows, moments
from ravine.errors import InputError


class Draw:
    """Random numbers as a function of what they are for: equal parts give equal numbers, call by
    call, on any device.

    >>> bool((Draw(0, "augment", 3).uniform(4) == Draw(0, "augment", 3).uniform(4)).all())
    True
    """

    def __init__(self, *parts: int | str, device: torch.device | str = "cpu"):
        self.parts, self.device, self.calls = parts, device, 0

    def _key(self) -> int:
        self.calls += 1
        return randomness.key(*self.parts, self.calls)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 in [low, high)."""
        return (
            randomness.uniform(torch.tensor(self._key(), device=self.device), shape) * (high - low)
            + low
        )

    def normal(self, *shape: int) -> Tensor:
        """float32, standard normal."""
        return randomness.normal(torch.tensor(self._key(), device=self.device), shape)

    def integers(self, *shape: int, low: int, high: int) -> Tensor:
        """int64, both ends included."""
        return (self.uniform(*shape) * (high - low + 1)).long().clamp_(max=high - low) + low

    def chance(self, size: int, p: float) -> Tensor:
        """True with probability p."""
        return self.uniform(size) < p

    def beta(self, size: int, alpha: float) -> Tensor:
        """Beta(alpha, alpha) in float32."""
        drawn = np.random.default_rng(self._key()).beta(alpha, alpha, size)
        return torch.from_numpy(drawn).float().to(self.device)

    def permutation(self, size: int) -> Tensor:
        """A random order of 0 to size - 1."""
        return self.uniform(size).argsort()


class Samples:
    """A batch on its way through augmentation.

    Geometric techniques only compose a warp; the first that needs pixels, or the end, samples the
    images once. ``low`` and ``high`` (the range), ``mean`` and ``deviation`` are of the training
    part, before preprocessing.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        outputs: int,
        task: str,
        low: Tensor,
        high: Tensor,
        mean: Tensor,
        deviation: Tensor,
    ):
        self._x, self.y, self.outputs, self.task = x, y, outputs, task
        self.low, self.high, self.mean, self.deviation = low, high, mean, deviation
        self._warp: Warp | None = None

    def __len__(self) -> int:
        return len(self._x)

    @property
    def shape(self) -> torch.Size:
        return self._x.shape

    @property
    def device(self) -> torch.device:
        return self._x.device

    @property
    def tokens(self) -> bool:
        return self._x.ndim == 2 and self._x.dtype in (
            torch.int8,
            torch.int16,
            torch.int32,
            torch.int64,
        )

    @property
    def x(self) -> Tensor:
        """The inputs, an open warp applied."""
        if self._warp is not None:
            self._x, self._warp = resolve(self._x, self._warp), None
        return self._x

    def floats(self) -> Tensor:
        """The inputs as floats."""
        return self.x if self.x.is_floating_point() else self.x.float()

    def with_x(self, x: Tensor) -> Samples:
        """New inputs in the place of the old ones."""
        self._x, self._warp = x, None
        return self

    def warped(self, warp: Warp) -> Samples:
        """Compose with the open warp, or apply that one first where the two fill differently."""
        joined = self._warp.then(warp) if self._warp is not None else warp
        if joined is None:
            self._x, joined = self.x, warp
        self._warp = joined
        return self

    def soft_targets(self) -> Tensor:
        """Targets that can be mixed: classes as shares [B, K]."""
        if self.y.is_floating_point():
            return self.y
        return F.one_hot(self.y.long(), self.outputs).float()


def need_images(batch: Samples, name: str) -> None:
    """Refuse samples that are not images."""
    if len(batch.shape) != 4:
        shape = list(batch.shape[1:])
        raise InputError(
            f"data.augment.{name}", got=f"samples of shape {shape}", expected="images [C, H, W]"
        )


def samples(x: Any, y: Any = None, *, outputs: int = 2, task: str = "classification") -> Samples:
    """A batch [B, ...] with the statistics of its own: for trying a technique.

    >>> samples([[0.0, 1.0]]).shape
    torch.Size([1, 2])
    """
    x = torch.as_tensor(x)
    seen = of_inputs(Rows.of(x))
    return Samples(
        x,
        torch.zeros(len(x), dtype=torch.int64) if y is None else y,
        outputs=outputs,
        task=task,
        **seen,
    )


def of_inputs(rows: Rows) -> dict[str, Tensor]:
    """Range, mean and deviation of raw inputs, by channel (by feature for tables), as ``Samples``
    wants them."""
    seen = moments(rows, "channel" if len(rows.shape) >= 2 else "feature")
    low, high = seen.low.min(), seen.high.max()
    if rows.dtype == torch.uint8:
        low, high = torch.zeros_like(low), torch.full_like(high, 255.0 if high > 1 else 1.0)
    found = {"low": low, "high": high, "mean": seen.mean, "deviation": seen.variance.sqrt()}
    return {name: value.float() for name, value in found.items()}
