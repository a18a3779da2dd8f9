"""The report of a study: one self-contained page in the style of a run's report, and its figures as
files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from rich import box
from rich.table import Table as RichTable

from ravine import measures
from ravine.report import figures, run_page
from ravine.report.overview import show_value
from ravine.storage.files import atomic, write_text
from ravine.study.directory import Study
from ravine.study.live import shortened
from ravine.study.members import members_of
from ravine.study.narrow import NARROW, narrow, refit
from ravine.terminal import browse, columns_that_fit, console

_WEB = [Path(__file__).parent / "web", Path(run_page.__file__).parent / "web"]


@dataclass
class PageTable:
    """Rows of plain data under headings; numbers are shown as ``form`` says, or by the name of
    their column."""

    caption: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    best: int | None = 0  # the row that is marked

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def around(self, most: int = 12) -> Sequence[Mapping[str, Any]]:
        """Up to ``most`` rows, those around the best."""
        first = max(0, min((self.best or 0) - most // 2, len(self.rows) - most))
        return self.rows[first : first + most]


@dataclass
class Page:
    """What a study has to say: the answer first, then pictures and tables."""

    title: str
    sentences: Sequence[str]
    # file name -> (caption, figure)
    figures: Mapping[str, tuple[str, Figure]] = field(default_factory=dict)
    tables: Sequence[PageTable] = ()
    reading: Sequence[str] = ()  # how to read it
    pictures: Sequence[str] = ()  # further files in figures/, such as an interactive page


class Findings(dict[str, Any]):
    """The summary of a study, plain data, which a notebook shows as its answer and first table."""

    def __init__(self, summary: Mapping[str, Any], page: Page):
        super().__init__(summary)
        self._page = page

    def _repr_html_(self) -> str:
        from ravine.report.notebook import study_html

        found = self._page.tables[0] if self._page.tables else PageTable("", [])
        rows = [{heading(c): cell(row.get(c), c) for c in found.columns} for row in found.around()]
        return study_html(self._page.sentences, rows, self["report"])

    def open(self) -> Path:
        """Open the report in the browser and give its path."""
        return browse(Path(self["report"]))


FEWEST = 3  # columns of a table that are shown, however narrow the terminal is
WIDE = 5.7  # inches: a figure that would be too small in one of two columns
AROUND, WHOLE = 72, 1160  # pixels beside a figure; of a page whose main part is as wide as it gets


def write_page(study: Study, content: Page) -> None:
    """Write ``figures/NAME.png``, ``figures/NAME.svg`` and ``report.html``."""
    folder = study.path / "figures"
    folder.mkdir(exist_ok=True)
    for left in folder.glob(".*"):  # by a disk that failed
        left.unlink()
    drawn = [
        _drawn(figure, caption, folder / name, f"s{number}")
        for number, (name, (caption, figure)) in enumerate(content.figures.items())
    ]
    members = members_of(study.path)
    html = (
        _templates()
        .get_template("study.html")
        .render(
            study=study,
            content=content,
            figures=drawn,
            command=study.command,
            members=members,
            held=run_page.held(members),
            stages=list(dict.fromkeys(study.stages)),
            recipe=study.recipe.to_toml(),
            facts=[(name, run_page.line_of(value)) for name, value in study.facts.items()],
        )
    )
    write_text(study.path / "report.html", html)


@dataclass(frozen=True)
class Drawn:
    """A figure on the page."""

    key: str
    caption: str
    svg: Markup
    panels: bool  # whether it takes the whole width
    small: Markup  # what takes its place on a page that is too narrow for it
    breaks: int  # pixels of such a page


def _drawn(figure: Figure, caption: str, place: Path, key: str) -> Drawn:
    """Write a figure's files; its views for the page."""
    with figures.style():
        with atomic(place.with_name(f"{place.name}.png")) as partial:
            figure.savefig(partial, format="png")
        figure.set_layout_engine("none")  # its layout is final
    svg = run_page.svg_of(figure)
    ground = '<g id="figure_1">\n  <rect width="100%" height="100%" fill="#ffffff"/>'
    write_text(place.with_name(f"{place.name}.svg"), svg.replace('<g id="figure_1">', ground, 1))
    inline, pixels = run_page.placed(svg, figure, key, caption), run_page.wide(figure)
    several, small = figure.get_figwidth() > WIDE, Markup("")
    if several:
        small = narrow(figure, key)
    elif figure.get_figwidth() > NARROW:
        with figures.style():
            refit(figure)
            small = run_page.inline_svg(figure, f"{key}n", caption)
    return Drawn(key, caption, inline, several, small, min(pixels + AROUND, WHOLE))


def print_page(content: Page, path: Path) -> None:
    """The sentences and the first table, on standard error."""
    out = console(highlight=False)
    if not out.is_terminal:  # a file has no width
        out.width = 120
    for sentence in content.sentences:
        out.print(sentence)
    for table in content.tables[:1]:
        out.print(_printed(table, out.width))
    out.print(f"report: {path / 'report.html'}", soft_wrap=True)


def _printed(table: PageTable, width: int, most: int = 12) -> RichTable:
    """Up to ``most`` rows, those around the best. Columns that say nothing are left to the report, and
    the last ones where the width is too small: words stay whole, and so does a mean with its
    deviation."""
    rows = [
        {column: cell(row.get(column), column) for column in table.columns}
        for row in table.around(most)
    ]
    columns = [
        column for column in table.columns if any(row[column] not in ("0", "–") for row in rows)
    ]
    fields = [column for column in columns if "." in column]
    heads = {column: heading(column) for column in columns} | dict(
        zip(fields, shortened(fields), strict=True)
    )
    words = {
        c: max(
            *(len(word) for word in heads[c].split()),
            *(len(part) for row in rows for part in _unbroken(row[c])),
        )
        for c in columns
    }
    room = width - 1  # the table's left edge
    # the fields that vary go first, the last of them before the others; the results are what is asked for
    first_out = [*reversed(fields[1:]), *(c for c in reversed(columns[1:]) if c not in fields)]
    needs = [words[c] + 2 for c in columns]
    places = map(columns.index, first_out[: max(0, len(columns) - FEWEST)])
    columns = [columns[i] for i in columns_that_fit(needs, places, room)]
    fits = sum(words[c] + 2 for c in columns) <= room
    spare = room - sum(words[c] + 2 for c in columns)
    for column in columns if fits else ():
        whole = max(len(heads[column]), *(len(row[column]) for row in rows)) - words[column]
        words[column] += min(spare, whole)
        spare -= min(spare, whole)
    left_out = len(table.rows) - len(rows)
    shown = RichTable(
        title=table.caption,
        title_justify="left",
        caption=f"{left_out} further rows are in the report" if left_out else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        shown.add_column(heads[column], overflow="fold", width=words[column] if fits else None)
    for row in rows:
        shown.add_row(*(row[column] for column in columns))
    return shown


def _unbroken(text: str) -> list[str]:
    """The parts of a cell that stay on one line."""
    return [text] if "±" in text else text.split()


@cache
def _templates() -> Environment:
    """With what it has compiled: that takes longer than all else of a report."""
    environment = Environment(
        loader=FileSystemLoader(_WEB),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": cell, "heading": heading, "breaks": run_page.breaks}
    environment.filters["numeric"] = _numeric
    return environment


def _numeric(table: PageTable) -> set[str]:
    """The columns that hold numbers, or lists of them, and nothing else."""
    held = {c: [row[c] for row in table.rows if row.get(c) is not None] for c in table.columns}
    return {
        column
        for column, values in held.items()
        if values and not any(isinstance(value, str | bool) for value in values)
    }


def heading(column: str) -> str:
    """A column's name in words.

    >>> heading("optimizer.lr"), heading("best val_accuracy"), heading("ece"), heading("p")
    ('optimizer.lr', 'Best validation accuracy', 'ECE', 'p')
    """
    if "." in column or column == "p":
        return column
    words = [measures.title(word).lower() if "_" in word else word for word in column.split(" ")]
    text = " ".join(words) if len(words) > 1 else measures.title(column)
    return text if text.startswith("p ") else text[:1].upper() + text[1:]


def cell(value: Any, column: str) -> str:
    """A value as it is shown in a table; a pair is mean and standard deviation, but of a recipe's field.

    >>> cell([128, 64], "model.hidden"), cell([0.9051, 0.004], "val_accuracy")
    ('[128, 64]', '90.51 ± 0.40 %')
    """
    if (
        isinstance(value, list | tuple)
        and "." not in column  # a recipe's field
        and len(value) == 2
        and all(isinstance(v, int | float) for v in value)
    ):
        if measures.is_percent(column):
            return f"{100 * value[0]:.2f} ± {100 * value[1]:.2f} %"
        return f"{measures.number(value[0])} ± {measures.number(value[1])}"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # relative, of a derivative: no percentage
    if column.endswith(" error") and isinstance(value, float):
        return f"{value:.2g}"
    if "." in column and not isinstance(value, Mapping):
        return show_value(value)
    return measures.show(column, value)
