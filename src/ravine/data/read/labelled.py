"""Images whose classes a table names: a column of file names, and one of classes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from ravine.data.endings import IMAGES, TABLES
from ravine.data.read import classes as by_class
from ravine.errors import InputError, unknown

_CLASS = (
    "class",
    "label",
    "labels",
    "category",
    "target",
    "species",
    "breed",
    "diagnosis",
    "type",
    "y",
)
_PART = ("split", "set", "subset", "part", "partition", "usage")


def table_of(root: Path) -> str | None:
    """The table in a folder of which a column names images under that folder, if there is one."""
    tables = sorted(f for f in root.iterdir() if f.is_file() and f.suffix.lower() in TABLES)
    images = _by_name(root) if tables else {}
    for table in tables if images else ():
        try:
            if _files_column(_columns(table), images):
                return table.name
        except InputError:  # something else lies beside the images
            continue
    return None


def listed(
    root: Path, table: str | None, target: str | None
) -> tuple[tuple[str, ...], by_class.Listed]:
    """The classes, and the images of each part, each with the number of its class.

    ``table`` is its name in the folder; None: the one that names images. ``target`` is the column of
    classes, unless its name says so or no other is left; a column such as ``split`` that holds train,
    val and test divides them. Images that the table does not name are left out; so are names without
    an image, with a warning.

    Errors: no such table in the folder, no column of file names or of classes.
    """
    table = table or table_of(root)
    if table is None or Path(table).name != table or not (root / table).is_file():
        expected = f"the name of a table in {root} that names images"
        raise InputError("labels", got=table or "no such table", expected=expected)
    place = root / table
    columns, images = _columns(place), _by_name(root)
    named = _files_column(columns, images)
    if named is None:
        raise InputError(
            str(place), got="no column that names the images", expected=f"file names under {root}"
        )
    label = _class_column(columns, named, target, place)
    classes = tuple(sorted({text for text in columns[label] if text is not None}))
    _check_classes(classes, columns[label], label, place)
    parts = _parts(columns, (named, label))
    found: by_class.Listed = {part: [] for part in dict.fromkeys(parts)}
    lost = [name for name in columns[named] if name is not None and name not in images]
    for name, text, part in zip(columns[named], columns[label], parts, strict=True):
        if name in images and text is not None:
            found[part].append((images[name], classes.index(text)))
    if lost:
        warnings.warn(
            f"{place}: {len(lost)} of {len(parts)} names have no image, such as {lost[0]!r}",
            stacklevel=2,
        )
    return classes, found


def _columns(table: Path) -> dict[str, list[str | None]]:
    """The cells of each column as they are written; None where missing."""
    from ravine.data.tables.file import read  # pandas comes with it

    found = {}
    for name, cells in read(table, texts=True).columns.items():
        texts = [*cells.texts, None]
        found[name] = [texts[code] for code in cells.codes]  # -1: missing
    return found


def _by_name(root: Path) -> dict[str | None, Path]:
    """Images by what a table may call them: path below the folder, name, or name without ending; a
    name that two images have is none."""
    found: dict[str | None, Path] = {}
    twice = set()
    for file in by_class.files(root, IMAGES):
        below = file.relative_to(root)
        for name in {below.as_posix(), file.name, file.stem, below.with_suffix("").as_posix()}:
            if name in found:
                twice.add(name)
            found[name] = file
    return {name: file for name, file in found.items() if name not in twice}


def _files_column(
    columns: Mapping[str, Sequence[str | None]], images: Mapping[str | None, Path]
) -> str | None:
    """The column of which most cells name images, at least half of them."""
    share = {
        name: sum(cell in images for cell in cells) / max(1, len(cells))
        for name, cells in columns.items()
    }
    best = max(share, key=lambda name: share[name], default=None)
    return best if best is not None and share[best] >= 0.5 else None


def _class_column(
    columns: Mapping[str, Sequence[str | None]], named: str, target: str | None, place: Path
) -> str:
    others = [name for name in columns if name != named]
    if target is not None:
        if target not in others:
            raise unknown(f"{place}: target", target, others)
        return target
    known = [name for word in _CLASS for name in others if name.lower() == word]
    if known or len(others) == 1:
        return (known or others)[0]
    raise InputError(
        str(place),
        got=f"columns {', '.join(others) or 'of file names alone'}",
        expected="one that is the class",
        repair=f"--target {others[0]}" if others else "add a column of classes",
    )


def _check_classes(
    classes: Sequence[str], cells: Sequence[str | None], label: str, place: Path
) -> None:
    if not 2 <= len(classes) <= max(2, len(cells) // 2):
        raise InputError(
            f"{place}: {label}",
            got=f"{len(classes)} different values in {len(cells)} rows",
            expected="two classes or more, each of several images",
            repair="numbers to predict are given in Python: ravine.train(data=(images, numbers))",
        )


def _parts(columns: Mapping[str, Sequence[str | None]], others: Sequence[str]) -> list[str]:
    """The part of each row."""
    for name, cells in columns.items():
        parts = [by_class.said_part(cell or "")[0] for cell in cells]
        if name.lower() in _PART and name not in others and all(parts) and "train" in parts:
            return parts
    return ["train"] * len(next(iter(columns.values())))
