"""The runs and studies under a directory, as the live page lists them. What has not changed is not read
again; a directory that cannot be read is listed as damaged, and takes nothing else with it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from ravine import measures
from ravine.errors import InputError, RavineError, first_line
from ravine.recipe import Recipe
from ravine.report import overview
from ravine.rundir import RunDir
from ravine.storage.bounded import MOST_SETTINGS, parse_json, read_text

MOST = 5000  # runs and studies that are listed
DEPTH = 4  # studies hold runs: so far below the directory they are looked for
FRESH = 0.5  # seconds for which a list is not made again
_LISTED = ("model.kind", "data.source.kind", "optimizer.kind", "optimizer.lr", "data.batch", "seed")
_RUN = {"recipe.json", "metrics.sqlite"}
_HIDDEN = ("layers", "samples", "finding", "execution")  # events that are shown elsewhere


class RunIndex:
    """The runs and studies under a directory, by their path within it."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._known: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {}
        self._mutex = threading.Lock()
        self._made, self._list = -FRESH, ([], [], [])  # type: ignore[var-annotated]

    def listing(self) -> dict[str, Any]:
        """Runs and studies, the newest first, and what is damaged: plain data."""
        with self._mutex:
            if time.monotonic() - self._made > FRESH:
                self._list = self._read()
                self._made = time.monotonic()
            runs, studies, damaged = self._list
        return {
            "directory": str(self.directory),
            "runs": runs,
            "studies": studies,
            "damaged": damaged,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row for every run, the newest first."""
        return self._read()[0]

    def open(self, name: str) -> RunDir:
        """A run by its name; a name that is not listed is not found, whatever lies there."""
        return RunDir.open(self._place(name, "run"))

    @contextmanager
    def reading(self, name: str) -> Iterator[RunDir]:
        """A run by its name; whatever is wrong with it is one clear error."""
        with self.open(name) as run:
            try:
                yield run
            except RavineError:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {first_line(error)}"
                raise RavineError(
                    f"run {name}: it cannot be shown, its files are damaged ({what})"
                ) from None

    def study(self, name: str) -> Path:
        """A study's directory by its name."""
        return self._place(name, "study")

    def _place(self, name: str, kind: str) -> Path:
        path = {n: p for n, p, k in self._paths() if k == kind}.get(name)
        if path is None:
            raise InputError(kind, got=name, expected=f"a {kind} that is listed")
        return path

    def _read(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        runs: list[dict[str, Any]] = []
        studies: list[dict[str, Any]] = []
        damaged: list[dict[str, Any]] = []
        for name, path, kind in islice(self._paths(), MOST):
            try:
                (runs if kind == "run" else studies).append(self._row(name, path, kind))
            except Exception as error:  # whatever one directory holds, the others are listed
                if not path.exists():
                    continue
                kind = "" if isinstance(error, RavineError) else f"{type(error).__name__}: "
                damaged.append({"id": name, "why": f"{kind}{first_line(error)}"})
        inner = {one["id"]: one for one in studies}
        for run in runs:
            holder = next((s for s in inner if run["id"].startswith(f"{s}/runs/")), None)
            run["study"] = holder
            if holder is not None:
                inner[holder]["members"] += run["members"]
                inner[holder]["running"] |= run["state"] == "running"
        for one in studies:
            one["state"] = (
                "finished" if one["done"] else "running" if one["running"] else "interrupted"
            )
        newest = {"key": lambda one: str(one["created"]), "reverse": True}
        return sorted(runs, **newest), sorted(studies, **newest), damaged  # type: ignore[call-overload]

    def _row(self, name: str, path: Path, kind: str) -> dict[str, Any]:
        stamp = _stamp(path)
        known = self._known.get(name)
        # a run whose process was killed changes its state without writing
        if known is None or known[0] != stamp or known[1].get("state") == "running":
            if kind == "run":
                with RunDir.open(path) as run:
                    found = row(run)
            else:
                found = _study(path)
            known = self._known[name] = stamp, {"id": name, **found}
        return dict(known[1])

    def _paths(self) -> Iterator[tuple[str, Path, str]]:
        top = str(self.directory)
        for here, folders, files in os.walk(top):
            path = Path(here)
            name = path.relative_to(top).as_posix()
            if set(files) >= _RUN:
                folders.clear()
                yield name, path, "run"
            elif "study.json" in files:
                yield name, path, "study"
            if len(path.relative_to(top).parts) >= DEPTH:
                folders.clear()
            folders[:] = [folder for folder in folders if not folder.startswith(".")]


def row(run: RunDir) -> dict[str, Any]:
    """What the list of runs shows of one."""
    seen = overview.summarise(run)
    best = dict(seen.best or seen.members[0])
    first = run.recipes[0]
    names = sorted({name for row in run.last_epochs() for name in row})
    whats = [what for split, what in map(measures.split_of, names) if split in ("train", "val")]
    apart = [name for name in ("lr", "grad_norm") if name in names]
    wanted = [
        f"{split}_{what}" for what in (seen.judged_by, "loss") for split in ("test", "val", "train")
    ]
    curves = [*dict.fromkeys(whats), *apart, *(["step_loss"] if seen.steps > 1 else [])]
    return {
        "name": seen.name,
        "state": "diverged" if seen.diverged == len(seen.members) else seen.state,
        "created": seen.created,
        "members": len(seen.members),
        "steps": seen.steps,
        "epochs": seen.epochs,
        "total_epochs": seen.total_epochs,
        "seconds": seen.seconds,
        "time": measures.duration(seen.seconds),
        "left": _left(seen),
        "sentences": overview.sentences(seen),
        "judged_by": seen.judged_by,
        "headline": _headline(seen.judged_by, best),
        "best": {name: best[name] for name in wanted if name in best},
        "findings": len(run.events("finding")),
        "curves": curves,
        "measures": {name: asdict(measures.find(name)) for name in curves},
        "recipe": {path: _field(first, path) for path in _LISTED}
        | dict.fromkeys(seen.varies, "varies"),
    }


def details(run: RunDir) -> dict[str, Any]:
    """What the page shows of the run that is looked at: findings with their remedies, what
    happened, the layers as they stood last."""
    findings = [event["data"] for event in run.events("finding")]
    events = [e for e in run.events() if e["kind"] not in _HIDDEN]
    return {
        "findings": [
            {name: finding.get(name) for name in ("code", "where", "evidence", "cause", "remedies")}
            for finding in findings
        ],
        "events": [{name: e[name] for name in ("step", "member", "kind", "text")} for e in events][
            -20:
        ],
        "layers": overview.layer_records(run),
        "samples": overview.sample_records(run),
        "rate": run.recipes[0].get("optimizer.lr"),
        "report": run.report_path.is_file(),
    }


def _left(seen: overview.Summary) -> str | None:
    if seen.state != "running" or not seen.total_epochs or not seen.epochs or not seen.seconds:
        return None
    return measures.duration(seen.seconds / seen.epochs * max(seen.total_epochs - seen.epochs, 0))


def _study(path: Path) -> dict[str, Any]:
    request = parse_json(read_text(path / "study.json", MOST_SETTINGS), "study.json")
    summary: dict[str, Any] = {}
    if (path / "summary.json").is_file():
        summary = parse_json(read_text(path / "summary.json", MOST_SETTINGS), "summary.json")
    try:
        name = overview.useful_name(Recipe(**request["recipe"]))
    except RavineError:
        name = str(request["recipe"].get("name", "a recipe"))
    stamp = (path / "study.json").stat().st_mtime
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(stamp))
    return {
        "kind": str(request["kind"]),
        "name": f"{request['kind']}: {name}",
        "created": created,
        "options": json.dumps(request["options"])[:200],
        "done": bool(summary),
        "members": 0,
        "running": False,
        "report": (path / "report.html").is_file(),
    }


def _headline(judged_by: str | None, best: dict[str, Any]) -> dict[str, Any] | None:
    """The number a run is judged by, and how it is written: ``97.50 % accuracy (val)``."""
    for split, note in (("test", ""), ("val", " (val)"), ("train", " (train)")):
        value = best.get(f"{split}_{judged_by}")
        if judged_by and value is not None:
            text = f"{measures.show(judged_by, value)} {measures.find(judged_by).title}{note}"
            return {"value": value, "text": text}
    return None


def _field(recipe: Recipe, path: str) -> Any:
    try:
        return recipe.get(path)
    except InputError:
        return None


def _stamp(path: Path) -> tuple[float, ...]:
    names = ("recipe.json", "metrics.sqlite", "metrics.sqlite-wal", "study.json", "summary.json")
    stats = [place.stat() for place in map(path.joinpath, names) if place.exists()]
    return tuple(number for stat in stats for number in (stat.st_mtime, stat.st_size))
