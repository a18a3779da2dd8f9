"""A noisy quadratic bowl: any differentiable function of parameters is a model, its output the loss
of each sample.

The loss of a sample x is (theta - x)' Q (theta - x) / 2, so the expected loss is least at theta =
E[x], and what is left there is the noise. Q has a few steep directions and many gentle ones: a
ravine. Three optimisers, each at its tuned learning rate, run on ten draws of the order; the
incomplete last batch of an epoch is dropped, and the order of a run is fixed.

    python examples/quadratic_bowl.py [directory]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ravine import Recipe
from ravine.study.compare.study import compare

DIMENSIONS, SAMPLES, STEEP = 100, 1000, 10


class Bowl(nn.Module):
    """(theta - x)' Q (theta - x) / 2 for each row x of a batch."""

    def __init__(self, q: Tensor):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(len(q)))
        self.register_buffer("q", q)

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B]
        away = self.theta - x
        return (away @ self.q * away).sum(1) / 2


def curvature(seed: int = 0) -> Tensor:
    """A matrix with 90 eigenvalues in (0, 1) and 10 in (30, 60), turned at random."""
    draw = np.random.default_rng(seed)
    values = np.concatenate([draw.uniform(0, 1, DIMENSIONS - STEEP), draw.uniform(30, 60, STEEP)])
    turn, _ = np.linalg.qr(draw.standard_normal((DIMENSIONS, DIMENSIONS)))
    return torch.tensor((turn * values) @ turn.T, dtype=torch.float32)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SAMPLES, DIMENSIONS)).astype(np.float32)


def main(directory: str = "bowl", epochs: int = 20, seeds: int = 10) -> dict:
    q = curvature()
    recipe = Recipe(
        name="quadratic bowl",
        loss="output",
        data={"batch": 128, "last_batch": "drop", "order": "fixed"},
        stop={"after": f"{epochs}ep"},
    )
    data = {"train": noise(1), "validation": noise(2), "test": noise(3)}
    found = compare(
        recipe,
        ["optimizer.kind=sgd,momentum,adam"],
        tune="lr",
        rates=[float(f"{r:.3g}") for r in np.logspace(-4, 0, 9)],
        seeds=seeds,
        resample=True,
        model=lambda: Bowl(q),
        data=data,
        out=directory,
        quiet=True,
    )
    x = torch.from_numpy(data["test"])
    alone = float(((x @ q) * x).sum(1).mean()) / 2  # the test loss at theta = E[x] = 0
    for row in found["table"]:
        mean, sd = row["test_loss"]
        print(
            f"{row['variant']:10s} lr {row['optimizer.lr']:<8g} test loss {mean:.2f} ± {sd:.2f}  (noise alone: {alone:.2f})"
        )
    return found


if __name__ == "__main__":
    main(str(Path(sys.argv[1]) if len(sys.argv) > 1 else "bowl"))
