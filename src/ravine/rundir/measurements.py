"""What a run measured, in ``metrics.sqlite``: every step's loss, every epoch's metrics, events, results.

The losses of one member are indexed from 0; a ``step`` is a number of steps done. Two equal runs
hold equal rows: no clock time is stored beside a metric, and nothing depends on the blocks in which it
was written.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from ravine.errors import InputError, RavineError
from ravine.storage.bounded import parse_json
from ravine.storage.files import trouble
from ravine.storage.locks import Lock

FILE = "metrics.sqlite"
FORMAT = 2  # each row has a checksum; format 1 had none
FORMATS = (1, 2)
MOST_BYTES = 64 << 30
CHUNK = 512  # losses per stored row
_LONGEST = 64 << 20  # bytes of a text or of losses, of which Ravine writes far less
_TABLES = {  # columns with their types, and the key
    "losses": (
        "member INTEGER, chunk INTEGER, losses BLOB",
        "PRIMARY KEY (member, chunk)) WITHOUT ROWID",
    ),
    "metrics": (
        "member INTEGER, step INTEGER, name TEXT, epoch REAL, value REAL",
        "PRIMARY KEY (member, step, name)) WITHOUT ROWID",
    ),
    "clock": (
        "member INTEGER, step INTEGER, seconds REAL",
        "PRIMARY KEY (member, step)) WITHOUT ROWID",
    ),
    "events": (
        "id INTEGER PRIMARY KEY, step INTEGER, member INTEGER, kind TEXT, text TEXT, data TEXT",
        "UNIQUE (step, member, kind, text, data))",
    ),
    "results": ("member INTEGER PRIMARY KEY, result TEXT", ""),
}
_TYPES: dict[str, Any] = {"INTEGER": int, "REAL": (float, type(None)), "TEXT": str, "BLOB": bytes}
_COLUMNS = {  # of each table but its checksum: names and types
    table: [(column.split()[0], _TYPES[column.split()[1]]) for column in columns.split(", ")]
    for table, (columns, _) in _TABLES.items()
}


def _schema(form: int) -> dict[str, str]:
    """The statement that makes each table."""
    more = ", sum INTEGER" if form > 1 else ""
    return {
        table: f"CREATE TABLE {table} ({columns}{more}{', ' + key if key else ')'}"
        for table, (columns, key) in _TABLES.items()
    }


SCHEMA = (
    "".join(f"{made};" for made in _schema(FORMAT).values()) + f"PRAGMA user_version = {FORMAT};"
)
_NOBODY = -1  # means "no single member" in the events table


class Late(NamedTuple):
    """Something that is still to be stored."""

    store: Callable[[], None]
    epochs: Sequence[dict[str, Any]] = ()  # where it is rows of metrics


class Measurements:
    """The measurements of a run's members; they can be read while another process writes them."""

    def __init__(self, path: Path, database: sqlite3.Connection, members: int):
        self.path, self._database, self._members = path, database, members
        self._mutex = threading.RLock()
        (self._format,) = database.execute("PRAGMA user_version").fetchone()
        self._within = False
        self._events_whole = False  # whether every row's checksum was compared
        self.late: list[Late] = []  # what the disk has not taken yet, in order
        self._lock = Lock(path)  # held by the process that writes

    # --- writing ----------------------------------------------------------------------------------

    def add_steps(self, first_step: int, members: Sequence[int], losses: np.ndarray) -> None:
        """Store losses [n, P] of the steps from ``first_step`` (0-based), one column per member;
        one transaction."""
        self._lock.take()
        # one NaN, whatever its bits
        losses = np.where(np.isnan(losses), np.nan, np.asarray(losses, dtype="<f8"))
        rows = [
            row
            for j, member in enumerate(members)
            for row in self._chunks(int(member), first_step, losses[:, j])
        ]
        self._write("REPLACE", "losses", rows)

    def add_epochs(self, rows: Sequence[dict[str, Any]]) -> None:
        """Store metric rows: ``member``, ``epoch``, ``step``, optionally ``seconds``, and any
        metric name -> number."""
        keys = ("member", "epoch", "step", "seconds")
        metrics = [
            (int(row["member"]), int(row["step"]), name, float(row["epoch"]), float(value))
            for row in rows
            for name, value in row.items()
            if name not in keys
        ]
        clock = [
            (int(row["member"]), int(row["step"]), float(row["seconds"]))
            for row in rows
            if row.get("seconds") is not None
        ]
        with self._transaction():
            self._write("REPLACE", "metrics", metrics)
            self._write("REPLACE", "clock", clock)

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
        who = _NOBODY if member is None else int(member)
        self._write(
            "IGNORE", "events", [(None, int(step), who, kind, text, json.dumps(data or {}))]
        )

    def truncate(self, step: int, members: Sequence[int]) -> None:
        """Forget everything of these members after ``step`` steps, so that it can be written again.

        Events of the whole run are forgotten where these are all the members.
        """
        self._lock.take()
        who = [(int(member), step) for member in members]
        everyone = {member for member, _ in who} >= set(range(self._members))
        chunk, rest = divmod(step, CHUNK)
        with self._transaction() as database:
            for member, _ in who:
                kept = self._chunk(member, chunk)[:rest]
                database.execute(
                    "DELETE FROM losses WHERE member = ? AND chunk >= ?", (member, chunk)
                )
                if len(kept):
                    self._write("REPLACE", "losses", [(member, chunk, kept.tobytes())])
            for table in ("metrics", "clock"):
                database.executemany(f"DELETE FROM {table} WHERE member = ? AND step > ?", who)
            gone = [*who, (_NOBODY, step)] if everyone else who
            # what was changed from outside is kept: the steps that are taken again need it
            forget = "DELETE FROM events WHERE member = ? AND step > ? AND kind != 'set'"
            database.executemany(forget, gone)
            database.executemany(
                "DELETE FROM results WHERE member = ?", [(member,) for member, _ in who]
            )

    def set_result(self, member: int, result: dict[str, Any]) -> None:
        """Store how a member ended: its final metrics, and ``stopped``, why."""
        self._write("REPLACE", "results", [(int(member), json.dumps(result))])

    def sync(self) -> None:
        """Bring all rows to the disk itself: before a snapshot, which then implies them even when
        the power fails."""
        with self._mutex:
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # --- reading ----------------------------------------------------------------------------------

    def steps(self, member: int, start: int = 0) -> np.ndarray:
        """The losses of one member from step ``start`` on, float64; NaN where none was stored."""
        base = start // CHUNK
        where = "WHERE member = ? AND chunk >= ? ORDER BY chunk"
        rows = [row[1:] for row in self._rows("losses", where, (member, base))]
        if not rows:
            return np.empty(0)
        if rows[-1][0] - base > 64 * len(rows) + CHUNK or any(
            len(b) % 8 or len(b) > 8 * CHUNK for _, b in rows
        ):
            raise damaged(self.path, f"{FILE}: losses that no run has")
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
        order, table = "ORDER BY member, step, name", []
        stored = self._rows("metrics", f"{where} {order}", who)
        for (m, step), rows in groupby(stored, lambda row: row[:2]):
            found = [
                (epoch, name, math.nan if value is None else value)
                for _, _, name, epoch, value in rows
            ]
            row = {"member": m, "epoch": _whole(found[0][0]), "step": step}
            table.append({**row, **{name: value for _, name, value in found}})
        if clock:
            times = {row[:2]: row[2] for row in self._rows("clock", where, who)}
            for row in table:
                row["seconds"] = times.get((row["member"], row["step"]), math.nan)
        return table

    def last_epochs(self) -> list[dict[str, Any]]:
        """The last evaluation of each member that has one, with ``seconds``: found by the index, so
        that it takes as long for a million rows as for ten."""
        found = []
        for member in range(self._members):
            query = "SELECT max(step) FROM metrics WHERE member = ?"
            ((step,),) = self._read(query, (member,))
            if step is not None:
                found.append(self._epoch_at(member, step))
        return found

    def _epoch_at(self, member: int, step: int) -> dict[str, Any]:
        where = "WHERE member = ? AND step = ?"
        query = f"SELECT epoch, name, value FROM metrics {where} ORDER BY name"
        rows = self._read(query, (member, step))
        values = {name: math.nan if value is None else value for _, name, value in rows}
        time = self._read(f"SELECT seconds FROM clock {where}", (member, step))
        row = {"member": member, "epoch": _whole(rows[0][0]), "step": step, **values}
        return row | {"seconds": time[0][0] if time else math.nan}

    def epoch_of(self, member: int, step: int) -> float | None:
        """The epoch that was over after so many steps of a member; None where none was."""
        query = "SELECT epoch FROM metrics WHERE member = ? AND step = ? LIMIT 1"
        rows = self._read(query, (member, step))
        return _whole(rows[0][0]) if rows else None

    def course(self, member: int, metric: str, points: int = 1500) -> np.ndarray:
        """The course of a metric [n, 4]: step, epoch, seconds, value; of long runs about ``points``
        of its rows, found by the index."""
        where = "WHERE member = ? AND name = ?"
        few = f"SELECT step FROM metrics {where} ORDER BY step LIMIT ?"
        steps = [step for (step,) in self._read(few, (member, metric, 2 * points + 1))]
        if len(steps) > 2 * points:
            ((last,),) = self._read("SELECT max(step) FROM metrics WHERE member = ?", (member,))
            steps = np.unique(np.linspace(steps[0], last, points).astype(int)).tolist()
        # one query: each row that is asked for alone would let other threads of a server in
        next_ = f"SELECT step FROM metrics {where} AND step >= at.value ORDER BY step LIMIT 1"
        found = f"""
            SELECT DISTINCT m.step, m.epoch, c.seconds, m.value FROM json_each(?) AS at
            CROSS JOIN metrics AS m ON m.member = ? AND m.name = ? AND m.step = ({next_})
            LEFT JOIN clock AS c ON c.member = m.member AND c.step = m.step ORDER BY m.step"""
        table = self._read(found, (json.dumps(steps), member, metric, member, metric))
        return np.array(table, float).reshape(-1, 4)

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics that were measured."""
        return [name for (name,) in self._read("SELECT DISTINCT name FROM metrics ORDER BY name")]

    def events(self, kind: str | None = None, member: int | None = None) -> list[dict[str, Any]]:
        """Events in the order of their steps; of one kind; or of one member, without those of the
        whole run."""
        asked = {"kind": kind, "member": member}
        limits = {column: value for column, value in asked.items() if value is not None}
        if limits and not self._events_whole:  # else damage could hide a row from what is asked
            self._rows("events")
            self._events_whole = True
        where = "WHERE " + " AND ".join(f"{column} = ?" for column in limits) if limits else ""
        rows = self._rows("events", f"{where} ORDER BY step, id", tuple(limits.values()))
        return [
            {
                "step": step,
                "member": None if m == _NOBODY else m,
                "kind": k,
                "text": text,
                "data": self._table(data),
            }
            for _, step, m, k, text, data in rows
        ]

    def result(self, member: int) -> dict[str, Any] | None:
        """How a member ended; None while it has not."""
        rows = self._rows("results", "WHERE member = ?", (member,))
        found = self._parsed(rows[0][1]) if rows else None
        if rows and not (isinstance(found, dict) and isinstance(found.get("stopped"), str)):
            raise damaged(self.path, f"{FILE}: the result of member {member}")
        return found

    @property
    def done(self) -> int:
        """Steps whose losses are stored, of the member that has most."""
        rows = self._read(
            "SELECT chunk, length(losses) FROM losses ORDER BY chunk DESC, length(losses) DESC LIMIT 1"
        )
        return rows[0][0] * CHUNK + rows[0][1] // 8 if rows else 0

    # --- inside -----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            if self._within:  # one transaction of several tables
                yield self._database
                return
            self._within = True
            try:
                with self._database:
                    yield self._database
            finally:
                self._within = False

    def _write(self, otherwise: str, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert whole rows; ``otherwise``: what becomes of one whose key is there already."""
        if self._format > 1:
            rows = [(*row, _sum(table, row)) for row in rows]
        marks = ", ".join("?" * (len(_COLUMNS[table]) + (self._format > 1)))
        with self._transaction() as database:
            database.executemany(f"INSERT OR {otherwise} INTO {table} VALUES ({marks})", rows)

    def _rows(
        self, table: str, where: str = "", values: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """The rows of a table without their checksums, which are compared."""
        columns, found = _COLUMNS[table], []
        for row in self._read(f"SELECT * FROM {table} {where}", values):
            plain = row[: len(columns)]
            good = all(isinstance(v, kind) for v, (_, kind) in zip(plain, columns, strict=True))
            if not good or (self._format > 1 and row[-1] != _sum(table, plain)):
                raise damaged(self.path, f"{FILE}: a row of {table} is not what was written")
            found.append(plain)
        return found

    def _parsed(self, text: str) -> Any:
        try:
            return parse_json(text, FILE)
        except InputError as error:
            raise damaged(self.path, str(error)) from None

    def _table(self, text: str) -> dict[str, Any]:
        found = self._parsed(text)
        if not isinstance(found, dict):
            raise damaged(self.path, f"{FILE}: an event whose data are no table")
        return found

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._mutex:
                return self._database.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _unread(self.path, error) from None

    def _chunk(self, member: int, chunk: int) -> np.ndarray:
        rows = self._rows("losses", "WHERE member = ? AND chunk = ?", (member, chunk))
        return np.frombuffer(rows[0][2], "<f8") if rows else np.empty(0)

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


def _sum(table: str, row: tuple[Any, ...]) -> int:
    """The checksum of a row; SQLite keeps NaN as nothing, and chooses the ids of events."""
    row = row[1:] if table == "events" else row
    return crc32(repr([None if value != value else value for value in row]).encode())


def check_form(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a database whose tables are not those that a run writes."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in FORMATS:
        raise damaged(path, f"{FILE} has format {version}, not {FORMAT}")
    made = database.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    tables = {name: _plain_sql(sql) for _, name, sql in made if not name.startswith("sqlite_")}
    if tables != {name: _plain_sql(sql) for name, sql in _schema(version).items()}:
        raise damaged(path, f"{FILE} holds other tables than a run's")


def check_pages(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a database of which a page is damaged: rows could be missing without a word."""
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise damaged(path, f"{FILE}: {' '.join(str(found).split())[:200]}")


def _plain_sql(sql: Any) -> str:
    return re.sub(r"\s*([(),])\s*", r"\1", " ".join(str(sql).split()))


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database that stays open if all went well; one that only reads on a disk that is read alone."""
    written = os.access(path.parent, os.W_OK)
    place = str(path) if written else _only_read(path)
    database = sqlite3.connect(place, timeout=30, check_same_thread=False, uri=not written)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    try:
        if written:
            database.execute("PRAGMA journal_mode = WAL").fetchall()
        database.execute("PRAGMA synchronous = NORMAL")
        yield database
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise _unread(path.parent, error) from None
        raise


def _only_read(path: Path) -> str:
    """The address of a database on a disk that may only be read. Without a log of what is being
    written nothing changes it, and SQLite needs no file of its own beside it."""
    log = path.with_name(f"{path.name}-wal")
    still = not log.exists() or log.stat().st_size == 0
    return f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' * still}"


def _unread(path: Path, error: sqlite3.DatabaseError) -> RavineError:
    """A disk that fails or is full makes no damaged run of a sound one."""
    text = trouble(error)
    return RavineError(f"{path}: {text}") if text else damaged(path, f"{FILE}: {error}")


def damaged(path: Path, what: str) -> InputError:
    expected = "an intact run directory"
    return InputError("run directory", got=str(path), expected=expected, repair=what)


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
