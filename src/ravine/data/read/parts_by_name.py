"""Files of a source that comes in several, and which part each of them is of."""

from __future__ import annotations

import re
from pathlib import Path

from ravine.data.read import classes as by_class
from ravine.errors import InputError

_PARTS = (("train", "train"), ("val", "validation"), ("test", "test"))


def files_by_part(path: Path, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files under a path, by name: PATH/train/*, PATH/train-*, PATH/train.*, with val and test
    alike; where none is called so all are for training.

    >>> for name in ("train-0.tar", "train-1.tar", "val.tar"):
    ...     _ = (tmp / name).write_bytes(b"")
    >>> {part: len(files) for part, files in files_by_part(tmp, (".tar",)).items()}
    {'train': 2, 'validation': 1}
    """
    if path.is_file():
        return {"train": [path]}
    files = by_class.files(path, endings)
    if not files:
        got, expected = "no such files", f"files ending in {', '.join(endings)}"
        raise InputError(str(path), got=got, expected=expected)
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_part(file.relative_to(path)), []).append(file)
    if "train" not in found:
        return {"train": files}
    return {part: found[part] for _, part in _PARTS if part in found}


def _part(name: Path) -> str:
    """The part that a folder or the beginning of a file's name says; empty where neither does."""
    for word in name.parts:
        for begin, part in _PARTS:
            if re.match(rf"{begin}(ing|id|idation)?(?![a-z])", word.lower()):
                return part
    return ""
