"""Which image a table means by a name: tables are written on other machines and by other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from ravine.data.endings import IMAGES
from ravine.data.read import classes as by_class


class NamedImages:
    """The images under a folder, by all that a table may call them.

    A name is a place or its end, with or without the file's ending (cat/1.jpg, 1.jpg, 1). Where no
    image is called so exactly, case, separators and lost zeros may differ, and the place may begin
    further up (C:\\\\photos\\\\cat\\\\1.JPG, 1 for 0001.jpg). A name that two images have is none.
    """

    def __init__(self, root: Path):
        self.files = by_class.files(root, IMAGES)
        self.places = [file.relative_to(root).as_posix() for file in self.files]
        pairs = list(zip(map(PurePosixPath, self.places), self.files, strict=True))
        ends = [(name, file) for place, file in pairs for name in _ends(place)]
        self._exact = _unique(ends)
        self._alike = _unique((name.casefold(), file) for name, file in ends)
        whole = ((name.casefold(), file) for place, file in pairs for name in _forms(place))
        self._whole = _unique(whole)
        digits = ((place.stem.lstrip("0"), file) for place, file in pairs if place.stem.isdigit())
        self._numbers = _unique(digits)

    def find(self, names: Iterable[str | None]) -> dict[str, Path]:
        """The image of each name that means one. Names that are merely alike to what an image is called are
        none where another name means that image too."""
        wanted = {name for name in names if name}
        exact = {name: self._exact[name] for name in wanted if name in self._exact}
        alike = {name: file for name in wanted - set(exact) if (file := self._like(name))}
        times = Counter([*exact.values(), *alike.values()])
        return exact | {name: file for name, file in alike.items() if times[file] == 1}

    def _like(self, name: str) -> Path | None:
        if name.isdigit():
            return self._numbers.get(name.lstrip("0"))
        words = name.casefold().strip().replace("\\", "/").split("/")
        parts = [word for word in words if word not in ("", ".")]
        below = "/".join(parts)
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        further_up = next((self._whole[end] for end in ends if end in self._whole), None)
        return self._alike.get(below, further_up)


def _forms(place: PurePosixPath) -> set[str]:
    return {place.as_posix(), place.with_suffix("").as_posix()}


def _ends(place: PurePosixPath) -> Iterator[str]:
    for start in range(len(place.parts)):
        yield from _forms(PurePosixPath(*place.parts[start:]))


def _unique(pairs: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """The file of each name that no other file has."""
    found: dict[str, Path] = {}
    twice = set()
    for name, file in pairs:
        if found.setdefault(name, file) is not file:
            twice.add(name)
    return {name: file for name, file in found.items() if name not in twice}
