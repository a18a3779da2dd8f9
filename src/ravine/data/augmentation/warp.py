"""Affine maps of images: composed as matrices, applied once.

A matrix [B, 3, 3] takes output coordinates (x, y, 1), in pixels from the centre, to input
coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fill = Literal["nearest", "constant", "reflect"]


@dataclass
class Warp:
    """``exact`` says that pixels go to pixels: then nothing is interpolated and bytes stay bytes.
    ``fill`` is None where a warp never looks outside the image."""

    matrix: Tensor  # [B, 3, 3] float32
    fill: Fill | None
    value: float
    exact: bool

    def then(self, later: Warp) -> Warp | None:
        """Both in one, or None where they fill differently."""
        fill = self.fill or later.fill
        value = self.value if self.fill else later.value
        if later.fill and (later.fill, later.value) != (fill, value):
            return None
        return Warp(self.matrix @ later.matrix, fill, value, self.exact and later.exact)


def matrix(
    a: Tensor | float,
    b: Tensor | float,
    c: Tensor | float,
    d: Tensor | float,
    e: Tensor | float,
    f: Tensor | float,
) -> Tensor:
    """[[a, b, c], [d, e, f], [0, 0, 1]] for each sample."""
    size = next(len(v) for v in (a, b, c, d, e, f) if isinstance(v, Tensor))
    device = next(v.device for v in (a, b, c, d, e, f) if isinstance(v, Tensor))
    entries = (a, b, c, d, e, f, 0.0, 0.0, 1.0)
    return torch.stack(
        [torch.as_tensor(v, dtype=torch.float32, device=device).expand(size) for v in entries], 1
    ).view(size, 3, 3)


def resolve(x: Tensor, warp: Warp) -> Tensor:
    """The warped images; bilinear where the warp is not exact."""
    return _gathered(x, warp) if warp.exact else _sampled(x, warp)


def _gathered(x: Tensor, warp: Warp) -> Tensor:
    """Pixels picked by number; the matrix has no rotation or shear, so rows and columns are
    apart."""
    height, width = x.shape[2:]
    rows, row_inside = _places(warp.matrix[:, 1, 1], warp.matrix[:, 1, 2], height, warp.fill)
    columns, column_inside = _places(warp.matrix[:, 0, 0], warp.matrix[:, 0, 2], width, warp.fill)
    places = rows[:, :, None] * width + columns[:, None, :]  # [B, H, W]
    picked = (
        x.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, x.shape[1], -1)).view(x.shape)
    )
    if warp.fill != "constant":
        return picked
    inside = row_inside.to(x.dtype)[:, None, :, None] * column_inside.to(x.dtype)[:, None, None, :]
    picked.mul_(inside)  # a product with a mask, which is several times faster than torch.where
    return (
        picked.add_((1 - inside) * torch.tensor(warp.value, device=x.device).to(x.dtype))
        if warp.value
        else picked
    )


def _places(scale: Tensor, shift: Tensor, extent: int, fill: Fill | None) -> tuple[Tensor, Tensor]:
    """Input places [B, extent] of each output place, and which of them lie inside."""
    middle = (extent - 1) / 2
    out = torch.arange(extent, device=scale.device) - middle
    places = (scale[:, None] * out + shift[:, None] + middle).round().long()
    inside = (places >= 0) & (places < extent)
    if fill == "reflect":
        turned = places % (2 * extent)
        places = torch.where(turned < extent, turned, 2 * extent - 1 - turned)
    return places.clamp(0, extent - 1), inside


_PADDING = {"nearest": "border", "constant": "zeros", "reflect": "reflection"}


def _sampled(x: Tensor, warp: Warp) -> Tensor:
    height, width = x.shape[2:]
    scale = torch.tensor([2 / width, 2 / height, 1.0], device=x.device)
    unit = (warp.matrix * scale[:, None] / scale)[:, :2]  # the same map in [-1, 1] coordinates
    grid = F.affine_grid(unit, [len(x), 1, height, width], align_corners=False)
    pixels = x if x.is_floating_point() else x.float()
    offset = warp.value if warp.fill == "constant" else 0.0
    pixels = pixels - offset if offset else pixels
    out = F.grid_sample(
        pixels,
        grid.to(pixels.dtype),
        mode="bilinear",
        padding_mode=_PADDING[warp.fill or "nearest"],
        align_corners=False,
    )
    return out + offset if offset else out
