"""The run directory: the only place that knows what one holds. No torch here, so that reports open
at once.

One directory per ``train_many``: ``recipe.json`` (recipes, versions, machine), ``metrics.sqlite``
(``measurements.py``), ``snapshots/``, ``final/``, ``data/`` (fitted statistics) and ``report.html``.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from ravine.bounded import MOST_SETTINGS, parse_json, read_text
from ravine.errors import InputError
from ravine.files import new_directory, write_text
from ravine.machine import machine, versions
from ravine.recipe import Recipe
from ravine.rundir.measurements import FILE, FORMAT, SCHEMA, Measurements, connected, damaged

_PACKAGES = ("ravine", "torch", "numpy", "safetensors")


class RunDir(Measurements):
    """What one call of ``train_many`` measured and saved; it can be read while it is written."""

    def __init__(self, path: Path, about: dict[str, Any], database: sqlite3.Connection):
        super().__init__(path, database, len(about["recipes"]))
        self.recipes: list[Recipe] = [
            _recipe(*forms) for forms in zip(about["explicit"], about["recipes"], strict=True)
        ]
        self.facts: dict[str, Any] = about["facts"]
        self.created: str = about["created"]

    # --- making and opening -----------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: str | Path | None, recipes: Sequence[Recipe], *, facts: dict[str, Any]
    ) -> RunDir:
        """A new directory; ``None`` means ``runs/<name>-<date>-<time>``. An existing one is
        never overwritten."""
        if not recipes:
            raise InputError("run directory", got=[], expected="at least one recipe")
        path = fresh_path(recipes[0].name) if path is None else _new_path(Path(path))
        created = datetime.now().astimezone().isoformat(timespec="seconds")
        about = _about(recipes, _merged(environment(), facts), created)
        with connected(path / FILE) as database:
            database.executescript(SCHEMA)
            write_text(path / "recipe.json", json.dumps(about, indent=1))
            run = cls(path, about, database)
        run._lock.take()
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """An existing directory, also one that another process is writing."""
        path = Path(path)
        if path.name == "recipe.json":
            path = path.parent
        about = _read_about(path)
        if not (path / FILE).is_file():
            raise damaged(path, f"{FILE} is missing")
        with connected(path / FILE) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != FORMAT:
                raise damaged(path, f"{FILE} has format {version}, not {FORMAT}")
            return cls(path, about, database)

    def close(self) -> None:
        """Let go of the files; the directory can be opened again at any time."""
        with self._mutex:
            self._database.close()
            self._lock.release()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r}, members={len(self.recipes)})"

    # --- writing ----------------------------------------------------------------------------------

    def set_facts(self, **facts: Any) -> None:
        """Add to the facts, or replace some."""
        self.facts = json.loads(json.dumps({**self.facts, **facts}))
        self._write_about()

    def set_recipes(self, recipes: Sequence[Recipe]) -> None:
        """Replace the recipes, as an extended run does; the members stay who they are."""
        if len(recipes) != len(self.recipes):
            raise InputError(
                "recipes", got=len(recipes), expected=f"{len(self.recipes)}, one for each member"
            )
        self.recipes = list(recipes)
        self._write_about()

    @property
    def state(self) -> str:
        """``finished`` when every member has a result; else ``running`` while a process writes, or
        ``interrupted``."""
        if self._read("SELECT count(*) FROM results")[0][0] >= len(self.recipes):
            return "finished"
        return "running" if self._lock.taken else "interrupted"

    # --- places -----------------------------------------------------------------------------------

    def snapshot_path(self, program: int, step: int, lead: int = 0) -> Path:
        """Where the snapshot after ``step`` steps belongs, of the members of a program that train
        with member ``lead``."""
        return self.path / "snapshots" / f"program-{program}" / f"with-{lead}" / f"step-{step:09d}"

    def latest_snapshots(self, program: int, lead: int | None = None) -> list[Path]:
        """Snapshots of a program, newest first; one that was being written may be among them."""
        return _by_step(self.snapshot_path(program, 0).parent.parent, lead)

    def final_path(self, program: int, step: int, lead: int = 0) -> Path:
        """Where the final state of the members that ended after ``step`` steps belongs; it is never
        pruned."""
        return self.path / "final" / f"program-{program}" / f"with-{lead}" / f"step-{step:09d}"

    def final_snapshots(self, program: int) -> list[Path]:
        """Where members of the program ended, newest first."""
        return _by_step(self.final_path(program, 0).parent.parent)

    def begun(self, program: int) -> bool:
        """Whether a program has left a whole snapshot; one that was killed before its first has
        not."""
        paths = [*self.latest_snapshots(program), *self.final_snapshots(program)]
        return any((path / "manifest.json").is_file() for path in paths)

    def trace_path(self, program: int, step: int) -> Path:
        """Where the weights that a study asked for on the way belong; they are never pruned."""
        return self.path / "trace" / f"program-{program}" / f"step-{step:09d}"

    def trace_snapshots(self, program: int) -> list[Path]:
        """The weights on the way of a program, first to last."""
        folder = self.trace_path(program, 0).parent
        return sorted(folder.glob("step-*"), key=snapshot_step)

    def data_path(self, program: int) -> Path:
        """Where the statistics fitted to a program's training data belong (in the form of a
        snapshot)."""
        return self.path / "data" / f"program-{program}"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    def _write_about(self) -> None:
        about = _about(self.recipes, self.facts, self.created)
        write_text(self.path / "recipe.json", json.dumps(about, indent=1))


def _by_step(folder: Path, lead: int | None = None) -> list[Path]:
    found = folder.glob(f"with-{'*' if lead is None else lead}/step-*")
    return sorted((path for path in found if path.is_dir()), key=snapshot_step, reverse=True)


def snapshot_step(path: Path) -> int:
    """The number of steps a snapshot's name tells."""
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1


def environment() -> dict[str, Any]:
    """Versions and machine, found without importing the packages."""
    return {
        "versions": versions(_PACKAGES),
        "machine": machine(),
        "directory": str(Path.cwd()),
    }


def _merged(facts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both, tables within taken together too; ``more`` has the last word."""
    both = {
        name: {**facts[name], **more[name]}
        for name in facts.keys() & more.keys()
        if isinstance(more[name], dict)
    }
    return {**facts, **more, **both}


def _about(recipes: Sequence[Recipe], facts: dict[str, Any], created: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "created": created,
        "facts": json.loads(json.dumps(facts)),
        "explicit": [recipe.to_dict(explicit=True) for recipe in recipes],
        "recipes": [recipe.to_dict() for recipe in recipes],
    }


def _recipe(explicit: dict[str, Any], whole: dict[str, Any]) -> Recipe:
    """The recipe with its explicit fields alone, unless a default has changed since it was written:
    then with every default as it was."""
    with suppress(InputError):
        recipe = Recipe(**explicit)
        if recipe.to_dict() == whole:
            return recipe
    return Recipe(**whole)


def _read_about(path: Path) -> dict[str, Any]:
    place = path / "recipe.json"
    if not place.is_file():
        expected = "a directory that ravine train made"
        raise InputError(
            "run directory", got=str(path), expected=expected, repair="it has no recipe.json"
        )
    try:
        about = parse_json(read_text(place, MOST_SETTINGS), "recipe.json")
        if "said" in about:  # the name in the first versions
            about["explicit"] = about["said"]
        missing = {"format", "created", "facts", "explicit", "recipes"} - set(about)
    except (ValueError, TypeError, OSError) as error:
        raise damaged(path, f"recipe.json: {error}") from None
    if missing or about["format"] != FORMAT:
        raise damaged(path, "recipe.json is not of a form that this version of Ravine reads")
    return about


def fresh_path(name: str) -> Path:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "run"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    Path("runs").mkdir(exist_ok=True)
    for n in count(1):
        path = Path("runs") / (f"{stem}-{stamp}" if n == 1 else f"{stem}-{stamp}-{n}")
        with suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError


def _new_path(path: Path) -> Path:
    repair = f"choose another name, or continue that run: ravine resume {path}"
    new_directory(path, "run directory", repair)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        expected = "a place for a new directory"
        raise InputError(
            "run directory", got=str(path), expected=expected, repair=str(error)
        ) from None
    return path
