"""Magnitude pruning of rows of theta: which weights stay."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine.layout import Entry, Layout
from ravine.randomness import generator


def prunable(layout: Layout) -> list[Entry]:
    """The tensors that are pruned: weights; biases and normalisation parameters always stay."""
    return [entry for entry in layout.entries if entry.kind == "weight"]


def full_mask(theta: Tensor) -> Tensor:
    return torch.ones_like(theta, dtype=torch.bool)


def pruned(
    theta: Tensor, mask: Tensor, layout: Layout, rate: float, scope: str = "global"
) -> Tensor:
    """The mask [P, D] without the ``rate`` smallest of each row's remaining weights, by magnitude.

    ``scope``: over all weights together (``global``), or in each tensor separately (``layer``). Exactly
    round(rate · remaining) are taken; of equals, the first.

    >>> layout = Layout.of([("w", (4,), "weight", 0), ("b", (1,), "bias", 0)])
    >>> theta = torch.tensor([[0.1, -3.0, 0.2, 1.0, 0.0]])
    >>> pruned(theta, full_mask(theta), layout, 0.5).tolist()
    [[False, True, False, True, True]]
    """
    mask = mask.clone()
    entries = prunable(layout)
    groups = [entries] if scope == "global" else [[entry] for entry in entries]
    for group in groups:
        columns = torch.cat([torch.arange(entry.start, entry.stop) for entry in group])
        for row in range(len(theta)):
            left = columns[mask[row, columns]]
            count = int(rate * len(left) + 0.5)
            order = theta[row, left].abs().argsort(stable=True)
            mask[row, left[order[:count]]] = False
    return mask


def shuffled(mask: Tensor, layout: Layout, seeds: list[int]) -> Tensor:
    """Masks with as many weights left in each tensor, at random places."""
    found = mask.clone()
    for row, seed in enumerate(seeds):
        for entry in prunable(layout):
            own = mask[row, entry.start : entry.stop]
            order = torch.randperm(len(own), generator=generator(seed, "random mask", entry.name))
            found[row, entry.start : entry.stop] = own[order]
    return found


def left(mask: Tensor, layout: Layout) -> Tensor:
    """The part of the weights that is left in each row [P]."""
    columns = torch.cat([torch.arange(entry.start, entry.stop) for entry in prunable(layout)])
    return mask[:, columns].double().mean(1)
