"""A stage that several processes train: a directory that says what is to be done and holds what is done.

``order.json`` holds the recipes and how they train, ``rows/`` the weights to start from. The unit
that is handed out is a program: the recipes that train as one population in one process too, so the
numbers are the same. ``unit-000/`` holds the claims of its trainers, a run directory for each of
them, ``rungs.json`` (successive halving) and in the end ``done.json``, which names the run directory
that counts. A trainer goes on from the newest snapshot of the one before, which it copies: one that
was taken for dead and wakes up writes into its own. When all units are done, ``gather`` makes of
them the run directory that one process would have written.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch

from ravine.data.download.cache import look_also_in
from ravine.engine import snapshot
from ravine.engine.execute import Report
from ravine.engine.execution.device import kernel_threads
from ravine.engine.execution.pilot import by_rules_alone
from ravine.engine.loop.halving import Halving
from ravine.engine.programs import StartRows, groups_of
from ravine.errors import InputError, RavineError
from ravine.machine import versions
from ravine.recipe import Recipe
from ravine.report.run_page import write_report
from ravine.rundir import RunDir
from ravine.rundir.measurements import FILE
from ravine.storage.bounded import MOST_SETTINGS, parse_json, read_text
from ravine.storage.claims import Claim, holding
from ravine.storage.files import write_text
from ravine.study.workers import rungs
from ravine.study.workers.executor import Stage
from ravine.training.train import Share, resume, train_many

_VERSIONS = ("ravine", "torch")  # with others the numbers may differ
_OF_A_PROGRAM = ("snapshots", "final", "data", "trace")
_TABLES = {
    "losses": "member, chunk, losses, sum",
    "metrics": "member, step, name, epoch, value, sum",
    "clock": "member, step, seconds, sum",
    "results": "member, result, sum",
}


class Order:
    """A stage in a directory that processes share."""

    def __init__(self, path: Path):
        self.path = path
        about = parse_json(read_text(path / "order.json", MOST_SETTINGS), "order.json")
        self.about: dict[str, Any] = about
        self.name: str = about["name"]
        self.recipes = [Recipe(**recipe) for recipe in about["recipes"]]
        self.groups: list[list[int]] = about["groups"]
        self.claims = [Claim(self.unit(number)) for number in range(len(self.groups))]

    @classmethod
    def of(cls, stage: Stage) -> Order:
        """The order of a stage, written now or found."""
        if not (stage.shared / "order.json").is_file():
            _write(stage)
        if not stage.finished:
            shutil.rmtree(stage.place, ignore_errors=True)  # its programs are units now
        return cls(stage.shared)

    def unit(self, number: int) -> Path:
        """The directory of a unit."""
        return self.path / f"unit-{number:03d}"

    def done(self, number: int) -> Path | None:
        """The run directory in which a unit was trained to its end."""
        with suppress(InputError, KeyError):  # it may be in writing
            text = read_text(self.unit(number) / "done.json", MOST_SETTINGS)
            return self.unit(number) / parse_json(text, "done.json")["run"]
        return None

    @property
    def complete(self) -> bool:
        return all(self.done(number) for number in range(len(self.groups)))

    def check_versions(self) -> None:
        """Refuse to train with other versions than the process that made the order."""
        here, there = _versions(), self.about["versions"]
        if here != there:
            expected = f"{there}, with which the study was begun: others may give other numbers"
            repair = "install the same versions on every machine"
            raise InputError("workers", got=here, expected=expected, repair=repair)

    # --- training ---------------------------------------------------------------------------------

    def claim(self) -> int | None:
        """The first unit that nobody trains, claimed by this process; None where there is none."""
        for number, claim in enumerate(self.claims):
            if self.done(number) is None and claim.take():
                if self.done(number) is None:
                    return number
                claim.release()
        return None

    def train(
        self,
        number: int,
        *,
        model: Any = None,
        data: Any = None,
        report: Report = lambda progress: None,
    ) -> bool:
        """Train a claimed unit to its end; whether it was this process that did."""
        self.check_versions()
        claim, unit = self.claims[number], self.unit(number)
        place, before = unit / f"run-{claim.number:06d}", self._newest_run(number)
        share = Share(number, lambda record: self._shared(record, number))
        look_also_in(self.about["directory"])
        with (
            holding(claim),
            kernel_threads(self.about["threads"]),
            by_rules_alone(),
            suppress(rungs.Yielded, rungs.Superseded),
        ):
            if before is not None:
                _copy_run(before, place)
                resume(
                    place,
                    model=model,
                    data=data,
                    quiet=True,
                    report=report,
                    share=share,
                    trust=True,
                )
            else:
                shutil.rmtree(place, ignore_errors=True)
                train_many(
                    self.recipes,
                    model=model,
                    data=data,
                    out=place,
                    quiet=True,
                    report=report,
                    share=share,
                    **self._how(),
                )
            return not claim.lost and self.finish(number, place)
        return False

    def finish(self, number: int, run: Path) -> bool:
        """Let a run directory be that of its unit; whether it was the first."""
        with RunDir.open(run) as rundir:
            judged = json.dumps(rungs.judged(rundir, number))
        write_text(self.unit(number) / "rungs.json", judged)
        try:
            with (self.unit(number) / "done.json").open("x", encoding="utf-8") as file:
                file.write(json.dumps({"run": run.name}))
        except FileExistsError:
            return False
        return True

    def _how(self) -> dict[str, Any]:
        """How the recipes train, as for ``train_many``."""
        how = dict(self.about["how"])
        if how.get("halving"):
            how["halving"] = Halving(**how["halving"])
        if (self.path / "rows").is_dir():
            how["rows"] = StartRows(**snapshot.read(self.path / "rows")[0])
        return how

    def _shared(self, record: Any, number: int) -> rungs.SharedRecord:
        places = [self.unit(earlier) / "rungs.json" for earlier in range(number)]

        def forsaken(earlier: int) -> bool:
            return self.done(earlier) is None and not self.claims[earlier].taken

        claim = self.claims[number]
        return rungs.SharedRecord(
            record, self.unit(number) / "rungs.json", places, lambda: claim.lost, forsaken
        )

    def _newest_run(self, number: int) -> Path | None:
        """The run directory of the trainer before, where it left a snapshot."""
        for run in sorted(self.unit(number).glob("run-*"), reverse=True):
            with suppress(RavineError), RunDir.open(run) as found:
                if found.begun(number):
                    return run
        return None

    # --- the end ----------------------------------------------------------------------------------

    def gather(self, place: Path) -> None:
        """Make one run directory of all units, as one process would have written it."""
        for left in place.parent.glob(f".{place.name}.*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        making = place.with_name(f".{place.name}.{token_hex(4)}")
        done = [self.done(number) for number in range(len(self.groups))]
        runs = [run for run in done if run is not None]
        assert len(runs) == len(done), "every unit is done"
        facts = _about(runs[0])["facts"]
        facts["programs"] = [
            _about(run)["facts"]["programs"][number] for number, run in enumerate(runs)
        ]
        with RunDir.open(runs[0]) as first:  # whose snapshots name its recipes
            RunDir.create(making, first.recipes, facts=facts).close()
        for number, run in enumerate(runs):
            _add_measurements(making / FILE, run / FILE, self.groups[number])
            _copy_program(run, making, number)
        shutil.rmtree(place, ignore_errors=True)
        making.rename(place)
        with RunDir.open(place) as whole:
            write_report(whole)
        shutil.rmtree(self.path, ignore_errors=True)


def _write(stage: Stage) -> None:
    """Write the order of a stage, with what one process has trained of it. ``order.json`` comes
    last: it makes the directory an order."""
    shutil.rmtree(stage.shared, ignore_errors=True)
    how = {name: value for name, value in stage.how.items() if value is not None}
    rows, halving = how.pop("rows", None), how.get("halving")
    if halving is not None:
        how["halving"] = halving.to_dict()
    if rows is not None:
        given = {"theta": rows.theta, "mask": rows.mask}
        arrays = {name: rows for name, rows in given.items() if rows is not None}
        snapshot.write(stage.shared / "rows", arrays, {})
    groups = groups_of(stage.recipes, how.get("group"))
    if stage.begun:
        for number in range(len(groups)):
            _copy_run(stage.place, stage.shared / f"unit-{number:03d}" / "run-000000", number)
    about = {
        "name": stage.name,
        "recipes": [recipe.to_dict(explicit=True) for recipe in stage.recipes],
        "groups": groups,
        "how": json.loads(json.dumps(how)),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
        "directory": str(Path.cwd()),
    }
    write_text(stage.shared / "order.json", json.dumps(about, indent=1))


# --- run directories ------------------------------------------------------------------------------


def _versions() -> dict[str, str]:
    found = versions(_VERSIONS)
    return {name: found[name] for name in _VERSIONS if name in found}


def _about(run: Path) -> dict[str, Any]:
    return parse_json(read_text(run / "recipe.json", MOST_SETTINGS), "recipe.json")


def _copy_run(source: Path, to: Path, number: int | None = None) -> None:
    """Copy a run directory, of its programs one alone where a ``number`` is given. Files are copied
    as they are: a database of a process that was killed is restored from its log when it is opened."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    shutil.copy2(source / "recipe.json", to)
    for file in (FILE, f"{FILE}-wal"):
        if (source / file).is_file():
            shutil.copy2(source / file, to)
    for one in range(len(_about(source)["facts"]["programs"])):
        if number in (None, one):
            _copy_program(source, to, one)


def _copy_program(source: Path, to: Path, number: int) -> None:
    for folder in _OF_A_PROGRAM:
        found = source / folder / f"program-{number}"
        if found.is_dir():
            shutil.copytree(found, to / folder / found.name, copy_function=_link)


def _link(source: str, to: str) -> None:
    """A snapshot's files are never changed, only replaced: two names for one file do."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)


def _add_measurements(to: Path, source: Path, members: list[int]) -> None:
    """Add what was measured of some members, and the events of the whole run."""
    who = ",".join(map(str, members))
    with closing(sqlite3.connect(to, timeout=30)) as database:
        database.execute("ATTACH ? AS unit", (str(source),))
        with database:
            for table, columns in _TABLES.items():
                database.execute(
                    f"INSERT INTO {table} ({columns}) SELECT {columns} FROM unit.{table} "
                    f"WHERE member IN ({who})"
                )
            columns = "step, member, kind, text, data, sum"
            database.execute(
                f"INSERT OR IGNORE INTO events ({columns}) SELECT {columns} FROM unit.events "
                f"WHERE member < 0 OR member IN ({who}) ORDER BY step, id"
            )
