"""Checks of raw inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine.errors import InputError


def finite(x: Tensor, where: str, names: tuple[str, ...] = (), *, padded: bool = False) -> None:
    """No NaN, no infinity; whole time steps of NaN at the end of a sequence are padding where that
    is allowed."""
    # a float64 sum would copy the data
    if not x.is_floating_point() or bool(torch.isfinite(x.sum())):
        return
    bad = ~torch.isfinite(x)
    if padded and x.ndim == 3:
        bad &= ~padding(x)[..., None]
    if not bool(bad.any()):
        return
    place = bad.nonzero()[0].tolist()
    what = "NaN" if bool(torch.isnan(x[tuple(place)])) else "infinite"
    column = (
        f" in column {names[place[-1]] if names else place[-1]}"
        if x.ndim == 2
        else f" at {place[1:]}"
    )
    raise InputError(
        where,
        got=f"{int(bad.sum())} value(s) that are NaN or infinite, first {what}{column} of row {place[0]}",
        expected="finite numbers",
        repair="drop or fill them (csv sources fill missing values)",
    )


def padding(x: Tensor) -> Tensor:
    """[N, T]: steps that are NaN throughout, with nothing but such steps after them, in sequences
    that begin."""
    empty = torch.isnan(x).flatten(2).all(2)
    tail = empty.flip(1).long().cumprod(1).flip(1).bool()
    return tail & ~tail[:, :1]
