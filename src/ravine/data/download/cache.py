"""Where data are looked for and where they are kept."""

from __future__ import annotations

import os
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
