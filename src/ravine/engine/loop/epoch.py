"""The measurements since the last epoch's end: losses and gradient norms of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.engine.rows.members import Arrays, Column, Members, Newcomers
from ravine.engine.rows.step import Measured


class EpochSteps(Column):
    """The losses and gradient norms [n, P] of an epoch's steps so far, in blocks, and the samples
    of each step [n]."""

    name = "epoch"

    def __init__(self, members: Members):
        self.losses: list[np.ndarray] = []
        self.norms: list[np.ndarray] = []
        self.samples: list[np.ndarray] = []
        members.add(self)

    def add(self, measured: Measured) -> None:
        self.losses.append(measured.losses.cpu().numpy())
        self.norms.append(measured.norms.cpu().numpy())
        self.samples.append(measured.samples)

    def clear(self) -> None:
        self.losses, self.norms, self.samples = [], [], []

    @property
    def train_loss(self) -> np.ndarray:
        """The mean loss of the epoch's samples [P]: a last batch of fewer samples weighs less."""
        weights = np.concatenate(self.samples)
        return np.average(np.concatenate(self.losses), axis=0, weights=weights)

    @property
    def grad_norm(self) -> np.ndarray:
        """The mean gradient norm of the epoch's steps [P]."""
        return np.concatenate(self.norms).mean(0)

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The losses and norms of one member [n]."""
        return np.concatenate(self.losses)[:, row], np.concatenate(self.norms)[:, row]

    # --- a column ---------------------------------------------------------------------------------

    def keep(self, rows: Sequence[int]) -> None:
        self.losses = [block[:, list(rows)] for block in self.losses]
        self.norms = [block[:, list(rows)] for block in self.norms]

    def grow(self, new: Newcomers) -> None:
        assert not self.losses, "members join between epochs"

    def arrays(self, rows: Sequence[int]) -> Arrays:
        nothing = np.zeros((0, max(rows, default=0) + 1))
        found = {"epoch_losses": self.losses or [nothing], "epoch_norms": self.norms or [nothing]}
        arrays = {
            name: torch.from_numpy(np.concatenate(blocks)[:, list(rows)])
            for name, blocks in found.items()
        }
        samples = np.concatenate(self.samples or [np.zeros(0)]).astype(np.int64)
        return arrays | {"epoch_samples": torch.from_numpy(samples)}

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.clear()
        losses = arrays["epoch_losses"]
        if not len(losses):
            return
        self.losses, self.norms = [losses.numpy()], [arrays["epoch_norms"].numpy()]
        # a snapshot of before samples were counted: every step weighs alike
        samples = arrays.get("epoch_samples", torch.ones(len(losses), dtype=torch.int64))
        self.samples = [samples.numpy()]


def without_rest(measured: Measured, alive: Tensor, steps: int) -> Measured:
    """The measurements of members that have all diverged, the ``alive`` ones [P] in this block:
    ``steps`` steps, NaN after the step in which the last one diverged.

    More steps may have been taken before this was noticed. Their number depends on the clock, so they
    are left out.
    """
    bad = ~(measured.losses.isfinite() & measured.norms.isfinite()).cpu()  # [n, P]
    first_bad = [int(bad[:, row].nonzero()[0]) for row in alive.nonzero().flatten().tolist()]
    seen = max(first_bad) + 1
    nothing = torch.full((steps, bad.shape[1]), torch.nan, dtype=torch.float64)
    losses, norms = nothing, nothing.clone()
    losses[:seen], norms[:seen] = measured.losses[:seen].cpu(), measured.norms[:seen].cpu()
    samples = np.full(steps, measured.samples[0])
    samples[:seen] = measured.samples[:seen]
    return Measured(losses, norms, samples)
