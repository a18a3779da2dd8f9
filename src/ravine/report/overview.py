"""What the measurements of a run say, in words and in tables: read by the report and by the
server."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from ravine import measures
from ravine.catalogue import durations
from ravine.recipe import Recipe, fields
from ravine.rundir import RunDir

_UNITS = {"ep": "epoch", "it": "step"}


@dataclass(frozen=True)
class Summary:
    """A run at a glance; ``members`` has one row each: its own recipe fields, and its last or final
    metrics."""

    name: str
    state: str  # finished, running or interrupted
    created: str
    steps: int
    epochs: float
    total_epochs: float | None
    seconds: float
    judged_by: str | None  # the metric, without its split
    varies: list[str]  # the paths of the recipe fields in which members differ
    members: list[dict[str, Any]]
    lost_at: int | None = None  # the first step whose loss was not finite, where all diverged

    @cached_property
    def best(self) -> Mapping[str, Any] | None:
        """The member that the validation data call best (the training data, where there are
        none)."""
        names = {name for row in self.members for name in row}
        for split in ("val", "train"):
            metric = f"{split}_{self.judged_by}"
            if metric in names:
                return measures.best(self.members, metric)
        return None

    @property
    def diverged(self) -> int:
        return sum(row.get("stopped") == "diverged" for row in self.members)


def summarise(run: RunDir) -> Summary:
    """Read a run directory into its summary."""
    rows = run.last_epochs()
    last = {row["member"]: row for row in rows}
    results = {member: run.result(member) for member in range(len(run.recipes))}
    names = {name for row in rows for name in row} | {
        name for result in results.values() for name in result or {}
    }
    varies = varying(run.recipes)
    members = [
        _member(recipe, m, varies, last.get(m, {}), results[m], run)
        for m, recipe in enumerate(run.recipes)
    ]
    lost = [event["step"] for event in run.events("frozen")] if _all_diverged(members) else []
    return Summary(
        lost_at=min(lost, default=None),
        name=useful_name(run.recipes[0]),
        state=run.state,
        created=run.created,
        steps=run.done,
        epochs=max((row["epoch"] for row in rows), default=0),
        total_epochs=_total_epochs(run.recipes, rows),
        seconds=max(
            filter(math.isfinite, (row.get("seconds", math.nan) for row in [*rows, *members])),
            default=0.0,
        ),
        judged_by=measures.judged_by(name for name in names if name not in measures.NOT_METRICS),
        varies=varies,
        members=members,
    )


def _all_diverged(members: list[dict[str, Any]]) -> bool:
    return all(row.get("stopped") == "diverged" for row in members)


def layer_records(run: RunDir, member: int = 0, most: int = 24) -> list[dict[str, Any]]:
    """What was recorded of layers over training, of this member, or of the first of which something
    was: the first record, the last, and some between. Records of another form are passed over."""
    found = [event for event in run.events("layers") if _is_record(event["data"])]
    members = {event["member"] for event in found}
    chosen = member if member in members else min(members, default=0)
    records = [
        {"step": e["step"], "member": chosen, **e["data"]} for e in found if e["member"] == chosen
    ]
    many = len(records) > most
    at = [round(i * (len(records) - 1) / (most - 1)) for i in range(most)]
    return [records[i] for i in at] if many else records


def sample_records(run: RunDir, member: int = 0) -> dict[str, Any]:
    """What was answered for a few samples over training, of this member, or of the first that was
    looked at: ``pictures`` of the samples, and ``records``. What has another form is passed over."""
    found = [event for event in run.events("samples") if _is_answers(event["data"])]
    members = {event["member"] for event in found}
    chosen = member if member in members else min(members, default=0)
    own = [event for event in found if event["member"] == chosen]
    pictures: list[str] = next((e["data"]["pictures"] for e in own if _are_pictures(e["data"])), [])
    records = [
        {"step": e["step"], **{name: e["data"][name] for name in ("epoch", "samples")}}
        for e in own
        if len(e["data"]["samples"]) == len(pictures)
    ]
    return {"pictures": pictures, "records": records}


def _are_pictures(data: Mapping[str, Any]) -> bool:
    found = data.get("pictures")
    form = r"data:image/png;base64,[A-Za-z0-9+/=]+"
    return isinstance(found, list) and all(
        isinstance(one, str) and re.fullmatch(form, one) for one in found
    )


def _is_answers(data: Any) -> bool:
    samples = _rows(data, "samples")
    return bool(samples) and all(
        isinstance(one.get("truth"), str)
        and isinstance(one.get("answer"), str)
        and isinstance(one.get("sure", 0.0), int | float)
        for one in samples
    )


def _is_record(data: Any) -> bool:
    layers = _rows(data, "layers")
    return (
        bool(layers)
        and all(isinstance(one.get("name"), str) for one in layers)
        and all(
            _is_histogram(one[kind])
            for one in layers
            for kind in ("weights", "gradients", "activations")
            if kind in one
        )
    )


def _rows(data: Any, name: str) -> list[Mapping[str, Any]]:
    """The tables that a record of an epoch holds under a name; none where it has another form."""
    found = data.get(name) if isinstance(data, Mapping) else None
    if not isinstance(found, list) or not isinstance(data.get("epoch"), int | float):
        return []
    return found if all(isinstance(one, Mapping) for one in found) else []


def _is_histogram(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and isinstance(found.get("counts"), list)
        and all(isinstance(count, int) for count in found["counts"])
        and all(isinstance(found.get(end), int | float) for end in ("low", "high"))
    )


def useful_name(recipe: Recipe) -> str:
    """What to call a run: its recipe's name, or what it trains on what.

    >>> useful_name(Recipe(model="mlp", data={"source": "digits"})), useful_name(Recipe(name="one"))
    ('mlp on digits', 'one')
    """
    if recipe.name != Recipe.model_fields["name"].default:
        return recipe.name
    kinds = str(recipe.get("model.kind")), str(recipe.get("data.source.kind"))
    model, source = (kind.removeprefix("own:") for kind in kinds)
    path = recipe.data.source.arguments.get("path")
    source = Path(str(path)).name if path else {"arrays": "arrays of its own"}.get(source, source)
    return f"{'module of its own' if model == 'module' else model} on {source}"


def varying(recipes: list[Recipe]) -> list[str]:
    """The paths of the fields in which recipes differ; names are ignored."""
    explicit = [
        {path: value for path, value, _ in fields(recipe) if path != "name"} for recipe in recipes
    ]
    paths = dict.fromkeys(path for one in explicit for path in one)
    return [
        path for path in paths if any(one.get(path) != explicit[0].get(path) for one in explicit)
    ]


def hues(summary: Summary) -> list[float | None]:
    """The place [0, 1] of each member by the one number in which they differ, in its logarithm where
    it spans decades; empty where there is no such number."""
    if len(summary.members) < 4 or len(summary.varies) != 1 or summary.varies == ["seed"]:
        return []
    return places([row[summary.varies[0]] for row in summary.members])


def places(values: list[Any]) -> list[float | None]:
    """Where values lie between their least and their largest [0, 1]; words in their own order.

    >>> places([1e-4, 1e-3, 1e-2]), places(["a", "b", "a"]), places([2, None])
    ([0.0, 0.5, 1.0], [0.0, 1.0, 0.0], [0.5, None])
    """
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    known = [v for v in values if v is not None]
    if len(numbers) < len(known):
        order = sorted({str(v) for v in known})
        ranks = {word: i / max(len(order) - 1, 1) for i, word in enumerate(order)}
        return [None if v is None else ranks[str(v)] for v in values]
    finite = [v for v in numbers if math.isfinite(v)]
    if not finite:
        return [None] * len(values)
    logs = min(finite) > 0 and max(finite) > 20 * min(finite)
    warp = math.log if logs else float
    low, high = warp(min(finite)), warp(max(finite))
    spread = high - low
    return [
        None
        if v is None or not math.isfinite(v)
        else round((warp(v) - low) / spread, 6)
        if spread
        else 0.5
        for v in values
    ]


def sentences(summary: Summary) -> list[str]:
    """What came of the run, the result first."""
    if summary.state != "finished":
        return [_standing(summary), *_so_far(summary)]
    if summary.diverged == len(summary.members):
        who = "The run" if len(summary.members) == 1 else f"All {len(summary.members)} members"
        return [f"{who} diverged: the loss was no longer a finite number {_lost(summary)}."]
    return _result_of_one(summary) if len(summary.members) == 1 else _result_of_many(summary)


def tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """The key numbers of the best member, each a label, a value and a note."""
    best = dict(summary.best or summary.members[0])
    others = [
        what for split, what in map(measures.split_of, best) if split == "val" and what != "loss"
    ]
    whats = dict.fromkeys([summary.judged_by, *others, "loss"])
    names = [f"{part}_{what}" for what in whats for part in ("test", "val", "train")]
    shown = [
        (measures.title(name), measures.show(name, best[name]), "")
        for name in names
        if name in best
    ]
    shown = [tile for tile in shown if tile[1] != "not finite"]
    speed = summary.steps / summary.seconds if summary.seconds else 0
    rate = f", {speed:,.0f}/s" if speed >= 10 else f", {speed:.1f}/s" if speed else ""
    return [*shown, ("Time", measures.duration(summary.seconds), f"{summary.steps:,} steps{rate}")]


def columns(summary: Summary) -> list[str]:
    """The columns of the table of members: what varies, then what was measured, the judged metric
    first."""
    names = dict.fromkeys(name for row in summary.members for name in row)
    hidden = {*summary.varies, *measures.NOT_METRICS, "steps", "epochs", "stopped"}
    hidden |= {"best_step", "best_epoch", "lr", "grad_norm"}
    metrics = [name for name in names if name not in hidden]
    metrics.sort(
        key=lambda name: (not name.endswith(summary.judged_by or "?"), name.startswith("train"))
    )
    present = [name for name in ("epochs", "best_epoch", "stopped") if name in names]
    return ["member", *summary.varies, *metrics, *present]


def _member(
    recipe: Recipe,
    member: int,
    varies: list[str],
    last: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    run: RunDir,
) -> dict[str, Any]:
    """One row: which member, what is its own, and its final metrics, or its last ones while it
    runs."""
    found: dict[str, Any] = {"member": member}
    own = {path: value for path, value, _ in fields(recipe)} if varies else {}
    for path in varies:
        value = own.get(path)
        found[path] = value if isinstance(value, int | float | str | None) else str(value)
    found |= {
        name: value
        for name, value in (result or last).items()
        if name not in ("member", "step", "epoch")
    }
    found.setdefault("epochs", last.get("epoch", 0))
    if result is not None and isinstance(result.get("best_step"), int):
        best = run.epoch_of(member, result["best_step"])
        found |= {} if best is None else {"best_epoch": best}
    return found


def _total_epochs(recipes: list[Recipe], rows: list[dict[str, Any]]) -> float | None:
    amounts = [durations.parse(recipe.stop.after) for recipe in recipes]
    if all(unit == "ep" for _, unit in amounts):
        return float(max(amount for amount, _ in amounts))
    if not rows or not rows[-1]["epoch"]:
        return None
    per_epoch = rows[-1]["step"] / rows[-1]["epoch"]
    return (
        max(durations.steps(recipe.stop.after, round(per_epoch)) for recipe in recipes) / per_epoch
    )


def _standing(summary: Summary) -> str:
    whole = f" of {summary.total_epochs:g}" if summary.total_epochs else ""
    verb = "Training" if summary.state == "running" else "Interrupted"
    return f"{verb}: {summary.epochs:g}{whole} epochs are done ({summary.steps:,} steps)."


def _lost(summary: Summary) -> str:
    if summary.lost_at is None:
        return f"after {_counted(summary.steps, 'step')}"
    return f"from step {summary.lost_at:,} on"


def _counted(number: float, what: str) -> str:
    """``1 epoch``, ``2.5 epochs``, ``1,200 steps``."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:.4g}"
    return f"{shown} {what}{'' if number == 1 else 's'}"


def _so_far(summary: Summary) -> list[str]:
    best, metric = summary.best, f"val_{summary.judged_by}"
    if best is None or metric not in best:
        return []
    who = f" (member {best['member']})" if len(summary.members) > 1 else ""
    return [f"{measures.title(metric)} is {measures.show(metric, best[metric])}{who}."]


def _result_of_one(summary: Summary) -> list[str]:
    row = summary.members[0]
    names = [f"{split}_{summary.judged_by}" for split in ("test", "val", "train")]
    head = next((name for name in names if name in row), None)
    done = f"{_counted(row['epochs'], 'epoch')} ({_counted(summary.steps, 'step')})"
    length = f"after {done} in {measures.duration(summary.seconds)}"
    found = [
        f"{measures.title(head)} {measures.show(head, row[head])}, {length}."
        if head
        else f"Trained {length}."
    ]
    if "best_epoch" in row and row["best_epoch"] != row["epochs"]:
        found.append(f"Its weights are those of epoch {row['best_epoch']:g}, its best.")
    stopped = str(row.get("stopped", "finished"))
    if stopped != "finished":
        found.append(f"It stopped early: {in_words(stopped)}.")
    return found


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def in_words(text: str) -> str:
    """A reason for stopping, its names and units spelt out.

    >>> in_words("no better val_loss for 8ep")
    'no better validation loss for 8 epochs'
    """
    text = re.sub(
        r"\b(?:train|val|test)_\w+", lambda found: _lowered(measures.title(found[0])), text
    )
    return re.sub(
        r"\b([\d.]+)(ep|it)\b", lambda m: f"{m[1]} {_UNITS[m[2]]}{'' if m[1] == '1' else 's'}", text
    )


def _result_of_many(summary: Summary) -> list[str]:
    n, best = len(summary.members), summary.best
    found = []
    for split in ("test", "val", "train"):
        metric = f"{split}_{summary.judged_by}"
        values = [
            row[metric] for row in summary.members if math.isfinite(row.get(metric, math.nan))
        ]
        if values:
            low, high = (measures.show(metric, value) for value in (min(values), max(values)))
            middle = measures.show(metric, median(values))
            found.append(
                f"{n} members: median {_lowered(measures.title(metric))} {middle}, from {low} to {high}."
            )
            break
    if best is not None:
        own = ", ".join(f"{path} = {show_value(best[path])}" for path in summary.varies[:3])
        metric = next(
            m for m in (f"val_{summary.judged_by}", f"train_{summary.judged_by}") if m in best
        )
        found.append(
            f"By {_lowered(measures.title(metric))} the best is member {best['member']}{own and f' ({own})'}."
        )
    if summary.diverged:
        found.append(f"{summary.diverged} of {n} diverged.")
    return found


def show_value(value: Any) -> str:
    """A recipe value in a table.

    >>> show_value(0.0228353), show_value((128, 64)), show_value([0.5]), show_value("relu")
    ('0.02284', '[128, 64]', '[0.5]', 'relu')
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show_value, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
