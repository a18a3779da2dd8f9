"""The run directory: the only file that knows what one holds. No torch here, so that reports open
at once.

One directory per ``train_many``: ``recipe.json`` (recipes, versions, machine), ``metrics.sqlite``
(every step's loss, every epoch's metrics, events, results), ``snapshots/``, ``final/``, ``data/``
(fitted statistics) and ``report.html``. A ``step`` is a number of steps done; the losses of one
member are indexed from 0. Two equal runs hold equal rows: no clock time stands beside a metric, and
nothing depends on the blocks in which it was written.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np

from ravine.errors import InputError
from ravine.files import new_directory, write_text
from ravine.locks import Lock
from ravine.machine import machine, versions
from ravine.recipe import Recipe

FORMAT = 1
CHUNK = 512  # losses per stored row
_PACKAGES = ("ravine", "torch", "numpy", "safetensors")
_SCHEMA = f"""
CREATE TABLE losses (member INTEGER, chunk INTEGER, losses BLOB, PRIMARY KEY (member, chunk)) WITHOUT ROWID;
CREATE TABLE metrics (member INTEGER, step INTEGER, name TEXT, epoch REAL, value REAL,
                      PRIMARY KEY (member, step, name)) WITHOUT ROWID;
CREATE TABLE clock (member INTEGER, step INTEGER, seconds REAL, PRIMARY KEY (member, step)) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, step INTEGER, member INTEGER, kind TEXT, text TEXT, data TEXT,
                     UNIQUE (step, member, kind, text, data));
CREATE TABLE results (member INTEGER PRIMARY KEY, result TEXT);
PRAGMA user_version = {FORMAT};
"""
_NOBODY = -1  # stands for "no single member" in the events table


class RunDir:
    """What one call of ``train_many`` measured and saved; it can be read while it is written."""

    def __init__(self, path: Path, about: dict[str, Any], database: sqlite3.Connection):
        self.path = path
        self.recipes: list[Recipe] = [
            _recipe(*forms) for forms in zip(about["said"], about["recipes"], strict=True)
        ]
        self.facts: dict[str, Any] = about["facts"]
        self.created: str = about["created"]
        self._database = database
        self._mutex = threading.RLock()
        self._lock = Lock(path)

    # --- making and opening -----------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: str | Path | None, recipes: Sequence[Recipe], *, facts: dict[str, Any]
    ) -> RunDir:
        """A new directory; ``None`` stands for ``runs/<name>-<date>-<time>``. An existing one is
        never overwritten."""
        if not recipes:
            raise InputError("run directory", got=[], expected="at least one recipe")
        path = fresh_path(recipes[0].name) if path is None else _given(Path(path))
        created = datetime.now().astimezone().isoformat(timespec="seconds")
        about = _about(recipes, _merged(environment(), facts), created)
        with _connected(path / "metrics.sqlite") as database:
            database.executescript(_SCHEMA)
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
        if not (path / "metrics.sqlite").is_file():
            raise _damaged(path, "metrics.sqlite is missing")
        with _connected(path / "metrics.sqlite") as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != FORMAT:
                raise _damaged(path, f"metrics.sqlite is of format {version}, not {FORMAT}")
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

    def add_steps(self, first_step: int, members: Sequence[int], losses: np.ndarray) -> None:
        """Store losses [n, P] of the steps from ``first_step`` (0-based), one column per member;
        one transaction."""
        self._lock.take()
        losses = np.where(
            np.isnan(losses), np.nan, np.asarray(losses, dtype="<f8")
        )  # one NaN, whatever its bits
        rows = [
            row
            for j, member in enumerate(members)
            for row in self._chunks(int(member), first_step, losses[:, j])
        ]
        self._write("INSERT OR REPLACE INTO losses VALUES (?, ?, ?)", rows)

    def add_epochs(self, rows: Sequence[dict[str, Any]]) -> None:
        """Store metric rows: ``member``, ``epoch``, ``step``, optionally ``seconds``, and any
        metric name -> number."""
        keys = ("member", "epoch", "step", "seconds")
        metrics = [
            (row["member"], row["step"], name, float(row["epoch"]), float(value))
            for row in rows
            for name, value in row.items()
            if name not in keys
        ]
        clock = [
            (row["member"], row["step"], float(row["seconds"]))
            for row in rows
            if row.get("seconds") is not None
        ]
        with self._transaction() as database:
            database.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)", metrics)
            database.executemany("INSERT OR REPLACE INTO clock VALUES (?, ?, ?)", clock)

    def add_event(
        self,
        step: int,
        member: int | None,
        kind: str,
        text: str,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Store what happened; the same event twice is stored once, so that a resumed run repeats
        nothing."""
        row = (step, _NOBODY if member is None else member, kind, text, json.dumps(data or {}))
        self._write(
            "INSERT OR IGNORE INTO events (step, member, kind, text, data) VALUES (?, ?, ?, ?, ?)",
            [row],
        )

    def truncate(self, step: int, members: Sequence[int]) -> None:
        """Forget everything of these members after ``step`` steps, so that it can be written again.

        Events of the whole run are forgotten where these are all the members.
        """
        self._lock.take()
        who = [(int(member), step) for member in members]
        everyone = {member for member, _ in who} >= set(range(len(self.recipes)))
        chunk, rest = divmod(step, CHUNK)
        with self._transaction() as database:
            for member, _ in who:
                kept = self._chunk(member, chunk)[:rest]
                database.execute(
                    "DELETE FROM losses WHERE member = ? AND chunk >= ?", (member, chunk)
                )
                if len(kept):
                    database.execute(
                        "INSERT INTO losses VALUES (?, ?, ?)", (member, chunk, kept.tobytes())
                    )
            for table in ("metrics", "clock"):
                database.executemany(f"DELETE FROM {table} WHERE member = ? AND step > ?", who)
            gone = [*who, (_NOBODY, step)] if everyone else who
            database.executemany("DELETE FROM events WHERE member = ? AND step > ?", gone)
            database.executemany(
                "DELETE FROM results WHERE member = ?", [(member,) for member, _ in who]
            )

    def set_result(self, member: int, result: dict[str, Any]) -> None:
        """Store how a member ended: its final metrics, and ``stopped``, why."""
        self._write("INSERT OR REPLACE INTO results VALUES (?, ?)", [(member, json.dumps(result))])

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

    def sync(self) -> None:
        """Bring all rows to the disk itself: before a snapshot, which then implies them even when
        the power fails."""
        with self._mutex:
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # --- reading ----------------------------------------------------------------------------------

    def steps(self, member: int, start: int = 0) -> np.ndarray:
        """The losses of one member from step ``start`` on, float64; NaN where none was stored."""
        query = "SELECT chunk, losses FROM losses WHERE member = ? AND chunk >= ? ORDER BY chunk"
        rows = self._read(query, (member, start // CHUNK))
        if not rows:
            return np.empty(0)
        base = start // CHUNK
        losses = np.full((rows[-1][0] - base) * CHUNK + len(rows[-1][1]) // 8, np.nan)
        for chunk, blob in rows:
            losses[(chunk - base) * CHUNK :][: len(blob) // 8] = np.frombuffer(blob, "<f8")
        return losses[start - base * CHUNK :]

    def epochs(self, member: int | None = None, *, clock: bool = False) -> list[dict[str, Any]]:
        """One dict per member and evaluation, in order: member, epoch, step, then the metrics by
        name.

        ``clock`` adds ``seconds``. NaN is always the one object ``math.nan``, so rows of equal runs
        compare equal.
        """
        where, who = ("", ()) if member is None else ("WHERE member = ?", (member,))
        query = f"SELECT member, step, epoch, name, value FROM metrics {where} ORDER BY member, step, name"
        table = []
        for (m, step), rows in groupby(self._read(query, who), lambda row: row[:2]):
            found = [
                (epoch, name, math.nan if value is None else value)
                for _, _, epoch, name, value in rows
            ]
            row = {"member": m, "epoch": _whole(found[0][0]), "step": step}
            table.append({**row, **{name: value for _, name, value in found}})
        if clock:
            times = {row[:2]: row[2] for row in self._read(f"SELECT * FROM clock {where}", who)}
            for row in table:
                row["seconds"] = times.get((row["member"], row["step"]), math.nan)
        return table

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics that were measured."""
        return [name for (name,) in self._read("SELECT DISTINCT name FROM metrics ORDER BY name")]

    def events(self, kind: str | None = None, member: int | None = None) -> list[dict[str, Any]]:
        """Events in the order of their steps; of one kind; or of one member, without those of the
        whole run."""
        query = "SELECT step, member, kind, text, data FROM events ORDER BY step, id"
        found = [
            {
                "step": step,
                "member": None if m == _NOBODY else m,
                "kind": k,
                "text": text,
                "data": json.loads(data),
            }
            for step, m, k, text, data in self._read(query)
        ]
        return [e for e in found if kind in (None, e["kind"]) and member in (None, e["member"])]

    def result(self, member: int) -> dict[str, Any] | None:
        """How a member ended; None while it has not."""
        rows = self._read("SELECT result FROM results WHERE member = ?", (member,))
        return json.loads(rows[0][0]) if rows else None

    @property
    def done(self) -> int:
        """Steps whose losses are stored, of the member that has most."""
        rows = self._read(
            "SELECT chunk, length(losses) FROM losses ORDER BY chunk DESC, length(losses) DESC LIMIT 1"
        )
        return rows[0][0] * CHUNK + rows[0][1] // 8 if rows else 0

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

    # --- inside -----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._database:
            yield self._database

    def _write(self, query: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._transaction() as database:
            database.executemany(query, rows)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._mutex:
                return self._database.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _damaged(self.path, f"metrics.sqlite: {error}") from None

    def _chunk(self, member: int, chunk: int) -> np.ndarray:
        rows = self._read(
            "SELECT losses FROM losses WHERE member = ? AND chunk = ?", (member, chunk)
        )
        return np.frombuffer(rows[0][0], "<f8") if rows else np.empty(0)

    def _chunks(
        self, member: int, first: int, losses: np.ndarray
    ) -> Iterator[tuple[int, int, bytes]]:
        at = 0
        while at < len(losses):
            chunk, offset = divmod(first + at, CHUNK)
            part = losses[at : at + CHUNK - offset]
            old = self._chunk(member, chunk) if offset or len(part) < CHUNK else np.empty(0)
            row = np.full(max(len(old), offset + len(part)), np.nan)
            row[: len(old)] = old
            row[offset : offset + len(part)] = part
            yield member, chunk, row.tobytes()
            at += len(part)

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
    """Versions and machine, without importing what is named."""
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
        "said": [recipe.to_dict(explicit=True) for recipe in recipes],
        "recipes": [recipe.to_dict() for recipe in recipes],
    }


def _recipe(said: dict[str, Any], whole: dict[str, Any]) -> Recipe:
    """The recipe as it was said, unless a default has changed since: then with every default as it
    was."""
    with suppress(InputError):
        recipe = Recipe(**said)
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
        about = json.loads(place.read_text(encoding="utf-8"))
        missing = {"format", "created", "facts", "said", "recipes"} - set(about)
    except (ValueError, TypeError, OSError) as error:
        raise _damaged(path, f"recipe.json: {error}") from None
    if missing or about["format"] != FORMAT:
        raise _damaged(path, "recipe.json is not of a form that this version of Ravine reads")
    return about


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        "run directory", got=str(path), expected="an intact run directory", repair=what
    )


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


def _given(path: Path) -> Path:
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


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that stays open if all went well."""
    database = sqlite3.connect(path, timeout=30, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL").fetchall()
        database.execute("PRAGMA synchronous = NORMAL")
        yield database
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise _damaged(path.parent, f"{path.name}: {error}") from None
        raise


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
