"""What lies at a path: a recipe, a table, a text, photographs, texts by class, IDX files or arrays."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ravine.catalogue import table
from ravine.data.endings import IMAGES, OTHER_SHEETS, PARQUET, RECIPES, SHARDS, TABLES, TEXTS
from ravine.data.read import text
from ravine.data.read.classes import hidden, layout, walk
from ravine.data.read.labelled import check_names, table_of
from ravine.errors import InputError, nearest

_MOST_FILES = 200  # that are looked at in a folder
_CHOICES = (
    "a recipe (.toml, .json), a table (.csv, .tsv, .xlsx, .jsonl, .parquet, .arrow), a text (.txt), "
    "arrays (.npz), shards (.tar), or a folder of these or with "
    "one folder of images or texts for each class"
)


@dataclass(frozen=True)
class Guess:
    """``source``: the recipe's data.source; ``words``: what was found, for people."""

    source: dict[str, Any]
    words: str


def is_recipe(path: Path) -> bool:
    """Whether a path names a recipe file."""
    return path.suffix.lower() in RECIPES


def guess(path: Path) -> Guess:
    """The source that reads what lies at ``path``.

    Errors: nothing there, a run's or study's directory, a folder without folders of classes, or a file of no
    known kind.

    >>> place = tmp / "houses.csv"
    >>> _ = place.write_text("size,price\\n1,2\\n")
    >>> guess(place).source["kind"], guess(place).words
    ('csv', 'a table')
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise InputError(
            str(path), got="nothing at this place", expected=_CHOICES, repair=_meant(path)
        )
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = Path(path.stem).suffix.lower()
    if suffix in TABLES:
        return Guess({"kind": "csv", "path": str(path)}, "a table")
    if suffix in TEXTS:
        return Guess({"kind": "text", "path": str(path)}, "a text")
    if suffix in PARQUET:
        from ravine.data.tables.as_text import is_plain  # it brings pandas

        if is_plain(path):
            return Guess({"kind": "csv", "path": str(path)}, "a table")
        return Guess({"kind": "parquet", "path": str(path)}, "a table")
    if suffix in SHARDS:
        return Guess({"kind": "shards", "path": str(path)}, "shards of samples")
    if suffix == ".npz":
        return Guess({"kind": "npz", "path": str(path)}, "arrays")
    if "idx3" in path.name or "idx1" in path.name:
        return Guess({"kind": "idx", "path": str(path)}, "IDX images")
    if suffix in IMAGES:
        repair = f"put images into a folder for each class and name the folder above: {path.parent}"
        raise InputError(str(path), got="one image", expected=_CHOICES, repair=repair)
    repair = "save it as .xlsx or as CSV" if suffix in OTHER_SHEETS else ""
    got = f"a file ending in {suffix or 'nothing'}"
    raise InputError(str(path), got=got, expected=_CHOICES, repair=repair)


def _meant(path: Path) -> str:
    """What a person may have meant by a path where nothing lies."""
    if path.name in table("source"):
        return f"the data of that name: ravine train --set data.source={path.name}"
    if not path.suffix and path.parent == Path():
        return nearest(path.name, table("source"))
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    alike = [f.stem for f in islice(path.parent.iterdir(), _MOST_FILES) if f.suffix == path.suffix]
    close = difflib.get_close_matches(path.stem, alike, n=3, cutoff=0.6)
    found = [str(path.with_name(stem + path.suffix)) for stem in close]
    return f"did you mean {' or '.join(map(repr, found))}?" if found else ""


def _folder(path: Path) -> Guess:
    path = _unpacked(path)
    if (path / "recipe.json").is_file():
        repair = f"ravine resume {path}, ravine predict {path} … use runs"
        if (path / "recipe.toml").is_file():
            repair += f"; its recipe is {path / 'recipe.toml'}"
        raise InputError(str(path), got="a run directory", expected=_CHOICES, repair=repair)
    if (path / "study.json").is_file():
        repair = f"ravine resume {path} goes on with it; its runs lie in the folders within it"
        raise InputError(str(path), got="a study's directory", expected=_CHOICES, repair=repair)
    if any("idx3" in file.name for file in path.iterdir()):
        return Guess({"kind": "idx", "path": str(path)}, "IDX images")
    for endings_, kind, words in (
        (SHARDS, "shards", "shards of samples"),
        (PARQUET, "parquet", "tables"),
    ):
        found = [_ending(file) in endings_ for file in _some_files(path)]
        if sum(found) > len(found) / 2:
            return Guess({"kind": kind, "path": str(path)}, words)
    classes = _classes(path)
    endings = [_ending(file) for folder in classes for file in _some_files(folder)]
    texts = sum(ending in TEXTS for ending in endings) or _without_ending(classes)
    if endings and texts > len(endings) / 2:
        return Guess({"kind": "texts", "path": str(path)}, f"texts of {len(classes)} classes")
    table = table_of(path, [of.name for of in classes] if len(classes) > 1 else ())
    if table is not None:
        source = {"kind": "folder", "path": str(path), "labels": table}
        return Guess(source, f"images that {table} names")
    flat = [file for file in path.iterdir() if _ending(file) in IMAGES]
    photographs = any(ending in IMAGES for ending in endings)
    if len(classes) < 2 and (photographs or flat):
        check_names(path)
    if photographs:
        return Guess({"kind": "folder", "path": str(path)}, f"images of {len(classes)} classes")
    got = f"{len(flat)} image(s) without classes" if flat else "neither images nor texts"
    if any(_ending(file) in TEXTS for file in path.iterdir()):
        got = "texts without classes"
        repair = f"move those of each class into a folder of its own, {path}/CLASS/*.txt, or join them in one "
        repair += "file, which is learnt character by character"
        raise InputError(str(path), got=got, expected=_CHOICES, repair=repair)
    repair = f"move the images of each class into a folder of its own, {path}/CLASS/*.jpg, or name "
    repair += "their files and classes in a table beside them"
    raise InputError(str(path), got=got, expected=_CHOICES, repair=repair)


def _unpacked(path: Path) -> Path:
    """The folder within a folder that holds nothing else but folders: photos/photos/cat/1.jpg, as
    archives are unpacked."""
    inner = _visible(path)
    while len(inner) == 1 and _visible(inner[0]) and not any(map(Path.is_file, path.iterdir())):
        path, inner = inner[0], _visible(inner[0])
    return path


def _classes(path: Path) -> list[Path]:
    return list(layout(path)["train"].values())


def _visible(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_dir() and not hidden(f))


def _some_files(folder: Path) -> list[Path]:
    return list(islice(walk(folder), _MOST_FILES))


def _without_ending(classes: Sequence[Path]) -> int:
    """How many files have no ending, where the first of each class is a text."""
    found = [[f for f in _some_files(folder) if not _ending(f)] for folder in classes]
    try:
        for of_class in found:
            text.read(of_class[0])
    except (InputError, IndexError):
        return 0
    return sum(map(len, found))


def _ending(file: Path) -> str:
    return file.suffix.lower()
