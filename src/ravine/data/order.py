"""Which rows each step sees: a pure function of the data's seed and the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ravine import randomness

Place = Callable[[int], tuple[int, int]]


class Order:
    """Batches of row numbers.

    ``shuffle`` draws a new permutation each epoch, ``fixed`` replays one permutation,
    ``replacement`` draws each row anew. ``place`` gives, of so many rows, the first and the number of
    those that this process reads, one of several that divide each batch.

    >>> order = Order(size=5, batch=2, kind="shuffle", last="keep", seed=0)
    >>> order.epoch_steps, sorted(torch.cat([order.rows(step) for step in range(3)]).tolist())
    (3, [0, 1, 2, 3, 4])
    """

    def __init__(
        self,
        size: int,
        batch: int,
        kind: Literal["shuffle", "fixed", "replacement"],
        last: Literal["keep", "drop"],
        seed: int,
        device: torch.device | str = "cpu",
        place: Place | None = None,
    ):
        self.size, self.batch, self.kind, self.seed, self.device = size, batch, kind, seed, device
        self.epoch_steps = size // batch if last == "drop" else -(-size // batch)
        self.place = place
        self._epoch, self._rows = -1, torch.empty(0, dtype=torch.int64)

    def rows(self, step: int) -> Tensor:
        """Row numbers [B] of a step, of which this process reads its part."""
        epoch, place = divmod(step, self.epoch_steps)
        rows = self.epoch(epoch)[place * self.batch : (place + 1) * self.batch]
        first, count, _ = self.part(step) or (0, len(rows), 0)
        return rows[first : first + count]

    def part(self, step: int) -> tuple[int, int, int] | None:
        """The first row of this process, how many it reads, and how many all read together; None where
        it reads all."""
        left = self.size - step % self.epoch_steps * self.batch
        whole = min(self.batch, left)
        if self.place is None:
            return None
        first, count = self.place(whole)
        return (first, count, whole) if count < whole else None

    def epoch(self, epoch: int) -> Tensor:
        """Row numbers of a whole epoch [N]; that of the epoch asked for last is kept."""
        key = 0 if self.kind == "fixed" else epoch
        if key != self._epoch:
            generator = randomness.generator(self.seed, "order", key)
            if self.kind == "replacement":
                rows = torch.randint(self.size, (self.size,), generator=generator)
            else:
                rows = torch.randperm(self.size, generator=generator)
            self._epoch, self._rows = key, rows.to(self.device)
        return self._rows


def each_by_itself(take: Callable[[Tensor], tuple[Tensor, Tensor]], rows: Tensor) -> bool:
    """Whether each row is the same without the others: found by taking the second half of these again.
    Samples that are drawn, or collated with regard to others, are not."""
    half = len(rows) // 2
    return all(
        a.shape[1:] == b.shape[1:] and torch.equal(a[half:].nan_to_num(), b.nan_to_num())
        for a, b in zip(take(rows), take(rows[half:]), strict=True)
    )
