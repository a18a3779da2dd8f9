"""The only randomness of augmentation, and the samples it works on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ravine import randomness
from ravine.data.warp import Warp, resolve


class Draw:
    """Random numbers as a function of what they are for: the n-th call with the same parts gives the same numbers, on any device.

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
        return randomness.uniform(torch.tensor(self._key(), device=self.device), shape) * (high - low) + low

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
        return torch.from_numpy(np.random.default_rng(self._key()).beta(alpha, alpha, size)).float().to(self.device)

    def permutation(self, size: int) -> Tensor:
        return self.uniform(size).argsort()


class Samples:
    """A batch on its way through augmentation.

    Geometric techniques only compose a warp; the first one that needs pixels, or the end, samples the image once. ``low``, ``high`` [1 or C or D] and
    ``deviation`` are of the training part, before preprocessing.
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
    def x(self) -> Tensor:
        if self._warp is not None:
            self._x, self._warp = resolve(self._x, self._warp), None
        return self._x

    def with_x(self, x: Tensor) -> Samples:
        self.x  # noqa: B018  a warp that is still open is replaced with the pixels
        self._x = x
        return self

    def warped(self, warp: Warp) -> Samples:
        """Compose with what is open, or close that first where the two fill differently."""
        if self._warp is None or (self._warp.fill, self._warp.value) == (warp.fill, warp.value):
            self._warp = warp if self._warp is None else self._warp.then(warp)
        else:
            self.x  # noqa: B018
            self._warp = warp
        return self
