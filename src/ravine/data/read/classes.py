"""Folders by class, with or without folders for the parts: PATH/CLASS/* or PATH/PART/CLASS/*."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ravine.errors import InputError, unknown

MOST_LEVELS = 100  # of folders within one another
PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def hidden(path: Path) -> bool:
    """Whether a folder or file is none that a person made: .git, what archives of a Mac bring."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def folders(path: Path) -> list[Path]:
    """The folders in a folder that are not hidden, by name."""
    return sorted(f for f in path.iterdir() if f.is_dir() and not hidden(f))


def files(folder: Path, endings: tuple[str, ...] = (), root: Path | None = None) -> list[Path]:
    """Every file under a folder that is not hidden, by name; with ``endings`` only those."""
    found = sorted(walk(folder, root))
    return [f for f in found if not endings or f.suffix.lower() in endings]


def walk(folder: Path, root: Path | None = None) -> Iterator[Path]:
    """The files under a folder, not the hidden ones. Links are followed, to files and to folders, also out of
    the folder: data are a person's own. Each folder is entered once, by whatever names it has; a link whose
    file is gone is given too, so that it is missed.

    Errors: a link that leads back to a folder above it, or to ``root``; devices, pipes and sockets.
    """
    above = () if root is None else (_mark(root),)
    return _walk(folder, above, set())


def _mark(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _walk(
    folder: Path, above: tuple[tuple[int, int], ...], seen: set[tuple[int, int]]
) -> Iterator[Path]:
    mark = _mark(folder)
    if mark in above or len(above) > MOST_LEVELS:
        got = "a link that leads back to a folder above it" if mark in above else "too many levels"
        expected = "folders of files"
        raise InputError(str(folder), got=got, expected=expected, repair="remove the link")
    if mark in seen:
        return
    seen.add(mark)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = folder / entry.name
        if hidden(path):
            continue
        try:
            kind = entry.stat().st_mode
        except OSError:  # a link whose file is gone, or to itself
            yield path
            continue
        if stat.S_ISDIR(kind):
            yield from _walk(path, (*above, mark), seen)
        elif stat.S_ISREG(kind):
            yield path
        else:
            expected = "files and folders"
            got = "a device, a pipe or a socket"
            raise InputError(str(path), got=got, expected=expected, repair="remove it")


def parts(root: Path, what: str) -> dict[str, Path]:
    """The folder of each part; the root itself is for training where there are no such folders.

    ``what`` are the files called, in messages: images, texts.
    """
    found = folders(root)
    if not found:
        raise InputError(
            str(root),
            got="files but no folders" if files(root) else "no files",
            expected=f"a folder of {what} for each class",
            repair="PATH/CLASS/* or PATH/train/CLASS/*",
        )
    named = {PARTS[f.name.lower()]: f for f in found if f.name.lower() in PARTS}
    return named if "train" in named else {"train": root}


def names(training: Path) -> tuple[str, ...]:
    """The classes: the names of the training part's folders."""
    listed = folders(training)
    found = tuple(folder.name for folder in listed)
    if len(found) < 2:
        raise InputError(
            str(training),
            got=f"{len(found)} folder(s)",
            expected="a folder for each of two classes or more",
        )
    real: dict[tuple[int, int], str] = {}
    for folder in listed:
        other = real.setdefault(_mark(folder), folder.name)
        if other != folder.name:
            got = f"one folder by two names, {other} and {folder.name}"
            raise InputError(str(training), got=got, expected="a folder for each class")
    return found


def listed(
    folder: Path, classes: tuple[str, ...], what: str, endings: tuple[str, ...] = ()
) -> list[tuple[Path, int]]:
    """The files of a part, each with the number of its class."""
    rows = []
    for of_class in folders(folder):
        if of_class.name not in classes:
            raise unknown(f"{folder}: class", of_class.name, classes)
        rows += [(file, classes.index(of_class.name)) for file in files(of_class, endings, folder)]
    if not rows:
        raise InputError(str(folder), got="no files", expected=f"a folder of {what} for each class")
    return rows
