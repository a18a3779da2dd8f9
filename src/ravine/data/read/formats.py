"""The person's own files -> sources: npz, IDX, text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ravine.data.download.cache import also_looked_in
from ravine.data.objects.pairs import from_pairs
from ravine.data.read import idx, npz, text
from ravine.data.source import Source
from ravine.errors import InputError
from ravine.storage.bounded import exists

_IDX_NAMES = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}


def find(path: str, root: Path, what: str, *, folder: bool | None = False) -> Path:
    """The file (or folder; None: either) at a path, in the working directory or under ``root``."""
    given = Path(path).expanduser()
    candidates = (
        [given]
        if given.is_absolute()
        else [given, root / given, *(folder / given for folder in also_looked_in())]
    )
    for candidate in candidates:
        if exists(candidate):
            if folder is not None and candidate.is_dir() != folder:
                raise InputError(
                    "data.source.path",
                    got=path,
                    expected=f"{what}, not a {'file' if folder else 'folder'}",
                )
            return candidate
    raise InputError(
        "data.source.path",
        got=path,
        expected=f"{what} that exists",
        repair=f"looked for {' and '.join(map(str, candidates))}",
    )


def from_npz(path: Path, task: str) -> Source:
    stored = {name.lower(): array for name, array in npz.read(path).items()}
    pairs: dict[str, tuple[Any, Any]] = {}
    for part, ends in {
        "train": ("", "_train"),
        "validation": ("_val", "_valid", "_validation"),
        "test": ("_test",),
    }.items():
        for end in ends:
            if f"x{end}" in stored and f"y{end}" in stored:
                pairs.setdefault(part, (stored[f"x{end}"], stored[f"y{end}"]))
    if "train" not in pairs:
        raise InputError(
            path.name,
            got=f"arrays {', '.join(sorted(stored)) or '(none)'}",
            expected="x and y, or x_train and y_train",
        )
    return from_pairs(pairs, task, where=f"{path.name}: x")


def from_idx(path: Path, labels: str | None, root: Path) -> Source:
    if path.is_dir():
        return from_pairs(_idx_folder(path))
    x = idx_images(path)
    if labels is None:
        label_path = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
        if label_path == path:
            raise InputError(
                "data.source.labels",
                got=None,
                expected="the file of labels",
                repair="set labels = PATH",
            )
    else:
        label_path = Path(labels)
    label_path = find(str(label_path), root, "an IDX file of labels")
    return from_pairs({"train": (x, idx.parse(idx.read_bytes(label_path), label_path.name))})


def idx_images(path: Path) -> np.ndarray:
    """The array of an IDX file; images [N, H, W] get their channel."""
    array = idx.parse(idx.read_bytes(path), path.name)
    return array[:, None] if array.ndim == 3 else array


def _idx_folder(path: Path) -> dict[str, tuple[Any, Any]]:
    pairs = {}
    for part, stems in _IDX_NAMES.items():
        found = [next(iter(sorted(path.glob(f"{stem}*"))), None) for stem in stems]
        if all(found):
            images, labels = found
            pairs[part] = (idx_images(images), idx.parse(idx.read_bytes(labels), labels.name))  # type: ignore[arg-type, union-attr]
    if "train" not in pairs:
        raise InputError(
            str(path),
            expected="IDX files named train-images* and train-labels* (t10k-images*, t10k-labels* for test)",
        )
    return pairs


def from_text(path: Path, length: int) -> Source:
    return Source({"all": text.Text(text.read(path), length, path.name)}, "sequence")
