"""Where data are looked for and where they are kept; files that take their place whole or not at
all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

_ALSO: dict[Path, None] = {}  # in the order in which they were named


def look_also_in(directory: str | None) -> None:
    """Name a folder in which relative paths are looked for last: that in which a run was begun."""
    if directory:
        _ALSO[Path(directory)] = None


def also_looked_in() -> list[Path]:
    """The folders named so far."""
    return list(_ALSO)


def data_root() -> Path:
    """Where data are looked for first: ``RAVINE_DATA`` where that is set, else the cache."""
    named = os.environ.get("RAVINE_DATA")
    return Path(named).expanduser() if named else cache_root()


def cache_root() -> Path:
    """Where Ravine writes what it fetched or decoded."""
    return user_cache_path("ravine") / "data"


class atomic:
    """A path to write to that takes the place of ``to`` once all went well, and vanishes
    otherwise."""

    def __init__(self, to: Path):
        self.to = to

    def __enter__(self) -> Path:
        self.to.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{self.to.name}.", dir=self.to.parent)
        os.close(handle)
        self.partial = Path(name)
        return self.partial

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            os.replace(self.partial, self.to)
        else:
            self.partial.unlink(missing_ok=True)
