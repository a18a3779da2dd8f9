"""Preprocessing by the shape of a feature's distribution: far-off values, and skewed ones.

Every function here is a technique like those of ``preprocess``: raw training inputs x [N, ...] in,
a ``Transform`` fitted to them out, in float64.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ravine.catalogue import NonNegative
from ravine.data.preprocessing.statistics import Rows, moments
from ravine.data.preprocessing.transform import Power, SmoothClip, Transform


def robust(x: Tensor | Rows, *, clip: NonNegative = 3.0) -> Transform:
    """Median and quartiles instead of mean and deviation, and a smooth clip: z = (x - median) /
    (q75 - q25), y = z / sqrt(1 + (z / clip)^2).

    Where both quartiles are equal, z = 2 (x - median) / (max - min); what is constant becomes 0.
    Far-off values end within (-clip, clip); ``clip = 0`` leaves them. Quartiles by linear
    interpolation, as in scikit-learn's RobustScaler. Can be undone.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    >>> robust(x, clip=0.0)(torch.tensor([[4.0]]))
    tensor([[1.]], dtype=torch.float64)

    Source: Holzmüller, Grinsztajn and Steinwart, "Better by default", 2024.
    """
    rows = torch.cat(list(Rows.of(x).chunks()))
    quartiles = np.nanquantile(rows.cpu().numpy(), (0.25, 0.5, 0.75), axis=0)
    low, median, high = (torch.from_numpy(np.atleast_1d(q))[None] for q in quartiles)
    seen = moments(x, "feature")
    spread, width = high - low, (seen.high - seen.low).expand_as(low)
    scale = torch.where(spread > 0, 1 / torch.where(spread > 0, spread, 1.0), 0.0)
    scale = torch.where((spread == 0) & (width > 0), 2 / torch.where(width > 0, width, 1.0), scale)
    return SmoothClip({"limit": clip}, shift=median[0], scale=scale[0])


def yeo_johnson(
    x: Tensor | Rows,
    *,
    least_skew: NonNegative = 1.0,
    of: Literal["inputs", "targets"] = "inputs",
) -> Transform:
    """A power that makes each skewed feature as normal as can be, by maximum likelihood.

    For x >= 0 y = ((x + 1)^p - 1) / p, log(x + 1) where p = 0; for x < 0 y = -((1 - x)^(2 - p) - 1)
    / (2 - p). Features whose skewness is at most ``least_skew`` in size are left as they are (p =
    1). With of = "targets" predictions come back in the target's units. Can be undone.

    >>> yeo_johnson(torch.tensor([[1.0], [2.0], [3.0]]))(torch.tensor([[2.0]]))
    tensor([[2.]], dtype=torch.float64)

    Source: Yeo and Johnson, "A new family of power transformations to improve normality or
    symmetry", 2000.
    """
    from scipy import stats

    rows = torch.cat(list(Rows.of(x).chunks())).flatten(1).cpu().numpy()  # [N, F]
    powers = []
    for column in rows.T:
        known = column[np.isfinite(column)]
        skewed = len(known) > 2 and known.std() > 0 and abs(stats.skew(known)) > least_skew
        powers.append(float(stats.yeojohnson_normmax(known)) if skewed else 1.0)
    power = torch.tensor(powers, dtype=torch.float64)
    seen = moments(x, "feature")
    room = seen.high - seen.low
    ends = Power({}, power=power, low=power, high=power)
    everything = torch.where(power == 1, torch.inf, 0.0)
    low, high = ends(seen.low - room) - everything, ends(seen.high + room) + everything
    return Power({}, power=power, low=low.flatten(), high=high.flatten())
