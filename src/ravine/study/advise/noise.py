"""What a gap between errors may be by chance alone: the size of the validation part, and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 1.96  # deviations that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Noise:
    """Half of the interval that holds 95 % of the validation error's values, had other ``samples``
    been held back (``of_samples``) and had other seeds been trained (``of_seeds``; None where no
    run with another seed is known)."""

    of_samples: float
    samples: int
    of_seeds: float | None = None
    seeds: int = 1

    @property
    def size(self) -> float:
        """Both together: independent causes add by their squares."""
        return math.hypot(self.of_samples, self.of_seeds or 0.0)

    @property
    def words(self) -> str:
        """What the noise is of.

        >>> Noise(0.03, 160).words, Noise(0.03, 160, 0.01, 3).words
        ('the noise of 160 validation samples', 'the noise of 160 validation samples and 3 seeds')
        """
        seeds = f" and {self.seeds} seeds" if self.of_seeds is not None else ""
        return f"the noise of {self.samples:,} validation samples{seeds}"


def noise_of(sample_errors: np.ndarray, unit: str, seed_errors: Sequence[float]) -> Noise:
    """The noise of a validation error: ``sample_errors`` [N] are 0 and 1 where ``unit`` is error,
    else squared; ``seed_errors`` the validation errors of all runs that differ in their seeds
    alone.

    The mean of N samples has the deviation sd / sqrt(N); the root of a mean m has that over
    2 sqrt(m). Of mistakes two more and two fewer are counted: few samples without one are no certainty.

    >>> noise_of(np.repeat([0.0, 1.0], [120, 40]), "error", [0.25]).of_samples.__round__(4)
    0.0668
    >>> noise_of(np.zeros(12), "error", [0.0]).of_samples.__round__(2)
    0.16

    Source: Agresti and Coull, "Approximate is better than 'exact' for interval estimation of
    binomial proportions", 1998.
    """
    count, mean = len(sample_errors), float(sample_errors.mean())
    if unit == "error":
        share = (float(sample_errors.sum()) + 2) / (count + 4)
        deviation = math.sqrt(share * (1 - share) / (count + 4))
    else:
        deviation = float(sample_errors.std()) / math.sqrt(count)
        deviation /= max(2 * math.sqrt(mean), 1e-12)
    if len(seed_errors) < 2:
        return Noise(LEVEL * deviation, count)
    of_seeds = LEVEL * float(np.std(seed_errors, ddof=1))
    return Noise(LEVEL * deviation, count, of_seeds, len(seed_errors))
