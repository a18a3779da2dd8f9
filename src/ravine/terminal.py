"""The terminal: what is printed is text, never markup, so that ``[/red]`` in a path, a class or a name is
shown as it is written."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from rich.text import Text


def console(*, stderr: bool = True, **options: Any) -> Console:
    """Standard error, or standard output, for plain text, ``styled`` text and tables."""
    return Console(stderr=stderr, markup=False, emoji=False, **options)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text of which some parts have a style.

    >>> styled(("sick", "bold red"), " [/red] is no mark here").plain
    'sick [/red] is no mark here'
    """
    return Text.assemble(*parts)


def text_column(form: str) -> TextColumn:
    """A column of a progress bar, such as ``{task.description}``."""
    return TextColumn(form, markup=False)
