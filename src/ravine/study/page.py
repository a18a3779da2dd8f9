"""The report of a study: one self-contained page in the style of a run's report, and its figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table as RichTable

from ravine.report import figures, measures, page
from ravine.report.summary import show_value
from ravine.study.live import shortened

if TYPE_CHECKING:
    from ravine.study.directory import Study

_WEB = [Path(__file__).parent / "web", Path(page.__file__).parent / "web"]


@dataclass
class Table:
    """Rows of plain data under headings; numbers are shown as ``form`` says, or by the name of their column."""

    caption: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    best: int | None = 0  # the row that is marked

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))


@dataclass
class Page:
    """What a study has to say: the answer first, then pictures and tables."""

    title: str
    sentences: Sequence[str]
    figures: Mapping[str, tuple[str, Figure]] = field(default_factory=dict)  # file name -> (caption, figure)
    tables: Sequence[Table] = ()
    reading: Sequence[str] = ()  # how to read it
    pictures: Sequence[str] = ()  # further files in figures/, such as an interactive page


def write_page(study: Study, content: Page) -> None:
    """Write ``figures/NAME.png``, ``figures/NAME.svg`` and ``report.html``."""
    from ravine.study.directory import write_text

    folder = study.path / "figures"
    folder.mkdir(exist_ok=True)
    drawn = []
    for number, (name, (caption, figure)) in enumerate(content.figures.items()):
        with figures.style():
            for suffix in ("png", "svg"):
                figure.savefig(folder / f"{name}.{suffix}")
                figure.set_layout_engine("none")  # it stands
        drawn.append((caption, _inline(figure, f"s{number}", caption)))
    html = (
        _templates()
        .get_template("study.html")
        .render(
            study=study,
            content=content,
            figures=drawn,
            command=study.command,
            stages=list(dict.fromkeys(study.stages)),
            recipe=study.recipe.to_toml(),
            facts=[(name, page._line(value)) for name, value in study.facts.items()],
        )
    )
    write_text(study.path / "report.html", html)


def print_page(content: Page, path: Path, rows: int = 12) -> None:
    """The sentences and the first table, on standard error."""
    console = Console(stderr=True, highlight=False)
    for sentence in content.sentences:
        console.print(sentence)
    for table in content.tables[:1]:
        shown = RichTable(title=table.caption, title_justify="left")
        fields = [column for column in table.columns if "." in column]
        short = dict(zip(fields, shortened(fields), strict=True))
        for column in table.columns:
            shown.add_column(short.get(column) or heading(column), overflow="fold")
        for row in list(table.rows)[:rows]:
            shown.add_row(*(cell(row.get(column), column) for column in table.columns))
        console.print(shown)
    console.print(f"report: {path / 'report.html'}", soft_wrap=True)


def _inline(figure: Figure, prefix: str, caption: str) -> Markup:
    return page.inline_svg(figure, prefix, caption)


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": cell, "heading": heading}
    return environment


def heading(column: str) -> str:
    return column if "." in column or " " in column or column == "seed" else measures.title(column)


def cell(value: Any, column: str) -> str:
    """A value as it stands in a table; a pair is mean and standard deviation."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        if measures.is_percent(column):
            return f"{100 * value[0]:.2f} ± {100 * value[1]:.2f} %"
        return f"{measures.number(value[0])} ± {measures.number(value[1])}"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if column.endswith(" error") and isinstance(value, float):  # relative, of a derivative: no percentage
        return f"{value:.2g}"
    if "." in column and not isinstance(value, list | tuple | Mapping):
        return show_value(value)
    return measures.show(column, value)
