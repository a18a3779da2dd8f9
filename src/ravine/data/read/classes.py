"""Folders by class, with or without folders for the parts: PATH/CLASS/* or PATH/PART/CLASS/*."""

from __future__ import annotations

from pathlib import Path

from ravine.errors import InputError, unknown

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


def files(folder: Path, endings: tuple[str, ...] = ()) -> list[Path]:
    """Every file under a folder that is not hidden, by name; with ``endings`` only those."""
    return sorted(
        f
        for f in folder.rglob("*")
        if f.is_file()
        and not any(part.startswith(".") for part in f.relative_to(folder).parts)
        and (not endings or f.suffix.lower() in endings)
    )


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
    found = tuple(folder.name for folder in folders(training))
    if len(found) < 2:
        raise InputError(
            str(training),
            got=f"{len(found)} folder(s)",
            expected="a folder for each of two classes or more",
        )
    return found


def listed(
    folder: Path, classes: tuple[str, ...], what: str, endings: tuple[str, ...] = ()
) -> list[tuple[Path, int]]:
    """The files of a part, each with the number of its class."""
    rows = []
    for of_class in folders(folder):
        if of_class.name not in classes:
            raise unknown(f"{folder}: class", of_class.name, classes)
        rows += [(file, classes.index(of_class.name)) for file in files(of_class, endings)]
    if not rows:
        raise InputError(str(folder), got="no files", expected=f"a folder of {what} for each class")
    return rows
