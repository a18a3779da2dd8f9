"""MNIST for every competitor alike, read from its IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from ravine.data.download.cache import data_root
from ravine.errors import InputError


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images [60000, 1, 28, 28] float32 in [0, 1] and digits, test images and digits."""
    folder = data_root() / "mnist"
    if not folder.is_dir():
        raise InputError(
            "data",
            got=str(folder),
            expected="the IDX files of MNIST",
            repair="ravine data mnist fetches them",
        )
    images = [
        _idx(folder, f"{part}-images").reshape(-1, 1, 28, 28).astype(np.float32) / 255
        for part in ("train", "t10k")
    ]
    digits = [_idx(folder, f"{part}-labels").astype(np.int64) for part in ("train", "t10k")]
    return images[0], digits[0], images[1], digits[1]


def _idx(folder: Path, name: str) -> np.ndarray:
    path = next(p for p in sorted(folder.iterdir()) if p.name.startswith(name))
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
