"""How every command shows its help, and how it ends: one line on standard error and an exit code.

0: done. 1: the run failed, was interrupted, or the disk does not take what is to be written. 2: the input
was wrong. 128 and the signal's number: a second Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from ravine.engine.ranks.launcher import first_to_say
from ravine.errors import RavineError
from ravine.stop_signals import came
from ravine.storage.bounded import exists
from ravine.storage.files import trouble
from ravine.terminal import visible

NARROW = 80  # columns below which options and their help do not fit beside each other


class Command(TyperCommand):
    """A command whose help, in a narrow terminal, has no column that would cut words."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if shutil.get_terminal_size().columns < NARROW:
            self.rich_markup_mode = None
        super().format_help(ctx, formatter)


@contextmanager
def guarded(trust: bool, place: Any = None) -> Iterator[None]:
    """Errors that a person can repair are one line; a run made elsewhere is trusted if they say so.
    ``place`` is what the command is about: the files of a run or a study may be anybody's."""
    try:
        with _trusting(trust), _of_directory(place):
            yield
    except KeyboardInterrupt:
        _fail("interrupted", 1)
    except Exception as error:
        if came():  # a package that was being loaded makes another error of the interruption
            _fail("interrupted", 1)
        if isinstance(error, RavineError):
            _fail(str(error), error.exit_code)
        text = trouble(error)
        if text is None:
            raise
        _fail(text, 1)


@contextmanager
def _trusting(trust: bool) -> Iterator[None]:
    if not trust:
        yield
        return
    from ravine.rundir.mark import trusting  # it brings numpy, which most help does not need

    with trusting():
        yield


def _of_directory(place: Any) -> AbstractContextManager[None]:
    names = ("recipe.json", "study.json")
    if not (isinstance(place, Path) and any(exists(place / name) for name in names)):
        return nullcontext()
    from ravine.rundir.contents import sound

    return sound(place)


def _fail(message: str, code: int) -> None:
    # with which of them the interruption began decides no more than the words
    said = "interrupted" if message.startswith("interrupted") else message
    if first_to_say(said):  # of several ranks one speaks for all
        typer.echo(visible(f"ravine: {message}"), err=True)
    raise typer.Exit(code)
