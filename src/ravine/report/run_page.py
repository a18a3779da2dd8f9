"""The report of a run: one self-contained page, light and dark, with nothing fetched from
elsewhere."""

from __future__ import annotations

import io
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ravine import measures
from ravine.files import write_text
from ravine.recipe import Recipe
from ravine.report import figures, overview
from ravine.report.listing import inline, listing
from ravine.rundir import RunDir

_WEB = Path(__file__).parent / "web"
Drawn = tuple[str, Markup]  # caption and figure
_EVENTS = 60  # at most so many are listed
_WIDE = 160  # characters of an edit


def write_report(run: RunDir) -> Path:
    """Write ``report.html`` into a run directory, in place of an older one, and give its path."""
    write_text(run.report_path, render(run))
    return run.report_path


def render(run: RunDir) -> str:
    """The report as HTML."""
    seen = overview.summarise(run)
    shown = (seen.best or {"member": 0})["member"]
    events = [event for event in run.events() if event["kind"] not in ("finding", "execution")]
    return (
        _templates()
        .get_template("report.html")
        .render(
            run=run,
            path=str(run.path),
            state="diverged" if seen.diverged == len(seen.members) else seen.state,
            seen=seen,
            sentences=overview.sentences(seen),
            tiles=overview.tiles(seen),
            findings=[_finding(event) for event in run.events("finding")],
            figures=_figures(run, seen),
            columns=overview.columns(seen) if len(seen.members) > 1 else [],
            executions=[_execution(event) for event in run.events("execution")],
            events=events[-_EVENTS:],
            omitted=max(0, len(events) - _EVENTS),
            recipe_of=shown,
            recipe=listing(run.recipes[shown]),
            facts=[
                (name, line_of(value)) for name, value in run.facts.items() if name != "programs"
            ],
            from_python=_from_python(run.recipes[0]),
        )
    )


def _from_python(recipe: Recipe) -> bool:
    given = recipe.get("model.kind") == "module" or recipe.get("data.source.kind") == "arrays"
    return given or '"kind": "own:' in recipe.to_json()


def inline_svg(figure: Figure, prefix: str, label: str) -> Markup:
    """A figure as SVG for a page: it scales with it, takes its colours, and shares no id
    with another."""
    text = io.StringIO()
    with figures.style():
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(label)}"', 1))


_VARIABLES = {colour: f"c{i}" for i, colour in enumerate(figures.COLOURS)}
_VARIABLES |= {figures.INK: "ink", figures.FAINT: "faint", figures.GRID: "grid"}


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_WEB),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": measures.title,
        "shown": _cell,
        "heading": _heading,
        "better": _better,
    }
    return environment


def _figures(run: RunDir, seen: overview.Summary) -> tuple[list[Drawn], list[Drawn]]:
    """Two large figures, the loss and what the run is judged by, and the small ones."""
    names = run.metrics
    judged = measures.judged_by(names)
    whats = dict.fromkeys(
        what for split, what in map(measures.split_of, names) if split in ("train", "val")
    )
    others = [what for what in whats if what not in ("loss", judged)]
    large: list[tuple[str, Figure | None]] = [("Loss", figures.training_curves(run, "loss"))]
    if judged not in (None, "loss"):
        large.append((measures.title(str(judged)), figures.training_curves(run, str(judged))))
    small: list[tuple[str, Figure | None]] = [
        (f"By {path}", figure) for path, figure in _by_field(seen)
    ]
    small += [("Loss of each step", figures.step_losses(run))]
    single = [
        name
        for name in ("lr", "grad_norm")
        if not (name == "lr" and seen.varies == ["optimizer.lr"])
    ]
    small += [(measures.title(name), figures.single_curve(run, name)) for name in single]
    small += [
        (measures.title(what), figures.training_curves(run, what, figures.SMALL)) for what in others
    ]
    return _drawn(large, "a"), _drawn(small, "b")


def _by_field(seen: overview.Summary) -> Iterator[tuple[str, Figure]]:
    """If members differ in one number alone: their final metric against it."""
    metric = f"val_{seen.judged_by}"
    values = [row[path] for row in seen.members for path in seen.varies]
    if (
        len(seen.varies) == 1
        and seen.varies != ["seed"]
        and len(values) > 3
        and all(map(_is_number, values))
    ):
        results = [row.get(metric, math.nan) for row in seen.members]
        if any(map(math.isfinite, results)):
            yield seen.varies[0], figures.by_field(seen.varies[0], values, results, metric)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _drawn(made: list[tuple[str, Figure | None]], prefix: str) -> list[Drawn]:
    return [
        (caption, inline_svg(figure, f"{prefix}{i}", caption))
        for i, (caption, figure) in enumerate(made)
        if figure is not None
    ]


def _finding(event: dict[str, Any]) -> dict[str, Any]:
    """A finding as the page shows it; fields that are not known here are kept."""
    data = {name: value for name, value in event["data"].items() if value not in (None, "", [], {})}
    title, strength = data.pop("cause", event["text"]), data.pop("strength", None)
    code, remedies = (
        data.pop("code", "finding"),
        [_remedy(one) for one in _list(data.pop("remedies", []))],
    )
    known = [
        (name, data.pop(name)) for name in ("where", "evidence", "consequences") if name in data
    ]
    rows = [(name.replace("_", " "), _list(value)) for name, value in [*known, *data.items()]]
    if isinstance(strength, int | float):
        rows.append(
            (
                "sure",
                [
                    "beyond doubt"
                    if strength >= 0.9
                    else "likely"
                    if strength >= 0.5
                    else "a suspicion"
                ],
            )
        )
    return {**event, "title": title, "code": code, "rows": rows, "remedies": remedies}


def _remedy(remedy: Any) -> tuple[str, str]:
    """Why, and the edits as the command line takes them."""
    if not isinstance(remedy, Mapping):
        return str(remedy), ""
    edits = [
        f"--set {path}={shlex.quote(value if isinstance(value, str) else inline(value))}"
        for path, value in remedy.get("edits", remedy).items()
    ]
    return str(remedy.get("why", "")), " ".join(
        edit if len(edit) <= _WIDE else edit[:_WIDE] + "…" for edit in edits
    )


def _execution(event: dict[str, Any]) -> dict[str, Any]:
    data = {
        name.replace("_", " "): value
        for name, value in event["data"].items()
        if value not in (None, [], "", {})
    }
    return {
        "text": event["text"],
        "why": [str(why) for why in _list(data.pop("why", []))],
        "data": list(_flat(data)),
    }


def _list(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [f"{name}: {measures.show(name, inner)}" for name, inner in value.items()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, inner in value.items():
        path = f"{prefix}{name}"
        if isinstance(inner, Mapping):
            rows += _flat(inner, f"{path} › ")
        elif inner is not None:
            shown = ", ".join(map(str, inner)) if isinstance(inner, list) else str(inner)
            rows.append((path, shown))
    return rows


def line_of(value: Any) -> str:
    """Plain data on one line: ``python 3.11 · torch 2.13``."""
    return (
        " · ".join(f"{name} {shown}" for name, shown in _flat(value))
        if isinstance(value, Mapping)
        else str(value)
    )


def _heading(column: str) -> str:
    return column if "." in column or column in ("seed", "member") else measures.title(column)


def _better(column: str) -> str | None:
    return measures.find(column).better if measures.split_of(column)[0] else None


def _cell(value: Any, column: str) -> str:
    if column in ("epochs", "best_epoch") and value is not None:
        return f"{value:.4g}"
    if column == "stopped":
        return overview.in_words(str(value)) if value else "–"
    return (
        overview.show_value(value)
        if "." in column or column == "seed"
        else measures.show(column, value)
    )
