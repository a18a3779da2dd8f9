"""The run directory: the only place that knows what one holds. No torch here, so that reports open
at once.

One directory per ``train_many``: ``recipe.json`` (recipes, versions, machine), ``metrics.sqlite``
(``measurements.py``), ``snapshots/``, ``final/``, ``data/`` (fitted statistics) and ``report.html``.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from ravine.errors import InputError, RavineError, first_line
from ravine.machine import machine, versions
from ravine.recipe import Recipe
from ravine.rundir.contents import check_contents
from ravine.rundir.mark import check_trust, digest_of, signed, verified
from ravine.rundir.measurements import (
    FILE,
    SCHEMA,
    Measurements,
    check_form,
    check_pages,
    connected,
    damaged,
)
from ravine.storage.bounded import MOST_SETTINGS, exists, parse_json, read_text
from ravine.storage.files import beside, name_of_file, new_directory, sync, write_text

ABOUT = 2  # the form of recipe.json: signed; form 1 was not
_PACKAGES = ("ravine", "torch", "numpy", "safetensors")


class RunDir(Measurements):
    """What one call of ``train_many`` measured and saved; it can be read while it is written."""

    def __init__(
        self, path: Path, about: dict[str, Any], database: sqlite3.Connection, made_here: bool
    ):
        super().__init__(path, database, len(about["recipes"]))
        self._file = os.path.abspath(path / FILE)
        found = os.stat(self._file)
        self._identity = found.st_dev, found.st_ino
        self.made_here = made_here  # by this user on this machine
        self.recipes: list[Recipe] = [
            _recipe(*forms) for forms in zip(about["explicit"], about["recipes"], strict=True)
        ]
        self.facts: dict[str, Any] = about["facts"]
        self.created: str = about["created"]
        # of each recipe as it is stored; snapshots hold it, so that no other recipe goes on from them
        self.digests = [digest_of(_without_code(recipe)) for recipe in about["recipes"]]

    # --- making and opening -----------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path | None,
        recipes: Sequence[Recipe],
        *,
        facts: dict[str, Any],
        fill: Callable[[RunDir], None] = lambda draft: None,
    ) -> RunDir:
        """A new directory; ``None`` means ``runs/<name>-<date>-<time>``. An existing one is
        never overwritten.

        It is written beside its place, ``fill`` adds what belongs to it from the beginning, and one
        rename brings it there: it exists whole or not at all.
        """
        if not recipes:
            raise InputError("run directory", got=[], expected="at least one recipe")
        path = fresh_path(recipes[0].name) if path is None else _new_path(Path(path))
        created = datetime.now().astimezone().isoformat(timespec="seconds")
        about = _about(recipes, _merged(environment(), facts), created)
        with draft_of(path) as draft:
            with connected(draft / FILE) as database:
                database.executescript(SCHEMA)
                write_text(draft / "recipe.json", json.dumps(signed(about), indent=1))
                with cls(draft, about, database, True) as run:
                    fill(run)
            for left in (".writer", ".writer-process"):
                (draft / left).unlink(missing_ok=True)
        run = cls.open(path)
        run._lock.take()
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """An existing directory, also one that another process is writing.

        Errors: links or special files in it, damage, another form.
        """
        path = Path(path)
        if path.name == "recipe.json":
            path = path.parent
        _check_made(path)
        check_contents(path)
        about, made_here = _read_about(path)
        if not (path / FILE).is_file():
            raise damaged(path, f"{FILE} is missing")
        with connected(path / FILE) as database:
            check_form(database, path)
            try:
                run = cls(path, about, database, made_here)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise damaged(path, f"recipe.json: {first_line(error)}") from None
            if not run._lock.taken:  # what is being written changes under the check
                check_pages(database, path)
            return run

    def check_trust(self) -> None:
        """Refuse to read what the recipes name, of a directory that was made elsewhere."""
        for recipe in self.recipes:
            check_trust(self.path, self.made_here, recipe)

    @contextmanager
    def begins_to_write(self) -> Iterator[None]:
        """Be the one process that writes the directory, until it is closed, as it is where the block
        fails: before what is stored is read to go on from, for another process may have gone on.

        Errors: another process writes it, or changed its recipes since it was opened.
        """
        try:
            self._lock.take()
            if _read_about(self.path)[0]["facts"] != self.facts:
                expected = "a run that no other process changes meanwhile"
                raise InputError(str(self.path), expected=expected, repair="run the command again")
            yield
        except BaseException:
            self.close()
            raise

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

    def set_recipes(self, recipes: Sequence[Recipe]) -> None:
        """Replace the recipes, as an extended run does; the members stay who they are."""
        if len(recipes) != len(self.recipes):
            raise InputError(
                "recipes", got=len(recipes), expected=f"{len(self.recipes)}, one for each member"
            )
        # snapshots of before hold the digests of before
        earlier = self.facts.get("earlier_sha256") or [[] for _ in recipes]
        earlier = [[*old, now] for old, now in zip(earlier, self.digests, strict=True)]
        self.facts = {**self.facts, "earlier_sha256": earlier}
        self.recipes = list(recipes)
        self.digests = [digest_of(_without_code(recipe.to_dict())) for recipe in recipes]
        self._write_about()

    def check_recipes(self, snapshot: Path, facts: dict[str, Any]) -> None:
        """Refuse a snapshot that was made with other recipes than the run's."""
        made = facts.get("recipe_sha256")  # the first versions kept none
        if made is None:
            return
        earlier = self.facts.get("earlier_sha256") or [[] for _ in self.recipes]
        for member, digest in zip(facts["members"], made, strict=True):
            if digest not in (self.digests[member], *earlier[member]):
                raise damaged(
                    self.path,
                    f"{snapshot.name} was made with another recipe than the run's (member {member}): "
                    "recipe.json was changed; an edited copy of the recipe is a new run",
                )

    @property
    def state(self) -> str:
        """``finished`` when every member has a result; else ``running`` while a process writes, or
        ``interrupted``."""
        if self._read("SELECT count(*) FROM results")[0][0] >= len(self.recipes):
            return "finished"
        return "running" if self._lock.taken else "interrupted"

    def check_there(self) -> None:
        """Refuse to go on where the directory was deleted, moved or replaced while this process writes it."""
        try:
            found = os.stat(self._file)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                return  # a disk that does not answer: whoever writes says so
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise RavineError(
                f"{self.path}: the run directory was deleted or moved while it was written; training "
                "ended here, and what was not copied before is lost"
            )

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
        about = signed(about, here=self.made_here)  # a stranger's stays one
        write_text(self.path / "recipe.json", json.dumps(about, indent=1))


def _without_code(stored: Any) -> Any:
    """A stored recipe without the hashes of own sources, which are compared when these are brought."""
    if isinstance(stored, dict):
        return {name: _without_code(value) for name, value in stored.items() if name != "code"}
    return [_without_code(one) for one in stored] if isinstance(stored, list) else stored


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
        "format": ABOUT,
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


def _check_made(path: Path) -> None:
    """Refuse what is no run directory, before anything is said of what lies in it."""
    if exists(path / "recipe.json") or os.path.islink(path / "recipe.json"):
        return
    expected = "a directory that ravine train made"
    repair = "it has no recipe.json"
    if exists(path / "study.json"):
        repair = (
            f"it is a study: call the study again with out={str(path)!r}, or ravine resume {path}"
        )
    raise InputError("run directory", got=str(path), expected=expected, repair=repair)


def _read_about(path: Path) -> tuple[dict[str, Any], bool]:
    """What recipe.json holds, and whether it was written here."""
    place = path / "recipe.json"
    _check_made(path)
    made_here = False
    try:
        about = parse_json(read_text(place, MOST_SETTINGS), "recipe.json")
        if "said" in about:  # the name in the first versions
            about["explicit"] = about["said"]
        missing = {"format", "created", "facts", "explicit", "recipes"} - set(about)
        if not missing and about["format"] != 1:  # which was not signed
            made_here = verified(about, "recipe.json")
        kinds = {"created": str, "facts": dict, "explicit": list, "recipes": list}
        if not missing and not all(isinstance(about[name], kind) for name, kind in kinds.items()):
            raise ValueError("its fields are of other types than a run's")
        if not missing:
            check_facts(about)
    except (ValueError, TypeError, OSError) as error:
        raise damaged(path, f"recipe.json: {error}") from None
    if missing or about["format"] not in (1, ABOUT):
        raise damaged(path, "recipe.json is not of a form that this version of Ravine reads")
    return about, made_here


def check_facts(about: dict[str, Any]) -> None:
    """Refuse recipes and programs that do not fit together."""
    members = len(about["recipes"])
    if not members or len(about["explicit"]) != members:
        raise ValueError("it lacks recipes")
    if not all(isinstance(one, dict) for one in (*about["recipes"], *about["explicit"])):
        raise ValueError("a recipe is no table")
    programs = about["facts"].get("programs", [])
    if not isinstance(programs, list) or not all(isinstance(one, dict) for one in programs):
        raise ValueError("its programs are no tables")
    for program in programs:
        numbers = program.get("members", [])
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < members for number in numbers
        ):
            raise ValueError("a program's members are none of the run's")
    if not isinstance(about["facts"].get("directory", ""), str):
        raise ValueError("its folder is no text")


def fresh_path(name: str) -> Path:
    """A place under ``runs/`` where nothing lies yet; it is not made here."""
    stem = name_of_file(name, "run")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = (f"{stem}-{stamp}" if n == 1 else f"{stem}-{stamp}-{n}" for n in count(1))
    return next(path for path in map(Path("runs").joinpath, names) if not path.exists())


def _new_path(path: Path) -> Path:
    repair = f"choose another name, or continue that run: ravine resume {path}"
    new_directory(path, "run directory", repair)
    return path


@contextmanager
def draft_of(path: Path, option: str = "run directory") -> Iterator[Path]:
    """A directory beside ``path``, which one rename brings there if all went well; otherwise it
    vanishes."""
    here = Path(os.path.abspath(path))
    if here.exists() and here.samefile(Path.cwd()):
        expected = "another place than the folder in which you are"
        raise InputError(option, got=str(path), expected=expected)
    draft = beside(here)
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
    except OSError as error:
        expected = "a place for a new directory"
        raise InputError(option, got=str(path), expected=expected, repair=str(error)) from None
    try:
        yield draft
        for folder in draft.iterdir():
            sync(folder)
        sync(draft)
        try:
            os.rename(draft, here)  # an empty directory gives way, no other does
        except OSError as error:
            raise InputError(
                option,
                got=str(path),
                expected="a place for a new directory",
                repair=str(error),
            ) from None
        sync(here.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
