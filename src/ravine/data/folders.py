"""Folders of images by class, with or without folders for the parts."""

from __future__ import annotations

from pathlib import Path

import torch

from ravine.data import images
from ravine.data.arrays import from_pairs
from ravine.data.source import Source
from ravine.errors import InputError, unknown

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def load(root: Path, size: int | tuple[int, int] | None, mode: str) -> Source:
    """Read PATH/CLASS/… or PATH/PART/CLASS/…"""
    parts = _parts(root)
    classes = tuple(folder.name for folder in _folders(parts["train"]))
    if len(classes) < 2:
        raise InputError(
            str(parts["train"]),
            got=f"{len(classes)} folder(s) of images",
            expected="one folder for each of at least two classes",
        )
    files = {name: _by_class(folder, classes) for name, folder in parts.items()}
    good, broken, seen = images.survey([file for file, _ in files["train"]], str(root))
    shape = _pair(size) or (seen["size"][0], seen["size"][1])
    pillow_mode = {"gray": "L", "rgb": "RGB"}.get(mode, seen["mode"])
    pairs, unreadable = {}, list(broken)
    for name, listed in files.items():
        listed = [row for row in listed if row[0] not in set(broken)]
        x, lost = images.load([file for file, _ in listed], pillow_mode, shape)
        unreadable += [listed[place][0] for place in lost]
        y = torch.tensor(
            [label for place, (_, label) in enumerate(listed) if place not in set(lost)], dtype=torch.int64
        )
        _no_empty(y, classes, parts[name]) if name == "train" else None
        pairs[name] = (x, y)
    images.warn_unreadable(sorted(unreadable), root)
    source = from_pairs(pairs, "classification", classes=classes)
    source.facts |= {"size": list(shape), "mode": pillow_mode}
    return source


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _parts(root: Path) -> dict[str, Path]:
    """The folder of each part; the root itself is for training where there are no such folders."""
    folders = _folders(root)
    if not folders:
        held = "no files" if not images.files_in(root) else "files but no folders"
        raise InputError(
            str(root),
            got=held,
            expected="a folder of images for each class",
            repair="PATH/CLASS/*.png or PATH/train/CLASS/*.png",
        )
    named = {_PARTS[folder.name.lower()]: folder for folder in folders if folder.name.lower() in _PARTS}
    return named if "train" in named else {"train": root}


def _by_class(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    rows = []
    for of_class in _folders(folder):
        if of_class.name not in classes:
            raise unknown(f"{folder}: class", of_class.name, classes)
        rows += [(file, classes.index(of_class.name)) for file in images.files_in(of_class)]
    if not rows:
        raise InputError(str(folder), got="no files", expected="a folder of images for each class")
    return rows


def _no_empty(labels: torch.Tensor, classes: tuple[str, ...], folder: Path) -> None:
    counts = labels.bincount(minlength=len(classes))
    if int(counts.min()) == 0:
        empty = classes[int(counts.argmin())]
        raise InputError(
            str(folder / empty),
            got="no image that can be read",
            expected="at least one image of every class",
            repair="add images or remove the folder",
        )
