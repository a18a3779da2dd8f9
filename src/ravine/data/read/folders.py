"""Folders of images by class, with or without folders for the parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from ravine.data.objects.stream import Items
from ravine.data.read import classes as by_class
from ravine.data.read import images, labelled
from ravine.data.read.levels import Levels
from ravine.data.read.row_file import hold, on_disk, part_of, state_of
from ravine.data.room import fits
from ravine.data.source import Source
from ravine.errors import InputError

CHUNK_FILES = 1024  # that are decoded together
FEW = 5  # images of a class: with fewer it may be missing in validation or test
SHOWN = 10  # classes in a warning
MOST_PIXELS = 256  # a side of images whose size the person did not choose


def load(
    root: Path,
    size: int | tuple[int, int] | None,
    mode: str,
    fit: str,
    labels: str | None = None,
    target: str | None = None,
) -> Source:
    """Read PATH/CLASS/… or PATH/PART/CLASS/…, or the images that the table PATH/``labels`` names; what
    does not fit into memory is kept on the disk, and where that has no room either it is decoded
    anew each epoch."""
    classes, listed = _listed(root, labels, target)
    survey = images.survey([file for rows in listed.values() for file, _ in rows], str(root))
    broken = set(survey.broken)
    listed = {name: [row for row in rows if row[0] not in broken] for name, rows in listed.items()}
    training = [file for file, _ in listed["train"]]
    height, width = images.chosen(size) or _at_most(survey.median(training))
    pillow_mode = {"gray": "L", "rgb": "RGB"}.get(mode, "L" if survey.gray else "RGB")
    needed = sum(map(len, listed.values())) * height * width * (1 if pillow_mode == "L" else 3)
    read = _kept if fits(needed) or on_disk(needed) else _streamed
    levels = survey.levels(training, str(root))
    splits, lost = read(listed, pillow_mode, (height, width), fit, levels)
    images.warn_unreadable(sorted(broken | set(lost)), root)
    for name, split in splits.items():
        _no_empty(split.labels, classes, root, every=name == "train")
    _warn_few([split.labels for split in splits.values()], classes, root)
    facts = {"size": [height, width], "mode": pillow_mode, "fit": fit, "levels": levels.facts()}
    return Source(splits, "classification", classes, facts=facts, outputs=len(classes))


def _listed(
    root: Path, labels: str | None, target: str | None
) -> tuple[tuple[str, ...], by_class.Listed]:
    """The classes, and the files of each part with their classes."""
    if labels is not None or target is not None:
        return labelled.listed(root, labels, target)
    classes, listed = by_class.listed(root, "images")
    labelled.warn_unused(root, classes)
    return classes, listed


def median_size(
    root: Path, labels: str | None = None, target: str | None = None
) -> tuple[int, int]:
    """The median (height, width) of the training images, from their headers alone."""
    files = [file for file, _ in _listed(root, labels, target)[1]["train"]]
    found = images.survey(files, str(root))
    return found.median(list(found.headers))


def _kept(
    listed: by_class.Listed, mode: str, size: tuple[int, int], fit: str, levels: Levels
) -> tuple[dict[str, Any], list[Path]]:
    """All images decoded, and the files that turned out to be damaged."""
    splits, damaged = {}, []
    shape = (1 if mode == "L" else 3, *size)
    for name, rows in listed.items():
        files = [file for file, _ in rows]

        def chunks(lost: list[int], files: list[Path] = files) -> Iterator[torch.Tensor]:
            for start in range(0, len(files), CHUNK_FILES):
                x, broken = images.load(files[start : start + CHUNK_FILES], mode, size, fit, levels)
                lost += [start + place for place in broken]
                yield x

        about = {"files": state_of(files), "mode": mode, "fit": fit, "levels": levels.facts()}
        x, lost = hold(about, len(files), shape, torch.uint8, chunks)
        gone = set(lost)
        damaged += [files[place] for place in lost]
        labels = [label for place, (_, label) in enumerate(rows) if place not in gone]
        splits[name] = part_of(x, torch.tensor(labels, dtype=torch.int64))
    return splits, damaged


def _streamed(
    listed: by_class.Listed, mode: str, size: tuple[int, int], fit: str, levels: Levels
) -> tuple[dict[str, Any], list[Path]]:
    splits = {}
    for name, rows in listed.items():
        labels = torch.tensor([label for _, label in rows], dtype=torch.int64)
        splits[name] = Items(
            _Images(rows, mode, size, fit, levels), torch.arange(len(rows)), seed=0, labels=labels
        )
    return splits, []


class _Images(Dataset):
    def __init__(
        self,
        rows: list[tuple[Path, int]],
        mode: str,
        size: tuple[int, int],
        fit: str,
        levels: Levels,
    ):
        self.rows, self.mode, self.size, self.fit, self.levels = rows, mode, size, fit, levels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        file, label = self.rows[place]
        try:
            return images.decode(file, self.mode, self.size, self.fit, self.levels), label
        except images.BROKEN as error:
            raise InputError(
                str(file), expected="an image that can be read", repair=f"remove it ({error})"
            ) from None


def _at_most(size: tuple[int, int]) -> tuple[int, int]:
    """The size, made smaller where its longer side is over MOST_PIXELS."""
    scale = min(1.0, MOST_PIXELS / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _no_empty(labels: torch.Tensor, classes: tuple[str, ...], folder: Path, *, every: bool) -> None:
    counts = labels.bincount(minlength=len(classes))
    if not len(labels) or (every and int(counts.min()) == 0):
        empty = folder / classes[int(counts.argmin())] if every else folder
        raise InputError(
            str(empty),
            got="no image that can be read",
            expected="at least one image of every class",
            repair="add images or remove the folder",
        )


def _warn_few(labels: list[torch.Tensor], classes: tuple[str, ...], root: Path) -> None:
    """One warning that names the classes of which there are too few images, in all parts together."""
    counts = torch.cat(labels).bincount(minlength=len(classes)).tolist()
    few = [f"{name} ({n})" for name, n in zip(classes, counts, strict=True) if n < FEW]
    if few:
        more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
        warnings.warn(
            f"{root}: fewer than {FEW} images, too few to learn and to measure: "
            f"{', '.join(few[:SHOWN])}{more}; add images, or leave these classes out",
            stacklevel=2,
        )
