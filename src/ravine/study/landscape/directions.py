"""Directions in parameter space, and how rough a surface is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ravine.engine.rows.population import view
from ravine.layout import Layout
from ravine.randomness import generator


def filter_normalised(theta: Tensor, layout: Layout, seed: int, which: int) -> Tensor:
    """A random direction [D] as large, filter by filter, as the weights: d_f <- d_f / |d_f| |w_f|;
    biases and norms do not move.

    A filter is what makes one output: a row of a dense layer's matrix, a kernel of a convolution
    (of an untied one, of each position).

    Source: Li et al., "Visualizing the loss landscape of neural nets", 2018.
    """
    direction = torch.zeros_like(theta)
    for entry in layout.entries:
        if entry.kind != "weight":
            continue
        weights = view(theta, entry)
        drawn = torch.randn(
            entry.shape,
            generator=generator(seed, "direction", which, entry.name),
            dtype=torch.float64,
        ).to(theta.dtype)
        flat = drawn.reshape(entry.units, -1)
        sizes = weights.reshape(entry.units, -1).norm(dim=1, keepdim=True)
        direction[entry.start : entry.stop] = (
            flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12) * sizes
        ).reshape(-1)
    return direction


def principal(path: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """The two principal directions [2, D] of a path [S, D] seen from its end, its places there [S,
    2], the variance explained."""
    moved = (path - path[-1]).double()
    gram = moved @ moved.T  # [S, S]: as many values as steps, not as weights
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    directions = (vectors[:, :2].T @ moved) / values[:2].sqrt().clamp_min(1e-12)[:, None]
    places = moved @ directions.T
    whole = float(values.sum())
    return (
        directions.to(path.dtype),
        places,
        [float(v) / whole if whole else 0.0 for v in values[:2]],
    )


def roughness(surface: np.ndarray) -> float:
    """Excess variation of log loss over all grid lines: 0 where each line only falls and then only
    rises.

    For a line f, sum |f_{i+1} - f_i| - (f_first + f_last - 2 min f), averaged over rows and columns
    and divided by the range of the surface. A bowl of whatever steepness has 0; a surface with many
    bumps has much.

    >>> x = np.linspace(-1, 1, 21)
    >>> bowl = 0.1 + x[:, None] ** 2 + 9 * x[None] ** 2
    >>> round(roughness(bowl), 6), roughness(bowl * (1.5 + np.sin(20 * x))) > 0.2
    (0.0, True)
    """
    logs = np.log10(
        np.clip(
            np.where(np.isfinite(surface), surface, np.nanmax(surface[np.isfinite(surface)])),
            1e-12,
            None,
        )
    )
    lines = [logs, logs.T] if logs.shape[0] > 1 else [logs]
    excess = [
        np.abs(np.diff(part, axis=1)).sum(1) - (part[:, 0] + part[:, -1] - 2 * part.min(1))
        for part in lines
    ]
    spread = np.ptp(logs)
    return max(0.0, float(np.concatenate(excess).mean() / spread)) if spread > 0 else 0.0
