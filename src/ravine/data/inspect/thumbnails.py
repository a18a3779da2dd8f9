"""Samples as small pictures, for reports and the live page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def picture(pixels: np.ndarray, side: int) -> str:
    """An image [C, H, W] or [H, W], at most ``side`` pixels wide and high, as a data URL; between its
    least and largest value, bytes as they are."""
    image = pixels[None] if pixels.ndim == 2 else pixels
    low, high = float(image.min()), float(image.max())
    if image.dtype != np.uint8:
        low, high = (0.0, 255.0) if low >= 0 and 16 < high <= 255 else (low, high)
        image = ((image - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)
    made = (
        Image.fromarray(image[0]) if len(image) != 3 else Image.fromarray(image.transpose(1, 2, 0))
    )
    made.thumbnail((side, side))
    held = io.BytesIO()
    made.save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
