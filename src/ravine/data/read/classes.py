"""Folders by class, with or without folders for the parts: PATH/CLASS/*, PATH/PART/CLASS/* or
PATH/CLASS/PART/*."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from ravine.data.endings import IMAGES, TEXTS
from ravine.errors import InputError, unknown

MOST_LEVELS = 100  # of folders within one another
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_OF_FILES = frozenset(  # words that a part's name may have beside it: training_set, test images
    ("set", "data", "dataset", "images", "pictures", "photos", "texts", "files", "split")
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_GLUED = re.compile("(set|data)$")  # trainset
_SHOWN = 5  # names in a message
Listed = dict[str, list[tuple[Path, int]]]  # of each part: files and the numbers of their classes


def hidden(path: Path) -> bool:
    """Whether a folder or file is none that a person made: .git, what archives of a Mac bring."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def folders(path: Path) -> list[Path]:
    """The folders in a folder that are not hidden, by name."""
    with os.scandir(path) as entries:  # of many files most need no look at each
        found = [path / entry.name for entry in entries if not entry.is_file(follow_symlinks=False)]
    return sorted(folder for folder in found if folder.is_dir() and not hidden(folder))


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


def said_part(name: str) -> tuple[str, frozenset[str]]:
    """The part that a name says, empty where it says none or two, and the other words in it.

    >>> [said_part(name)[0] for name in ("Training", "test_set", "seg_train", "valset-2", "tests")]
    ['train', 'test', 'train', 'validation', '']
    """
    words = [word.lower() for word in _WORD.findall(name)]
    words = [_GLUED.sub("", word) or word for word in words]
    said = {_PARTS[word] for word in words if word in _PARTS}
    return said.pop() if len(said) == 1 else "", frozenset(words) - set(_PARTS)


def _named_parts(found: list[Path]) -> dict[str, list[Path]]:
    """The folders that are called after parts. Words beside the part's name are either such as
    ``set``, or those of another part too (seg_train, seg_test): freight_train is a class."""
    said = {folder: said_part(folder.name) for folder in found}
    shared = {(part, rest) for part, rest in said.values() if part}
    named: dict[str, list[Path]] = {}
    for part in dict.fromkeys(_PARTS.values()):
        for folder, (of, rest) in said.items():
            alike = any(other != of and words == rest for other, words in shared)
            if of == part and (rest <= _OF_FILES or alike):
                named.setdefault(part, []).append(folder)
    return named


def layout(root: Path) -> dict[str, dict[str, Path]]:
    """The folder of each class in each part; all are for training where none is called after a part.

    Errors: two folders for one part, parts within some of the classes alone.
    """
    found = folders(root)
    named = _named_parts(found)
    training = named.get("train", [])
    # a train beside a bus and a car is a class
    if any(map(folders, training)) or (training and sum(map(len, named.values())) == len(found)):
        places = {part: _only(root, part, given) for part, given in named.items()}
        inner = {"train": _unwrapped(places["train"], ())}
        known = [folder.name for folder in folders(inner["train"])]
        inner |= {p: _unwrapped(place, known) for p, place in places.items() if p != "train"}
        return {p: {f.name: f for f in folders(place)} for p, place in inner.items()}
    return _within(root, found) or {"train": {folder.name: folder for folder in found}}


def _only(root: Path, part: str, given: list[Path]) -> Path:
    if len(given) > 1:
        raise InputError(
            str(root),
            got=f"folders {', '.join(folder.name for folder in given)}, all for {part}",
            expected="at most one folder for each part",
            repair="join them, or rename those that are classes",
        )
    return given[0]


def _unwrapped(part: Path, classes: Sequence[str]) -> Path:
    """The folder of a part's classes, which may be the only one in it: train/train/cat/1.jpg."""
    inner = folders(part)
    while len(inner) == 1 and inner[0].name not in classes and folders(inner[0]):
        part, inner = inner[0], folders(inner[0])
    return part


def _within(root: Path, found: list[Path]) -> dict[str, dict[str, Path]]:
    """The folders CLASS/PART by part and class; none where the classes hold no such folders."""
    inner = {folder: _named_parts(folders(folder)) for folder in found}
    divided = [folder for folder, named in inner.items() if "train" in named and len(named) > 1]
    if not divided:
        return {}
    for folder, named in inner.items():
        besides = len(folders(folder)) > sum(map(len, named.values())) or _holds_files(folder)
        if folder not in divided or besides:
            raise InputError(
                str(root),
                got=f"parts such as {divided[0].name}/{inner[divided[0]]['train'][0].name}, and "
                f"others in {folder.name}",
                expected="every class divided into parts, or none",
                repair="PATH/train/CLASS/* and PATH/test/CLASS/*",
            )
    return {
        part: {
            folder.name: _only(folder, part, named[part])
            for folder, named in inner.items()
            if part in named
        }
        for part in dict.fromkeys(_PARTS.values())
        if any(part in named for named in inner.values())
    }


def _holds_files(folder: Path) -> bool:
    """Whether images or texts lie in a folder itself."""
    return any(f.suffix.lower() in IMAGES + TEXTS and f.is_file() for f in folder.iterdir())


def listed(root: Path, what: str, endings: tuple[str, ...] = ()) -> tuple[tuple[str, ...], Listed]:
    """The classes, by name, and the files of each part with the numbers of their classes.

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
    places = layout(root)
    _check_classes(root, list(places["train"].values()))
    classes = tuple(places["train"])
    rows: Listed = {}
    for part, of_part in places.items():
        for name, folder in of_part.items():
            if name not in classes:
                raise unknown(f"{folder.parent}: class", name, classes)
            label, above = classes.index(name), folder.parent
            rows.setdefault(part, []).extend((f, label) for f in files(folder, endings, above))
        if not rows.get(part):
            got = f"no files by class for {part}"
            expected = f"a folder of {what} for each class"
            repair = "" if part == "train" else "what has no classes is for ravine predict"
            raise InputError(str(root), got=got, expected=expected, repair=repair)
    _warn_left_out(root, places)
    return classes, rows


def _check_classes(root: Path, found: list[Path]) -> None:
    if len(found) < 2:
        got, expected = f"{len(found)} folder(s)", "a folder for each of two classes or more"
        raise InputError(str(found[0].parent if found else root), got=got, expected=expected)
    real: dict[tuple[int, int], str] = {}
    for folder in found:
        other = real.setdefault(_mark(folder), folder.name)
        if other != folder.name:
            got = f"one folder by two names, {other} and {folder.name}"
            raise InputError(str(folder.parent), got=got, expected="a folder for each class")
    inner = [[within.name for within in folders(folder)] for folder in found]
    if len(inner[0]) < 2 or any(names != inner[0] for names in inner):
        return
    held = (next(walk(folder / name), None) for folder in found for name in inner[0])
    if not any(map(_holds_files, found)) and all(held):  # either level may be that of the classes
        outer, within = _few([folder.name for folder in found]), _few(inner[0])
        raise InputError(
            str(found[0].parent),
            got=f"folders {outer} that all hold the same folders, {within}",
            expected="one folder for each class, or folders train, val and test of them",
            repair=f"where {within} are the classes, join the folders above them or rename these "
            f"train, val, test; where {outer} are, move the files in each up into it",
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _warn_left_out(root: Path, places: dict[str, dict[str, Path]]) -> None:
    """One warning that names the folders beside those of the parts."""
    used = [folder for of_part in places.values() for folder in of_part.values()]
    left = [f.name for f in folders(root) if not any(u.is_relative_to(f) for u in used)]
    if left:
        text = f"{root}: {_few(left)}: not called after a part, left out beside the others"
        warnings.warn(text, stacklevel=2)
