"""The report of a run: one self-contained page, light and dark, with nothing fetched from
elsewhere."""

from __future__ import annotations

import io
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from ravine import measures
from ravine.errors import RavineError
from ravine.recipe import Recipe
from ravine.report import figures, overview
from ravine.report.courses import member_lines, series
from ravine.report.listing import inline, listing
from ravine.rundir import RunDir
from ravine.rundir.contents import sound
from ravine.storage.bounded import MOST_SETTINGS, parse_json, read_text
from ravine.storage.files import plain, to_json, write_text

_WEB = Path(__file__).parent / "web"
_FACTS = ("versions", "machine", "directory")  # what else is stored is no reader's business
_EVENTS = 60  # at most so many are listed
_WIDE = 160  # characters of an edit


def write_report(run: RunDir) -> Path:
    """Write ``report.html`` into a run directory, in place of an older one, and give its path."""
    with sound(run.path):
        write_text(run.report_path, render(run))
    return run.report_path


def render(run: RunDir) -> str:
    """The report as HTML."""
    seen = overview.summarise(run)
    shown = (seen.best or {"member": 0})["member"]
    hidden = ("finding", "execution", "layers", "samples")
    events = [event for event in run.events() if event["kind"] not in hidden]
    curves, evidence = _curves(run, seen), _evidence(run)
    findings = [_finding(event) for event in run.events("finding")]
    layers, samples = overview.layer_records(run, shown), overview.sample_records(run, shown)
    _pictures(findings, curves, layers)
    return (
        _templates()
        .get_template("report.html")
        .render(
            run=run,
            path=str(run.path),
            has_recipe_file=(run.path / "recipe.toml").is_file(),
            state="diverged" if seen.diverged == len(seen.members) else seen.state,
            seen=seen,
            sentences=overview.sentences(seen),
            tiles=overview.tiles(seen),
            findings=findings,
            about={one["code"]: one["about"] for one in findings if all(one["about"])},
            curves=curves,
            by_field=[
                (f"By {path}", inline_svg(figure, f"f{i}", f"By {path}"))
                for i, (path, figure) in enumerate(_by_field(seen))
            ],
            evidence=evidence,
            layers=layers,
            samples=samples["records"],
            held=held(
                {"curves": curves, "layers": layers, "samples": samples, **_numbers_of(evidence)}
            ),
            speed=_speed(run, seen),
            columns=overview.columns(seen) if len(seen.members) > 1 else [],
            executions=[_execution(event) for event in run.events("execution")],
            events=events[-_EVENTS:],
            omitted=max(0, len(events) - _EVENTS),
            recipe_of=shown,
            recipe=listing(run.recipes[shown]),
            facts=[(name, line_of(value)) for name, value in run.facts.items() if name in _FACTS],
            from_python=_from_python(run.recipes[0]),
        )
    )


def _evidence(run: RunDir) -> dict[str, Any]:
    """What was found sample by sample when training ended; nothing where that was not looked at."""
    path = run.path / "evidence.json"
    if not path.is_file():
        return {}
    try:
        found = parse_json(read_text(path, MOST_SETTINGS), path.name)
    except (RavineError, ValueError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers_of(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return {n: evidence[n] for n in ("calibration", "residuals", "predicted") if n in evidence}


def held(data: Mapping[str, Any]) -> Markup:
    """Data inside a page's script element, where no text of it can end the element."""
    return Markup(to_json(plain(data)).replace("<", "\\u003c"))


def breaks(text: str) -> Markup:
    """A name that may be broken after its dots and underscores."""
    found = str(escape(text))
    return Markup(found.replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _speed(run: RunDir, seen: overview.Summary) -> str:
    """Where the time went."""
    if not seen.seconds or not seen.steps:
        return ""
    epoch = f", {measures.duration(seen.seconds / seen.epochs)} an epoch" if seen.epochs else ""
    each = 1000 * seen.seconds / seen.steps
    return f"{measures.duration(seen.seconds)} of training, evaluation included: {each:.3g} ms a step{epoch}."


def _from_python(recipe: Recipe) -> bool:
    given = recipe.get("model.kind") == "module" or recipe.get("data.source.kind") == "arrays"
    return given or '"kind": "own:' in recipe.to_json()


def inline_svg(figure: Figure, prefix: str, label: str) -> Markup:
    """A figure as SVG for a page: as large as its labels are to be, in the page's colours, and sharing
    no id with another."""
    return placed(svg_of(figure), figure, prefix, label)


def svg_of(figure: Figure) -> str:
    """The figure as SVG, on no ground."""
    text = io.StringIO()
    with figures.style():
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def placed(svg: str, figure: Figure, prefix: str, label: str) -> Markup:
    """The SVG of a figure for a page, as ``inline_svg`` says."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    about = f'role="img" aria-label="{Markup.escape(label)}" width="{wide(figure)}"'
    return Markup(svg.replace("<svg", f"<svg {about}", 1))


def wide(figure: Figure) -> int:
    """Pixels of a page that a figure is wide."""
    return round(figures.PIXELS * figure.get_figwidth())


_VARIABLES = {colour: f"c{i}" for i, colour in enumerate(figures.COLOURS)}
_VARIABLES |= {figures.INK: "ink", figures.FAINT: "faint", figures.GRID: "grid"}


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
    environment.filters |= {
        "metric": measures.title,
        "shown": _cell,
        "heading": _heading,
        "better": _better,
        "breaks": breaks,
        "percent": lambda value: "–" if value is None else f"{100 * value:.1f} %",
    }
    return environment


def _curves(run: RunDir, seen: overview.Summary) -> list[dict[str, Any]]:
    """What is drawn, the loss and what the run is judged by first: a title, x, and lines."""
    names = run.metrics
    judged = measures.judged_by(names)
    whats = [what for split, what in map(measures.split_of, names) if split in ("train", "val")]
    shown = [what for what in dict.fromkeys(["loss", judged, *whats]) if what in whats]
    shown = [what for what in shown if what is not None and "confusion_matrix" not in what]
    shown += ["step_loss"] if seen.steps > 1 else []
    shown += [name for name in ("lr", "grad_norm") if name in names]
    hues = overview.hues(seen)
    drawn = []
    for what in shown:
        lines = list(series(run, what, "epoch"))
        if hues and what == judged:
            lines = list(member_lines(run, f"val_{what}", hues)) or lines
        found = [_line(line) for line in lines]
        if any(line["x"] for line in found):
            x = "step" if what == "step_loss" else "epoch"
            validated = {line["split"] for line in lines} == {"val"}
            title = measures.title(f"val_{what}" if validated else what)
            drawn.append({"what": what, "title": title, "x": x, "lines": found})
            if what == "lr":  # a schedule that ends at 0 would be all decades
                drawn[-1]["scale"] = "linear"
    return drawn


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line as the page's script takes it."""
    words = {"val": "validation", "train": "training", "": ""}
    name = " ".join(filter(None, [line["label"], words[line["split"]]]))
    kept = {
        k: plain(line[k]) for k in ("x", "y", "low", "high", "hue", "percent", "split") if k in line
    }
    return {"name": name, **kept}


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


def _finding(event: dict[str, Any]) -> dict[str, Any]:
    """A finding as the page shows it; fields that are not known here are kept."""
    data = {name: value for name, value in event["data"].items() if value not in (None, "", [], {})}
    title, strength = data.pop("cause", event["text"]), data.pop("strength", None)
    code, remedies = (
        data.pop("code", "finding"),
        [_remedy(one) for one in _list(data.pop("remedies", []))],
    )
    data.pop("docs", None)  # a path that is not installed
    about = [str(data.pop(name, "")) for name in ("title", "seen_by", "what_to_do")]
    shown_by = data.pop("shown_by", "loss")
    known = [
        (name, data.pop(name)) for name in ("evidence", "where", "consequences") if name in data
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
    found = {"title": title, "code": code, "rows": rows, "remedies": remedies}
    return {**event, **found, "about": about, "shown_by": shown_by}


def _pictures(
    findings: list[dict[str, Any]], curves: list[dict[str, Any]], layers: list[dict[str, Any]]
) -> None:
    """Say beside which finding which picture stands, each picture once: a curve by its place, or the
    gradient norms of the layers."""
    places = {curve["what"]: place for place, curve in enumerate(curves)}
    used = set()
    for finding in findings:
        wanted = finding["shown_by"]
        if wanted == "gradient_norm" and layers:
            finding["picture"] = "layers"
        else:
            wanted = wanted if wanted in places else "loss"
            finding["picture"] = places.get(wanted, places.get("step_loss"))
        if finding["picture"] in used:
            finding["picture"] = None
        used.add(finding["picture"])


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
