"""Every error says what it got, what it expected and how to repair it; none shows a traceback on
the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class RavineError(Exception):
    """The run failed: diverged everywhere, interrupted, or a run directory is damaged (exit code
    1)."""

    exit_code = 1


class InputError(RavineError, ValueError):
    """The input was wrong (exit code 2).

    >>> print(InputError("optimizer.lr", got=-1, expected="a number > 0", repair="try 0.001"))
    optimizer.lr: got -1; expected a number > 0; try 0.001
    """

    exit_code = 2

    def __init__(self, where: str, *, got: object = None, expected: str = "", repair: str = ""):
        self.where, self.got, self.expected, self.repair = where, got, expected, repair
        super().__init__(where, got, expected, repair)

    def __str__(self) -> str:
        shown = f"got {_short(self.got)}" if self.got is not None else ""
        wanted = f"expected {self.expected}" if self.expected else ""
        text = "; ".join(part for part in (shown, wanted, self.repair) if part)
        return f"{self.where}: {text}" if self.where else text

    def under(self, prefix: str) -> InputError:
        """The same error, its place named from further out: ``lr`` under ``optimizer`` is
        ``optimizer.lr``."""
        where = ".".join(part for part in (prefix, self.where) if part)
        return InputError(where, got=self.got, expected=self.expected, repair=self.repair)


def unknown(where: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a closed list, with the nearest right ones."""
    known = sorted(known)
    listed = ", ".join(known) if len(known) <= 40 else ", ".join(known[:40]) + ", …"
    return InputError(
        where, got=name, expected=f"one of {listed}" if known else "", repair=nearest(name, known)
    )


def unnamed_file(name: str) -> InputError | None:
    """The error for a file or folder given as a source without saying what it is."""
    kinds = {".csv": "csv", ".tsv": "csv", ".txt": "text", ".npz": "npz", ".gz": "idx"}
    kind = kinds.get(Path(name).suffix.lower()) or ("folder" if "/" in name else None)
    if kind is None:
        return None
    return InputError(
        "kind", got=name, expected="the kind of data before it", repair=f"write {kind}:{name}"
    )


def nearest(name: object, known: Iterable[str]) -> str:
    """The question that names the nearest of the known names; empty where none is near.

    >>> nearest("adma", ["sgd", "adam", "adamw"])
    "did you mean 'adam' or 'adamw'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's text; where it has none, what kind of error it is.

    >>> first_line(ValueError("shapes differ\\nin many words")), first_line(AssertionError())
    ('shapes differ', 'AssertionError')
    """
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
