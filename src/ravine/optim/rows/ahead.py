"""What happens around formulas: Nesterov's look ahead before the gradient, Lookahead's slow weights
after a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.optim.arithmetic import cast
from ravine.optim.rows.groups import Now, RowGroup, Rows, on_host, selection


class Ahead:
    """Rows that take their gradient where the velocity alone would lead them."""

    def __init__(self, group: RowGroup):
        self.group = group
        self.fixed = group.columns(range(len(group.rows)))
        self.home: Tensor | None = None  # the rows before they moved

    def go(self, theta: Tensor, momentum: Tensor | None) -> None:
        group, rows = self.group, self.group.select
        number = self.fixed["momentum"]
        if momentum is not None and group.momentum_name:
            scheduled = momentum[rows].unsqueeze(1)
            number = torch.where(scheduled.isnan(), number, scheduled)
        self.home = theta[rows].clone()
        theta[rows] = self.home + cast(number, theta) * group.slots["v"]

    def come_back(self, theta: Tensor) -> None:
        if self.home is not None:
            theta[self.group.select] = self.home
            self.home = None


class SlowWeights:
    """Lookahead: slow weights that every k steps move a part alpha of the way to the fast ones,
    which start from there.

    slow += alpha * (fast - slow);  fast = slow. Source: Zhang et al. 2019.
    """

    def __init__(self, parts: Sequence[Any], size: int, device: torch.device, dtype: torch.dtype):
        self.rows = [row for row, part in enumerate(parts) if part.lookahead]
        self.every = [float(parts[row].lookahead) for row in self.rows]
        self.alpha = [float(parts[row].lookahead_alpha) for row in self.rows]
        self.size, self.device, self.dtype = size, device, dtype
        # [rows that look ahead, D]
        self.slow = torch.zeros(len(self.rows), size, device=device, dtype=dtype)
        if self.rows and not on_host(device):
            self.select: Rows = selection(self.rows, device)
            self.every_column = torch.tensor(self.every, dtype=torch.float64, device=device)
            self.alpha_column = torch.tensor(self.alpha, dtype=dtype, device=device).unsqueeze(1)

    def before(self, theta: Tensor, now: Now) -> None:
        """At a row's first step its slow weights are its weights."""
        if not on_host(self.device):
            first = (now.alive & (now.t == 1))[self.select].unsqueeze(1)
            self.slow.copy_(torch.where(first, theta[self.select], self.slow))
            return
        for place, row in enumerate(self.rows):
            if now.ts[row] == 1 and now.lives[row]:
                self.slow[place].copy_(theta[row])

    def after(self, theta: Tensor, now: Now) -> None:
        """At every k-th step of a row the slow weights move, and the fast ones with them."""
        if not on_host(self.device):
            due = (
                now.alive[self.select] & (now.t[self.select] % self.every_column == 0)
            ).unsqueeze(1)
            self.slow.copy_(
                torch.where(due, self.slow.lerp(theta[self.select], self.alpha_column), self.slow)
            )
            theta[self.select] = torch.where(due, self.slow, theta[self.select])
            return
        for place, row in enumerate(self.rows):
            if now.lives[row] and now.ts[row] % self.every[place] == 0:
                self.slow[place].lerp_(theta[row], self.alpha[place])
                theta[row].copy_(self.slow[place])

    def regrouped(self, parts: Sequence[Any], source: Sequence[int | None]) -> SlowWeights:
        """Of new rows: row i has the slow weights of old row ``source[i]``, or none yet."""
        new = SlowWeights(parts, self.size, self.device, self.dtype)
        for place, row in enumerate(new.rows):
            old = source[row]
            if old is not None and old in self.rows:
                new.slow[place].copy_(self.slow[self.rows.index(old)])
        return new
