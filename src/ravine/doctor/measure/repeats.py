"""Rows of tables that are equal: which of them may be so by chance, as rows of a few coarse columns are,
and which only a copy explains.

Leave one column out: the neighbours of a row agree with it in all others, and differ in that one. Were
it independent of the others, as many more rows would agree wholly as the row's value is frequent. So
rows that repeat by chance have neighbours, and copies of a row that is by itself have none. The target
counts as one more column: samples measured twice differ in it, copies do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCKS = 64  # of columns that are left out one at a time; of more columns several at once
TOLD = 0.2  # equal rows expected by chance, from which a row is not told apart from others
MOSTLY = 0.5  # of the rows
HANDFUL = 10  # different rows
CELLS = 2**22  # numbers in double precision at a time


@dataclass(frozen=True)
class Repeats:
    """Of rows [n]: a number that equal rows share, and how many equal rows chance gives each."""

    keys: Tensor
    chance: Tensor

    @property
    def told(self) -> Tensor:
        """The rows whose repeats chance hardly explains."""
        return self.chance < TOLD

    def beyond_chance(self, found: Tensor) -> float:
        """The share of the different rows, among the last ones where ``found`` is shorter, that are
        found again and told apart; less three times what chance gives these. 0 where these are a
        handful, such as the same answer to every question; and where most rows are not told apart:
        the others may be as little, by what columns have in common."""
        if float(self.told.double().mean()) <= MOSTLY:
            return 0.0
        told, chance, keys = (part[-len(found) :] for part in (self.told, self.chance, self.keys))
        if len(keys[found & told].unique()) < HANDFUL:
            return 0.0
        excess = (found & told).double() - 3 * torch.where(told, chance, 0.0)
        each = 1 / _counts(keys)  # different rows: what many say counts once
        return float((excess * each).sum() / each.sum())


def keys_of(rows: Tensor) -> Tensor:
    """A number for each row [n, features] that equal rows share, and no others."""
    return _block_keys(rows, torch.zeros(rows.shape[1], dtype=torch.int64)).flatten()


def repeats_of(
    x: Tensor, y: Tensor, columns: Sequence[slice], texts: Sequence[int] = ()
) -> Repeats:
    """What is to be expected of rows [n, places] with targets y [n, ...]; ``columns``: the places of
    each column, of which ``texts`` lie on no grid."""
    apart = max(1, -(-len(columns) // BLOCKS))
    of = torch.zeros(x.shape[1], dtype=torch.int64)
    for i, places in enumerate(columns):
        of[places] = i // apart
    target = y.reshape(len(y), -1).double()
    # five times: the target is mixed in another way than the first place
    blocks = torch.cat([_block_keys(x, of), 5 * keys_of(target)[:, None]], 1)
    keys = blocks.sum(1)
    distinct = _firsts(keys)
    if len(distinct) == len(keys):
        return Repeats(keys, torch.zeros(len(keys), dtype=torch.float64, device=x.device))
    numbers = [places for i, places in enumerate(columns) if i not in texts]
    chance = _flags(x, keys, numbers)
    grids = [0.0 if i in texts else _by_grid(x[:, places]) for i, places in enumerate(columns)]
    least = [*(grids if apart == 1 else [0.0] * (blocks.shape[1] - 1)), _by_grid(target)]
    for own, rarest in zip(blocks.T, least, strict=True):
        others = (_counts(own, distinct) - 1) / max(1, len(distinct) - 1)
        chance = torch.maximum(chance, _expected(keys, own, others.clamp_min(rarest)))
    return Repeats(keys, chance)


def _expected(keys: Tensor, own: Tensor, share: Tensor) -> Tensor:
    """How many rows would equal each by chance, by its neighbours without the columns ``own``."""
    neighbours = _counts(keys - own) - _counts(keys)
    share = share.clamp(0, 1 - 1e-9)
    return neighbours * share / (1 - share)


def _flags(x: Tensor, keys: Tensor, columns: Sequence[slice]) -> Tensor:
    """The same of all columns of two values together: a category may be several of them, none of which
    differs alone. Combinations that do not exist are no reason to expect none that do: copies count."""
    places = [i for p in columns for i in range(x.shape[1])[p] if _is_flag(x[:, i])]
    if len(places) < 2:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    of = torch.ones(x.shape[1], dtype=torch.int64)
    of[places] = 0
    own = _block_keys(x, of)[:, 0]
    return _expected(keys, own, _counts(own) / len(own))


def _is_flag(values: Tensor) -> bool:
    return bool(((values == values.min()) | (values == values.max())).all())


def _by_grid(values: Tensor) -> float:
    """How often two values [n, 1] at least agree: of so many steps as are between them."""
    known = values[~values.isnan().any(1)]
    levels = known.flatten().unique() if values.shape[1] == 1 else known[:0]
    steps = levels.double().diff()
    return float(1 / (1 + (steps.sum() / steps.min()))) if len(steps) else 0.0


def _firsts(keys: Tensor) -> Tensor:
    """The place of one row of each key."""
    order = keys.argsort()
    ordered = keys[order]
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return order[new]


def _counts(keys: Tensor, among: Tensor | None = None) -> Tensor:
    """How often each key occurs, float64; among the rows ``among`` alone, where they are given."""
    _, places, counts = keys.unique(return_inverse=True, return_counts=True)
    if among is not None:
        counts = places[among].bincount(minlength=len(counts))
    return counts[places].double()


def _block_keys(rows: Tensor, of: Tensor) -> Tensor:
    """A number for each row and block of places [n, blocks]; ``of``: the block of each place.

    Sums of numbers that each place mixes in its own way; whole ones, so that a part can be taken away.
    """
    generator, width = torch.Generator().manual_seed(1), max(1, rows.shape[1])
    mix = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator) * 2 + 1
    mix, of = mix.to(rows.device), of.to(rows.device)
    found = []
    for some in rows.split(max(1, CELLS // width)):
        bits = (some.double().nan_to_num(nan=-math.pi) + 0.0).contiguous().view(torch.int64)
        bits = (bits ^ (bits >> 32)) * -7046029254386353131
        bits = (bits ^ (bits >> 29)) * mix
        sums = torch.zeros(len(some), int(of.max()) + 1, dtype=torch.int64, device=rows.device)
        found.append(sums.index_add_(1, of, bits ^ (bits >> 32)))
    return torch.cat(found)
