"""What the command line shows: outcomes, layers, the catalogue. Each returns what ``--json``
prints."""

from __future__ import annotations

import json
import shlex
import statistics
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from ravine import measures
from ravine.app.options import cell
from ravine.catalogue import FILES, Technique, table
from ravine.errors import unknown
from ravine.recipe import Recipe, json_schema
from ravine.reference import markdown, rows
from ravine.report.listing import inline

METRICS = ("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
_console = Console(stderr=True)

TYPED = 160  # characters of edits that are shown
# strength up to which nothing but the course speaks for a finding; above it an experiment does
SEEN = 0.9
TROUBLES = ("frozen", "rollback", "report")  # kinds of events that are shown at the end


def outcome(runs: list[Any]) -> dict[str, Any]:
    """What ``train --json`` prints; numbers are means over the members that ended well."""
    results = [run.result for run in runs]
    well = [result for result in results if result["stopped"] != "diverged"] or results
    names = sorted(
        {name for result in well for name in result if isinstance(result[name], float)}
        | set(METRICS)
    )
    means = {name: _mean([result.get(name) for result in well]) for name in names}
    execution = runs[0].events_of("execution")[0]["data"]
    return {
        "run": str(runs[0].directory),
        "program": runs[0].recipe.program,
        "members": len(runs),
        "steps": max(result["steps"] for result in results),
        **means,
        "stopped": results[0]["stopped"]
        if len(runs) == 1
        else [result["stopped"] for result in results],
        "findings": [event["data"] for event in runs[0].events_of("finding")],
        "execution": execution,
        "report": str(runs[0].directory / "report.html"),
    } | ({"results": results} if len(runs) > 1 else {})


def print_outcome(runs: list[Any]) -> None:
    """The end of ``ravine train``, for people."""
    found = outcome(runs)
    many = f" (mean of {len(runs)} members)" if len(runs) > 1 else ""
    names = [
        name
        for name in sorted(found)
        if name.startswith(("test_", "val_")) and found[name] is not None
    ]
    for name in sorted(names, key=lambda n: (not n.startswith("test"), "accuracy" not in n, n)):
        value = found[name]
        shown = f"{value:.2%}" if measures.is_percent(name) else f"{value:.4g}"
        _console.print(
            f"[bold]{name.replace('val_', 'validation ').replace('test_', 'test ')}[/]: {shown}{many}",
            highlight=False,
        )
    stopped = (
        found["stopped"]
        if isinstance(found["stopped"], str)
        else ", ".join(sorted(set(found["stopped"])))
    )
    _console.print(
        f"{stopped} after {found['epochs']:g} epochs, {found['steps']} steps, {found['seconds']:.1f} s",
        highlight=False,
    )
    _console.print(f"execution: {runs[0].events_of('execution')[0]['text']}", highlight=False)
    for event in [event for kind in TROUBLES for event in runs[0].events_of(kind)][:5]:
        _console.print(f"[yellow]{event['text']}[/]", highlight=False)
    print_findings([event["data"] for event in runs[0].events_of("finding")])
    _console.print(f"report: {found['report']}", highlight=False, soft_wrap=True)


def print_findings(findings: list[dict[str, Any]], most: int = 3) -> None:
    """The worst findings first: what, the numbers, and the first remedy; of a consequence, what it
    follows from."""
    for place, finding in enumerate(findings[:most]):
        _console.print(
            f"[bold red]{finding['code']}[/] ({finding['where']}): {finding['evidence']}",
            highlight=False,
        )
        above = next((f["code"] for f in findings[:place] if _follows(finding, f)), None)
        if above is not None and finding["strength"] <= SEEN:
            _console.print(
                f"  {finding['cause']} It follows from {above}: repair that first.", highlight=False
            )
        else:
            _console.print(
                f"  {finding['cause']} {finding['consequences'][0]}",
                highlight=False,
            )
            for remedy in finding["remedies"][:1]:
                tried = f" ({remedy['tried']})" if remedy.get("tried") else ""
                line = f"  remedy: {remedy['why']}{tried}  {_typed(remedy['edits'])}".rstrip()
                _console.print(line, highlight=False, markup=False, soft_wrap=True)
        _console.print(f"  more: {finding['docs']}", highlight=False)
    if len(findings) > most:
        _console.print(f"and {len(findings) - most} more in the report", highlight=False)


def _follows(finding: dict[str, Any], other: dict[str, Any]) -> bool:
    return any(text.startswith(f"{finding['code']}: ") for text in other["consequences"])


def _typed(edits: dict[str, Any]) -> str:
    """Edits as the command line takes them, where they are short."""
    typed = [
        shlex.quote(f"{path}={value if isinstance(value, str) else inline(value)}")
        for path, value in edits.items()
    ]
    made = " ".join(f"--set {edit}" for edit in typed)
    return made if len(made) <= TYPED else ""


def show_summary(recipe: Recipe) -> dict[str, Any]:
    """The layer table of a recipe's network on its own data."""
    from ravine.data.pipeline import Pipeline
    from ravine.nn.build import build
    from ravine.nn.layer_table import summarise

    pipeline = Pipeline(recipe.data)
    model = build(
        recipe.model,
        pipeline.input_shape,
        pipeline.outputs,
        vocabulary=pipeline.vocabulary,
        seed=recipe.seed,
    )
    found = summarise(model, pipeline.input_shape, vocabulary=pipeline.vocabulary)
    shown = Table(title=f"{recipe.name}: {recipe.model.kind}")
    for name in found["layers"][0]:
        shown.add_column(name, justify="left" if name in ("name", "layer") else "right")
    for row in found["layers"]:
        shown.add_row(*(cell(value) for value in row.values()))
    _console.print(shown)
    totals = {name: value for name, value in found.items() if name != "layers"}
    _console.print(
        ", ".join(f"{name} {cell(value)}" for name, value in totals.items()), highlight=False
    )
    return found


def show_catalogue(name: str | None) -> dict[str, Any]:
    """The whole catalogue, one kind, one technique, or the recipe's JSON schema."""
    if name == "recipe":
        schema = json_schema()
        Console().print_json(json.dumps(schema)) if _console.is_terminal else None
        return schema
    if name is None or name in FILES:
        kinds = [name] if name else list(FILES)
        for kind in kinds:
            _print_kind(kind)
        return {kind: {t.name: t.summary for t in table(kind).values()} for kind in kinds}
    kind, _, short = name.rpartition(".")
    rows = [t for k in ([kind] if kind else FILES) for t in table(k).values() if t.name == short]
    if not rows:
        raise unknown(
            "catalogue",
            name,
            {t.name for k in FILES for t in table(k).values()} | set(FILES) | {"recipe"},
        )
    for row in rows:
        _print_technique(row)
    return {"techniques": [_described(row) for row in rows]}


def _print_kind(kind: str) -> None:
    shown = Table(title=kind, title_justify="left", show_header=False, box=None)
    shown.add_column(style="bold", no_wrap=True)
    for technique in table(kind).values():
        shown.add_row(technique.name, technique.summary)
    Console().print(shown)


def _print_technique(technique: Technique) -> None:
    console = Console()
    console.print(f"[bold]{technique.name}[/] ({technique.kind})")
    console.print(Markdown(markdown(technique.doc)))
    fields = Table(title="fields", title_justify="left")
    for column in ("field", "default", "value", "per member"):
        fields.add_column(column)
    for row in _described(technique)["fields"]:
        fields.add_row(
            row["name"], cell(row["default"]), row["value"], "yes" if row["per_member"] else ""
        )
    console.print(fields)


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


def _mean(values: list[float | None]) -> float | None:
    finite = [value for value in values if value is not None and value == value]
    return statistics.fmean(finite) if finite else None
