"""What ``ravine data`` and ``ravine show`` show: numbers and rows in the terminal, a sheet of
samples as a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.cells import cell_len
from rich.table import Table as Grid
from rich.text import Text

from ravine.app.options import cell
from ravine.data.inspect import examples
from ravine.data.inspect.counts import SPREAD, summarize
from ravine.data.pipeline import Pipeline
from ravine.data.tables.decisions import LEFT_OUT
from ravine.recipe import Data, Recipe
from ravine.report import sheets as sheets
from ravine.storage.files import name_of_file
from ravine.terminal import console

_console = console()
_MOST_CLASSES, _EACH = 20, 10  # rows and columns of a sheet by class
_ROWS, _COLUMNS = 8, 10  # of a table in the terminal


def show_data(data: Data, out: Path | None) -> dict[str, Any]:
    """Counts, ranges, constant features, class balance and samples of a source."""
    name = _name(data)
    path = sheets.place_of(out, f"{name_of_file(Path(name).stem, 'data')}-samples")
    pipeline = Pipeline(data)
    found = summarize(pipeline)
    _print_parts(f"{name}: {pipeline.task}", found)
    _print_classes(found)
    _print_columns(found)
    _print_samples(pipeline)
    sheets.save(_sheet(pipeline, name), path)
    _console.print(f"samples: {path}", highlight=False, soft_wrap=True)
    return found | {"samples": str(path)}


def show_augmented(
    recipe: Recipe, out: Path | None, *, count: int = 8, draws: int = 7
) -> dict[str, Any]:
    """A sheet of augmented samples, each original beside several draws, through the recipe's own
    pipeline."""
    path = sheets.place_of(out, f"{name_of_file(recipe.name, 'recipe')}-augmented")
    pipeline = Pipeline(recipe.data)
    groups, seen = examples.augmented(pipeline, count, draws)
    names = " + ".join(part.kind for part in recipe.data.augment)
    sheet = _augmented_sheet(pipeline, groups, seen, f"{recipe.name}: {names}")
    sheets.save(sheet, path)
    _console.print(
        f"{len(groups)} samples, {draws} draws of each by {names}: {path}",
        highlight=False,
        soft_wrap=True,
    )
    kinds = [part.kind for part in recipe.data.augment]
    return {"sheet": str(path), "samples": len(groups), "draws": draws, "augment": kinds}


# --- pictures -------------------------------------------------------------------------------------


def _name(data: Data) -> str:
    """The source's name, or that of its file or folder."""
    return Path(data.source.arguments.get("path", data.source.kind)).name or data.source.kind


def _sheet(pipeline: Pipeline, name: str) -> Figure:
    view = examples.view_of(pipeline)
    title = f"{name}: {pipeline.size('train'):,} training samples"
    if view in ("text", "tokens"):
        return sheets.text_sheet(examples.lines_of(pipeline, 24), title)
    if view == "table":
        table = examples.table_of(pipeline)
        return sheets.table_sheet(table.columns, table.targets, title)
    groups = examples.by_class(pipeline, _EACH, _MOST_CLASSES)
    if len(pipeline.classes) > _MOST_CLASSES and pipeline.task != "sequence":
        title += f", {len(groups)} of {len(pipeline.classes)} classes"
    draw = sheets.image_sheet if view == "images" else sheets.sequence_sheet
    return draw([(group.title, group.x, group.captions) for group in groups], title)


def _augmented_sheet(
    pipeline: Pipeline, groups: Sequence[examples.ClassSamples], seen: Any, title: str
) -> Figure:
    view = examples.view_of(pipeline)
    rows = [(group.title, group.x, group.captions) for group in groups]
    if view == "images":
        return sheets.image_sheet(rows, title, last=seen)
    if view == "sequences":
        return sheets.sequence_sheet(rows, title)
    if view == "table":
        return sheets.values_sheet(rows, examples.features_of(pipeline), title)
    characters = pipeline.classes if view == "text" else ()
    lines = [[examples.line(row, characters) for row in group.x] for group in groups]
    return sheets.text_sheet(
        [line for group in lines for line in (*group, "")][:-1], f"{title} (originals first)"
    )


# --- the terminal ---------------------------------------------------------------------------------


def _print_parts(title: str, found: dict[str, Any]) -> None:
    """Counts and ranges, a column for each part."""
    parts = found["parts"]
    shown = Grid(title=title, title_justify="left")
    shown.add_column("")
    for name in parts:
        shown.add_column(name, justify="right")
    numbers = () if found["vocabulary"] else (*SPREAD, "missing")
    for field in ("samples", "dtype", *numbers, "features", "constant_features", "constant"):
        values = [part.get(field) for part in parts.values()]
        if any(value is not None for value in values):
            shown.add_row(field.replace("_", " "), *map(cell, values))
    for field in parts["train"].get("target", ()):
        shown.add_row(f"target {field}", *(cell(part["target"][field]) for part in parts.values()))
    _console.print(shown)
    shapes = f"a sample: {cell(found['raw_shape'])}, as the network sees it: {cell(found['input_shape'])}"
    targets = f", {found['outputs']} target(s)" if found["task"] == "regression" else ""
    _console.print(shapes + targets, highlight=False)


def _print_classes(found: dict[str, Any]) -> None:
    """How often each class occurs in each part; the rarest and the most frequent where there are
    many."""
    parts = found["parts"]
    if found["task"] == "regression":
        return
    counts = {name: part["class_counts"] for name, part in parts.items()}
    order = list(range(len(found["classes"])))
    title = "classes"
    if len(order) > 30:
        order = sorted(order, key=lambda k: -counts["train"][k])
        order, title = [*order[:10], *order[-10:]], "the 10 most frequent and the 10 rarest classes"
    total = max(1.0, sum(counts["train"]))
    shown = Grid(title=title, title_justify="left")
    shown.add_column("class")
    for name in parts:
        shown.add_column(name, justify="right")
    shown.add_column("share", justify="right")
    for k in order:
        name = Text(
            repr(found["classes"][k]) if found["task"] == "sequence" else found["classes"][k]
        )
        shown.add_row(
            name,
            *(f"{counts[part][k]:,.6g}" for part in parts),
            f"{counts['train'][k] / total:.1%}",
        )
    _console.print(shown)


def _print_columns(found: dict[str, Any]) -> None:
    """What each column of a table is read as and why, in 80 columns; then how to change it."""
    if "decisions" not in found:
        return
    measured = {column["name"]: column for column in found["columns"]}
    shown = Grid(title="columns", title_justify="left", expand=False)
    shown.add_column("column", max_width=18, overflow="fold")
    shown.add_column("read as", style="bold", max_width=11)
    shown.add_column("missing", justify="right")
    shown.add_column("holds (training part) and why", ratio=1)
    for decision in found["decisions"][:60]:
        held = _held(measured.get(decision["name"], {}), decision["kind"])
        why = "" if decision["why"] == "numbers" else decision["why"]
        kind = decision["kind"] + (", left out" if decision["kind"] in LEFT_OUT else "")
        shown.add_row(
            Text(decision["name"]), kind, cell(decision["missing"] or None),
            Text("; ".join(part for part in (held, why) if part)),
        )  # fmt: skip
    _console.print(shown)
    if len(found["decisions"]) > 60:
        _console.print(f"and {len(found['decisions']) - 60} columns more", highlight=False)
    targets = ", ".join(found["targets"])
    _console.print(f"target: {targets} ({found['task']}: {found['target_why']})", highlight=False)
    first = found["decisions"][0]
    name, number = first["name"], "decimal" in first and first["kind"] != "number"
    other = "number" if number else "text" if first["kind"] == "category" else "category"
    name = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
    repair = f'to read a column otherwise, in the recipe: data.source.columns.{name} = "{other}"'
    _console.print(repair, highlight=False, markup=False)


def _held(column: dict[str, Any], kind: str) -> str:
    """The range of a column, or its most frequent values."""
    if kind == "date" and "min" in column:
        first, last = (str(np.datetime64(int(column[end]), "D")) for end in ("min", "max"))
        return f"{first} to {last}"
    if kind == "number" and "min" in column:
        return f"{column['min']:.5g} to {column['max']:.5g}, median {column['median']:.5g}"
    most = list(column.get("most", {}).items())[:3]
    return ", ".join(f"{name} ({count:,})" for name, count in most)


def _print_samples(pipeline: Pipeline) -> None:
    """The first rows of a table, the first lines of a text; pictures are on the sheet."""
    view = examples.view_of(pipeline)
    if view in ("text", "tokens"):
        by_class = pipeline.data.source.kind == "texts"
        _console.print("some texts" if by_class else "the first lines", style="italic")
        for line in examples.lines_of(pipeline, 10, first=True):
            _console.print(Text(line, overflow="ellipsis", no_wrap=True))
    elif view == "table":
        table = examples.table_of(pipeline, first=_ROWS)
        targets = table.targets[:4]
        inputs = _whole(table.columns[:_COLUMNS], targets, _console.width)
        more = len(table.columns) - len(inputs)
        shown = Grid(
            title="the first rows"
            + (f" ({more} column{'s' * (more > 1)} more)" if more > 0 else ""),
            title_justify="left",
        )
        columns = [*inputs, *targets]
        for column in columns:
            justify: Any = "left" if column.categories else "right"
            shown.add_column(Text(column.name), justify=justify, overflow="fold")
        for row in range(len(columns[0].values)):
            shown.add_row(*(Text(column.cell(row)) for column in columns))
        _console.print(shown)


def _whole(
    columns: Sequence[examples.TableColumn], always: Sequence[examples.TableColumn], width: int
) -> list[examples.TableColumn]:
    """The first columns that fit beside those that are always shown, no word of them cut; at least
    one."""

    def room(column: examples.TableColumn) -> int:
        words = [column.name, *(column.cell(row) for row in range(len(column.values)))]
        return 3 + max(map(cell_len, words))  # its edge, and a blank at each side

    left = width - 1 - sum(map(room, always))
    fitting: list[examples.TableColumn] = []
    for column in columns:
        left -= room(column)
        if left < 0 and fitting:
            break
        fitting.append(column)
    return fitting
