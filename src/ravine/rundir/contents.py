"""What a directory of Ravine may hold: plain files and folders, whose contents fit together. Whatever else
lies in it was put there to be written through or waited for. No torch here."""

from __future__ import annotations

import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ravine import errors
from ravine.errors import InputError, RavineError, first_line
from ravine.storage.files import trouble

_MOST_ENTRIES = 1_000_000
_DEPTH = 12
P = ParamSpec("P")
T = TypeVar("T")
# what code raises for data of other types and sizes than it was written for
_MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_PACKAGE = os.path.dirname(errors.__file__)
_INSTALLED = (_PACKAGE, sys.prefix, sys.base_prefix, "<")
_WRITTEN_IN_PLACE = (".writer", ".writer-process", "metrics.sqlite")
_JOURNAL = "metrics.sqlite-journal"
_FILES = ("recipe.json", "study.json", "report.html", *_WRITTEN_IN_PLACE)
_FOLDERS = ("snapshots", "final", "data", "trace", "requests")


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
            if depth == 0 and (entry.name in _FILES or entry.name.startswith("metrics.sqlite")):
                raise _refused(here / entry.name, "a folder")
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
        elif entry.name == _JOURNAL:  # SQLite deletes the file that one names; Ravine writes none
            raise _refused(here / entry.name, "a journal that names other files")
        elif depth == 0 and entry.name in _FOLDERS:
            raise _refused(here / entry.name, "a file in the place of a folder")


def _refused(place: Path, kind: str) -> InputError:
    return InputError(
        str(place),
        got=kind,
        expected="what Ravine writes: plain files and folders, no links, and it follows none",
        repair="remove it if you know what it is",
    )


@contextmanager
def sound(place: str | Path) -> Iterator[None]:
    """In this block whatever fails because the files of a directory do not fit together is one InputError.
    Errors of a person's own code pass: files that were forged cannot bring any."""
    try:
        yield
    except RavineError:
        raise
    except _MISFITS as error:
        calls = traceback.extract_tb(error.__traceback__)
        if trouble(error) or not all(call.filename.startswith(_INSTALLED) for call in calls):
            raise
        last = [call for call in calls if call.filename.startswith(_PACKAGE)][-1]
        at = f"{os.path.relpath(last.filename, _PACKAGE)}, line {last.lineno}"
        raise InputError(
            str(place),
            got="files that do not fit together",
            expected="what Ravine wrote",
            repair=f"{type(error).__name__}: {first_line(error)[:300]} ({at})",
        ) from error


def of_sound(function: Callable[P, T]) -> Callable[P, T]:
    """A function of a directory whose files are ``sound``; where a model or parts of a person's own are
    given, their errors may be of any kind."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        signature(function).bind(*args, **kwargs)  # a wrong keyword is no fault of the files
        place: Any = args[0] if args else kwargs.get("directory", "")
        given = kwargs.get("model") is not None or kwargs.get("own")
        with nullcontext() if given else sound(place):
            return function(*args, **kwargs)

    return call
