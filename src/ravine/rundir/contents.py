"""What a directory of Ravine may hold: plain files and folders. Whatever else lies in it was put there to
be written through or waited for. No torch here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ravine.errors import InputError

_MOST_ENTRIES = 1_000_000
_DEPTH = 12
_WRITTEN_IN_PLACE = (".writer", ".writer-process", "metrics.sqlite")


def check_contents(root: Path) -> None:
    """Refuse links, devices, pipes and sockets anywhere under a directory, without following any.

    Each folder is opened by the descriptor of the one above it.
    """
    try:
        handle = os.open(root, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return  # whoever reads it says what is missing
    try:
        _check(handle, root, [_MOST_ENTRIES], 0)
    finally:
        os.close(handle)


def _check(handle: int, here: Path, left: list[int], depth: int) -> None:
    try:
        entries = list(os.scandir(handle))
    except OSError as error:
        raise InputError(
            str(here), expected="a folder that can be read", repair=str(error)
        ) from None
    left[0] -= len(entries)
    if left[0] < 0 or depth > _DEPTH:
        raise InputError(
            str(here), got="far more files than Ravine writes", expected="a run directory"
        )
    for entry in entries:
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # a writer's, gone already
            continue
        if stat.S_ISDIR(found.st_mode):
            try:
                inner = os.open(
                    entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=handle
                )
            except FileNotFoundError:
                continue
            try:
                _check(inner, here / entry.name, left, depth + 1)
            finally:
                os.close(inner)
        elif not stat.S_ISREG(found.st_mode):
            kind = "a link" if stat.S_ISLNK(found.st_mode) else "a device, a pipe or a socket"
            raise _refused(here / entry.name, kind)
        elif entry.name.startswith(_WRITTEN_IN_PLACE) and found.st_nlink > 1:
            raise _refused(here / entry.name, "a second name of another file")


def _refused(place: Path, kind: str) -> InputError:
    return InputError(
        str(place),
        got=kind,
        expected="a plain file: Ravine writes no links, and follows none in a run directory",
        repair="remove it if you know what it is",
    )
