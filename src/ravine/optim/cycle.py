"""The arcs that cyclic schedules are made of, for rates and for momenta."""

from __future__ import annotations

import numpy as np


def between(start: float, end: float, part: np.ndarray, anneal: str) -> np.ndarray:
    """From ``start`` at part 0 to ``end`` at part 1, along half a cosine or a line; both ends
    exact.

    >>> between(1.0, 0.0, np.array([0.0, 0.5, 1.0]), "linear").tolist()
    [1.0, 0.5, 0.0]
    """
    weight = part if anneal == "linear" else 0.5 * (1 - np.cos(np.pi * part))
    return (1 - weight) * start + weight * end


def one_cycle_edges(total: int, rise: float, three_phase: bool) -> list[float]:
    """The steps at which the phases of a one-cycle schedule begin and end; the last is the last
    step of the run.

    >>> one_cycle_edges(10, 0.3, False)
    [0.0, 2.0, 9.0]
    """
    least = 1e-9  # a phase of a run too short for it
    ends = (
        [rise * total - 1, 2 * rise * total - 2, total - 1]
        if three_phase
        else [rise * total - 1, total - 1]
    )
    edges = [0.0]
    for end in ends:
        edges.append(max(float(end), edges[-1] + least))
    return edges


def one_cycle_momentum(
    t: np.ndarray, total: int, rise: float, three_phase: bool, anneal: str, base: float, top: float
) -> np.ndarray:
    """The momentum of a one-cycle schedule: from ``top`` to ``base`` while the rate rises, and
    back.

    >>> one_cycle_momentum(np.array([0, 2, 9]), 10, 0.3, False, "cos", 0.85, 0.95).tolist()
    [0.95, 0.85, 0.95]
    """
    edges = one_cycle_edges(total, rise, three_phase)
    down = between(top, base, t / edges[1], anneal)
    up = between(base, top, np.minimum((t - edges[1]) / (edges[2] - edges[1]), 1.0), anneal)
    return np.where(t <= edges[1], down, up)
