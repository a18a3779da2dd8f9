"""Directories whose every checksum is right and whose contents no version of Ravine writes: one clear error,
whatever a command does with them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.errors import InputError, RavineError
from ravine.rundir import RunDir, mark
from ravine.rundir.contents import of_sound, sound
from ravine.rundir.measurements import _COLUMNS, _sum
from ravine.storage import files


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run of a table and a finished study of it."""
    place = tmp_path_factory.mktemp("forged")
    draw = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yn'[int(a > b)]}" for a, b in draw.random((90, 2))]
    (place / "t.csv").write_text("\n".join(["a,b,target", *rows]), encoding="utf-8")
    (place / "new.csv").write_text("a,b\n0.1,0.2\n", encoding="utf-8")
    recipe = ravine.Recipe(
        data={"source": {"kind": "csv", "path": str(place / "t.csv")}, "batch": 16},
        model={"kind": "mlp", "hidden": [4]},
        stop={"after": "2ep"},
        threads=1,
    )
    ravine.train(recipe, out=place / "run", quiet=True, doctor=False, baselines=False)
    ravine.ensemble(recipe, out=place / "study", quiet=True, members=2)
    return place


@pytest.fixture
def place(trained, tmp_path) -> Path:
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def signed_again(file: Path, path: tuple, value: object) -> None:
    """Change one field of a file and sign the file again, the mark of this user too if it bears one."""
    body = json.loads(file.read_text())
    digest, own = body.pop("sha256", None), body.pop("mark", None)
    inner = body
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    if own is not None:
        body = mark.signed(body)
    elif digest is not None:
        text = json.dumps(body, sort_keys=True)
        body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(body))


def rows_again(run: Path, table: str, column: str, value: object) -> None:
    """Change a column of the last row of a table, its checksum too."""
    names = [name for name, _ in _COLUMNS[table]]
    with sqlite3.connect(run / "metrics.sqlite") as database:
        row = list(database.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()[-1])
        where, old = " AND ".join(f"{name} IS ?" for name in names), list(row)
        row[names.index(column)] = value
        database.execute(
            f"UPDATE {table} SET {column} = ?, sum = ? WHERE {where}",
            (value, _sum(table, tuple(row)), *old),
        )
    database.close()


FINAL, DATA = "run/final/*/*/*/manifest.json", "run/data/*/manifest.json"
FIELDS = {  # file, field, value, command
    "threads that are a list": (FINAL, "facts execution threads", [], "resume"),
    "a step that is nothing": (FINAL, "facts step", None, "resume"),
    "a size of 250 digits": (FINAL, "arrays theta shape", [10**250], "predict"),
    "classes that are a number": (DATA, "facts classes", 1e308, "predict"),
    "a shape that is a number": (DATA, "facts input_shape", 2**63, "predict"),
    "settings that are a number": (DATA, "facts inputs 0 settings", 10**250, "predict"),
    "decisions that are lists": (DATA, "facts source decisions", [[[]]], "predict"),
    "a decimal mark that is nothing": (DATA, "facts source columns 0 decimal", None, "predict"),
    "workers that are a list": ("study/study.json", "workers", [[]], "study"),
    "a group that is a text": ("study/study.json", "group", "a", "study"),
    "a part that is a list": ("study/parts/measured.json", "single", [[]], "study"),
    "a part without numbers": ("study/parts/measured.json", "single 0 brier", {}, "study"),
}  # fmt: skip
ROWS = {  # table, column, value, command
    "steps of another member": ("losses", "member", -3, "doctor"),
    "a step far away": ("metrics", "step", 10**9, "resume"),
    "a metric of no part": ("metrics", "name", "val_", "doctor"),
    "a finding without words": ("events", "kind", "finding", "report"),
    "an event of a list": ("events", "data", "[]", "report"),
    "an event of a number": ("events", "data", "1", "resume"),
}


def commands(place: Path) -> dict[str, list[str]]:
    run, study = str(place / "run"), str(place / "study")
    return {
        "resume": ["resume", run, "--after", "3ep", "--quiet"],
        "predict": ["predict", run, str(place / "new.csv"), "--out", str(place / "p.csv")],
        "doctor": ["doctor", run, "--quiet"],
        "report": ["report", run],
        "study": ["resume", study, "--quiet"],
    }


def answered(line: list[str]) -> None:
    done = CliRunner().invoke(app, line)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert done.exit_code in (0, 1, 2)
    assert "Traceback" not in done.output


@pytest.mark.parametrize("case", FIELDS)
def test_a_forged_field_is_one_error(place, case):
    file, path, value, command = FIELDS[case]
    names = tuple(int(name) if name.isdigit() else name for name in path.split())
    signed_again(next(place.glob(file)), names, value)
    answered(commands(place)[command])


@pytest.mark.parametrize("case", ROWS)
def test_a_forged_row_is_one_error(place, case):
    table, column, value, command = ROWS[case]
    rows_again(place / "run", table, column, value)
    answered(commands(place)[command])


def test_what_is_no_text_is_shown_as_it_is(place):
    signed_again(place / "study" / "study.json", ("facts", "machine", "system"), "\ud800")
    answered(commands(place)["study"])
    assert "\\ud800" in (place / "study" / "report.html").read_text()


def test_an_event_holds_a_table(place):
    rows_again(place / "run", "events", "data", "[]")
    with RunDir.open(place / "run") as run, pytest.raises(RavineError, match="no table"):
        run.events()


def test_errors_of_ones_own_code_pass_and_those_of_files_do_not(tmp_path):
    def own() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), sound(tmp_path):
        own()
    with pytest.raises(InputError, match=r"3: got .*do not fit together.*files\.py"):
        of_sound(files.new_file)(3)


@pytest.mark.parametrize("command", ["show", "data"])
def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path, command):
    (tmp_path / "file").write_text("mine")
    subject = ["blobs"] if command == "data" else []
    done = CliRunner().invoke(app, [command, *subject, "--out", str(tmp_path / "file")])
    assert isinstance(done.exception, SystemExit), done.exc_info
    assert "a file where a folder is needed" in " ".join(done.output.split())
    assert (tmp_path / "file").read_text() == "mine"
