"""What the command line shows: outcomes, layers, the catalogue. Each returns what ``--json``
prints."""

from __future__ import annotations

import json
from typing import Any

from rich import box
from rich.markdown import Markdown
from rich.table import Table

from ravine.app.options import cell
from ravine.catalogue import FILES, Technique, known
from ravine.catalogue.own import PREFIX
from ravine.catalogue.reference import markdown, rows
from ravine.errors import unknown
from ravine.recipe import Recipe, json_schema
from ravine.terminal import console, say, styled

_console = console()


def show_summary(recipe: Recipe) -> dict[str, Any]:
    """The layer table of a recipe's network on its own data."""
    from ravine.data.pipeline import Pipeline
    from ravine.nn.analysis.layer_table import summarise
    from ravine.nn.build import build

    pipeline = Pipeline(recipe.data)
    model = build(
        recipe.model,
        pipeline.input_shape,
        pipeline.outputs,
        vocabulary=pipeline.vocabulary,
        seed=recipe.seed,
    )
    found = summarise(model, pipeline.input_shape, vocabulary=pipeline.vocabulary)
    title = f"{recipe.name}: {recipe.model.kind}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    columns = {name: [_short(row[name]) for row in found["layers"]] for name in found["layers"][0]}
    columns = {name: column for name, column in columns.items() if any(column)}
    for name, column in columns.items():
        words = name in ("name", "layer")
        title = {"flops": "FLOPs"}.get(name, name.replace("_", " "))
        title = "weights" if name == "parameters" and _console.width < 72 else title
        # headings are broken between words, what stands below not at all
        shown.add_column(
            title,
            justify="left" if words else "right",
            overflow="fold",
            min_width=max(map(len, [*title.split(), *column])),
        )
    for row in zip(*columns.values(), strict=True):
        shown.add_row(*row)
    _console.print(shown)
    totals = {name: value for name, value in found.items() if name != "layers"}
    _console.print(
        f"{cell(totals['parameters'])} parameters ({cell(totals['trainable'])} trainable, "
        f"{totals['memory_bytes'] / 1e6:.3g} MB), {cell(totals['flops'])} FLOPs for one sample",
        highlight=False,
        soft_wrap=not _console.is_terminal,
    )
    return found


def _short(value: Any) -> str:
    return cell(value).replace(" x ", "×")


def show_catalogue(name: str | None) -> dict[str, Any]:
    """The whole catalogue, one kind, one technique, or the recipe's JSON schema."""
    if name == "recipe":
        schema = json_schema()
        console(stderr=False).print_json(json.dumps(schema)) if _console.is_terminal else None
        return schema
    if name is None or name in FILES:
        kinds = [name] if name else list(FILES)
        for kind in kinds:
            _print_kind(kind)
        return {kind: {t.name: t.summary for t in known(kind).values()} for kind in kinds}
    kind, _, short = name.rpartition(".")
    rows = [
        t
        for k in ([kind] if kind else FILES)
        for t in known(k).values()
        if t.name in (short, PREFIX + short)
    ]
    if not rows and (finding := _print_finding(name)):
        return finding
    if not rows:
        raise unknown(
            "catalogue",
            name,
            {t.name for k in FILES for t in known(k).values()} | set(FILES) | {"recipe"},
        )
    for row in rows:
        _print_technique(row)
    return {"techniques": [_described(row) for row in rows]}


def _print_kind(kind: str) -> None:
    shown = Table(title=kind, title_justify="left", show_header=False, box=None)
    shown.add_column(style="bold", no_wrap=True)
    for technique in known(kind).values():
        shown.add_row(technique.name, technique.summary)
    console(stderr=False).print(shown)


def _print_technique(technique: Technique) -> None:
    out = console(stderr=False)
    out.print(styled((technique.name, "bold"), f" ({technique.kind})"))
    out.print(Markdown(markdown(technique.doc)))
    fields = Table(title="fields", title_justify="left")
    for column in ("field", "default", "value", "per member"):
        fields.add_column(column)
    for row in _described(technique)["fields"]:
        fields.add_row(
            row["name"], cell(row["default"]), row["value"], "yes" if row["per_member"] else ""
        )
    out.print(fields)


def _print_finding(code: str) -> dict[str, Any]:
    """A finding of the doctor, as docs/doctor.md has it; empty where there is none of this code."""
    from ravine.doctor.table import declarations  # it brings torch

    found = {kind.code: kind for kind in declarations()}.get(code)
    if found is None:
        return {}
    say(f"{code}: {found.title}", f"{found.cause} {found.leads_to}")
    say(f"Seen by: {found.seen_by}", f"What to do: {found.what_to_do}")
    names = ("title", "cause", "leads_to", "seen_by", "what_to_do")
    return {"kind": "finding", "name": code} | {name: getattr(found, name) for name in names}


def _described(technique: Technique) -> dict[str, Any]:
    fields = [
        {
            "name": row.name,
            "default": row.default,
            "value": row.takes,
            "per_member": row.per_member,
            "doc": row.doc,
        }
        for row in rows(technique.part)
    ]
    return {"kind": technique.kind, "name": technique.name, "doc": technique.doc, "fields": fields}
