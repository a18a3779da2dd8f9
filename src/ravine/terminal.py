"""The terminal. What is printed is text, never markup, so that ``[/red]`` in a path, a class or a
name is shown as it is written; lines that have to fit lose whole fields, never parts of words."""

from __future__ import annotations

import itertools
import math
import re
import sys
import webbrowser
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import TextColumn
from rich.segment import Segment
from rich.text import Text

GAP = 2  # columns between two fields
_BLOCKS = "▁▂▃▄▅▆▇█"
# escape sequences, other control characters, and marks that turn the order of letters around
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""A text in which what would steer the terminal is shown instead, whoever named a file or a column so.

    >>> visible("a\x1b[2Jb"), visible("two\nlines")
    ('a\\x1b[2Jb', 'two\nlines')
    """
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class _Console(Console):
    """A console on which all text is ``visible``."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not _STEERS.search(segment.text):
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def console(*, stderr: bool = True, **options: Any) -> Console:
    """Standard error, or standard output, for plain text, ``styled`` text and tables; in a notebook
    its output, as plain text that needs no widgets."""
    if in_notebook():
        options = {"width": 100, **options, "file": sys.stdout}
        return _Console(force_jupyter=False, force_terminal=False, markup=False, **options)
    return _Console(stderr=stderr, markup=False, emoji=False, **options)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text of which some parts have a style.

    >>> styled(("sick", "bold red"), " [/red] is no mark here").plain
    'sick [/red] is no mark here'
    """
    return Text.assemble(*parts)


def text_column(form: str) -> TextColumn:
    """A column of a progress bar, such as ``{task.description}``."""
    return TextColumn(form, markup=False)


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def say(*lines: str) -> None:
    """Plain lines without markup: in a file as they are, in a terminal wrapped between words."""
    out = console()
    for line in lines:
        out.print(line, highlight=False, soft_wrap=not out.is_terminal)


def browse(page: Path) -> Path:
    """Open a page in the browser and give its path; without a browser a line says where it is."""
    address = page.resolve().as_uri()
    if not webbrowser.open(address):
        say(f"no browser was found; open {address}")
    return page


@dataclass(frozen=True)
class Field:
    """A piece of a line; the one with the least ``worth`` is left out first."""

    text: str
    worth: int


def fitted(fields: Sequence[Field], width: int) -> list[Field]:
    """The fields that fit into ``width`` columns, in their order; the least worth go first.

    >>> [f.text for f in fitted([Field("epoch 1/9", 3), Field("8 step/s", 1), Field("loss 0.2", 2)], 20)]
    ['epoch 1/9', 'loss 0.2']
    """
    kept = [field for field in fields if field.text]
    while kept and sum(len(f.text) for f in kept) + GAP * (len(kept) - 1) > width:
        kept.remove(min(kept, key=lambda field: field.worth))
    return kept


def columns_that_fit(needs: Sequence[int], spare: Iterable[int], width: int) -> list[int]:
    """Which columns of a table are shown, by their places: of those in ``spare`` one after the other is
    left out until the others have what they need, so that no word is cut.

    >>> columns_that_fit([10, 20, 30, 10], spare=[2, 1], width=45)
    [0, 1, 3]
    """
    kept = list(range(len(needs)))
    for place in spare:
        if sum(needs[i] for i in kept) <= width:
            break
        kept.remove(place)
    return kept


def sparkline(values: Iterable[float], width: int = 12) -> str:
    """A small curve of blocks, from the least to the largest value; logarithmic where these are far
    apart. At most ``width`` columns, each the mean of a stretch.

    >>> sparkline([8, 4, 2, 1, 1, 1])
    '█▄▂▁▁▁'
    """
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return ""
    edges = [round(i * len(known) / width) for i in range(width + 1)]
    if len(known) > width:
        parts = [known[a:b] for a, b in itertools.pairwise(edges)]
        known = [sum(part) / len(part) for part in parts]
    if min(known) > 0 and max(known) > 20 * min(known):
        known = [math.log(value) for value in known]
    low, spread = min(known), max(known) - min(known)
    if spread == 0:
        return _BLOCKS[0] * len(known)
    return "".join(_BLOCKS[round((value - low) / spread * 7)] for value in known)


def can_show(text: str, out: Console) -> bool:
    """Whether the console's encoding has these characters."""
    try:
        text.encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def display(text: str, handle: Any = None) -> Any:
    """Show plain text in a notebook, in place of what ``handle`` showed; needs no ipywidgets."""
    from IPython.display import display as show

    bundle = {"text/plain": text}
    if handle is None:
        return show(bundle, raw=True, display_id=True)
    handle.update(bundle, raw=True)
    return handle
