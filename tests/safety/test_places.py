"""Where commands write: whatever lies at the place that a person names, they refuse it in one line before any
work, or write a whole file; nothing that was there changes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ravine.app.cli import app
from ravine.errors import InputError
from ravine.storage import files
from ravine.study.signature import declarations

SHORT = ["--set", "data.source=blobs", "--set", "model=softmax", "--epochs", "1"]
RUN = "{run}"
COMMANDS = {
    "train": ["train", *SHORT, "--no-doctor", "--quiet"],
    "doctor": ["doctor", "--prove", *SHORT],
    "predict": ["predict", RUN, "{input}"],
    "data": ["data", "blobs"],
    "show": ["show", *SHORT, "--set", 'data.augment=["noise"]'],
    "export": ["export", RUN],
    "export to a file": ["export", RUN, "--format", "safetensors"],
    "tensorboard": ["tensorboard", RUN],
    "gallery": ["gallery", "1"],
    "bench": ["bench", "small-mlp", "--peers", "ravine"],
}
OF_RUNS = {name for name, each in declarations().items() if each.of_runs}
COMMANDS |= {
    name: [name, *([RUN] if name in OF_RUNS else SHORT)]
    for name in declarations()
    if name not in ("ensemble", "compare")
}
COMMANDS["compare"] = ["compare", *SHORT, "--over", "optimizer.lr=0.1,0.01"]
COMMANDS["ensemble"] = ["ensemble", *SHORT]
OF_STUDIES = ("folder", "link-to-folder", "below a file")  # they share their place; lr tries all
FOLDER_IS_FINE = ("data", "show")  # they write a new file into it


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("places")
    # in a process of its own: SQLite moves a journal into the file when the last that writes lets go of it
    train = [sys.executable, "-m", "ravine", *COMMANDS["train"], "--out", str(place / "run")]
    subprocess.run(train, check=True, capture_output=True)
    (place / "new.csv").write_text("1,2\n")
    return place


def places(folder: Path) -> dict[str, Path]:
    """What may lie where something is to be written, none of which may be written to."""
    outside = folder / "outside"
    outside.mkdir()
    (outside / "file.csv").write_text("mine")
    (outside / "empty").mkdir()
    there = folder / "there"
    there.mkdir()
    (there / "file.csv").write_text("mine")
    (there / "folder").mkdir()
    (there / "folder" / "file.csv").write_text("mine")
    (there / "link").symlink_to(outside / "file.csv")
    (there / "link-to-folder").symlink_to(outside / "empty")
    (there / "link-to-nothing").symlink_to(outside / "none")
    os.mkfifo(there / "pipe")
    found = {path.name: path for path in there.iterdir()}
    found["below a file"] = there / "file.csv" / "x"
    found["below a link to nothing"] = there / "link-to-nothing" / "x"
    found["a device"] = Path("/dev/full")
    found["a name of 300 letters"] = there / ("x" * 300)
    found["in a folder that takes nothing"] = Path("/proc/x")
    return found


def state(folder: Path) -> dict[str, str]:
    """Everything under a folder, without following links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.startswith("metrics.sqlite-"):  # SQLite's, while a command reads the run
            continue
        kind = "link" if path.is_symlink() else "file" if path.is_file() else "other"
        content = hashlib.sha256(path.read_bytes()).hexdigest() if kind == "file" else ""
        found[str(path.relative_to(folder))] = f"{kind} {content}"
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    command, run, tmp_path, monkeypatch
):
    wrong = []
    arguments = [each.format(run=run / "run", input=run / "new.csv") for each in COMMANDS[command]]
    if command in OF_RUNS:  # a study of runs must not begin: it would train
        monkeypatch.setattr("ravine.study.directory.Study.begin", None)
    monkeypatch.setattr("ravine.engine.loop.loop.TrainingLoop.run", None)
    found = places(tmp_path)
    before = {**state(tmp_path), **state(run)}
    monkeypatch.chdir(tmp_path)
    for name, place in found.items():
        if command in declarations() and command != "lr" and name not in OF_STUDIES:
            continue
        if command in FOLDER_IS_FINE and name in ("folder", "link-to-folder"):
            continue
        done = CliRunner().invoke(app, [*arguments, "--out", str(place)])
        lines = done.output.strip().splitlines()
        if done.exit_code != 2 or len(lines) != 1 or not lines[0].startswith("ravine: "):
            wrong.append(f"{name}: {done.exit_code} {done.output[-300:]} {done.exception!r}")
        after = {**state(tmp_path), **state(run)}
        if after != before:
            changed = [place for place, _ in set(after.items()) ^ set(before.items())]
            wrong.append(f"{name}: {changed} changed")
            break
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "name", ["../outside/file", "/tmp/ravine-other", "a/b", "x" * 300, "..", "a\nb"]
)
def test_a_recipes_name_leads_to_no_other_folder(name, tmp_path, monkeypatch):
    """Recipes come from anywhere; a picture of one called ../x was written beside the working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = CliRunner().invoke(
        app, ["show", *COMMANDS["show"][1:], "--set", f"name={json.dumps(name)}"]
    )
    assert done.exit_code == 0, done.output
    assert [path.parent for path in tmp_path.glob("**/*.png")] == [tmp_path / "here"]
    place = consult_place(name, monkeypatch)
    assert place.parent == Path()
    assert len(place.name) < 200


def consult_place(name: str, monkeypatch) -> Path:
    """Where ``doctor --prove`` would write the cured recipe."""
    asked = []

    def new_file(path, *_):
        asked.append(path)
        raise InputError("--out", got="enough")

    monkeypatch.setattr("ravine.app.doctor.new_file", new_file)
    CliRunner().invoke(app, ["doctor", "--prove", *SHORT, "--set", f"name={json.dumps(name)}"])
    return asked[0]


@pytest.mark.parametrize("form", ["safetensors", "torch"])
@pytest.mark.parametrize("alone", [False, True])
def test_an_export_that_fails_leaves_nothing(form, alone, run, tmp_path, monkeypatch):
    """Also where what was written is whole but for the last step."""
    ending = {"safetensors": ".safetensors", "torch": ".pt2"}[form]
    place = tmp_path / (f"net{ending}" if alone else "net")
    monkeypatch.setattr("ravine.storage.files.sync", full)
    monkeypatch.setattr("ravine.rundir.rundir.sync", full)
    done = CliRunner().invoke(
        app, ["export", str(run / "run"), "--format", form, "--out", str(place)]
    )
    assert done.exit_code == 1, done.output
    assert done.output.strip() == "ravine: the disk is full"
    assert not list(tmp_path.iterdir())


def full(*_) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_results_go_where_earlier_ones_are(tmp_path):
    """Of the gallery and the benchmarks: a folder of anybody else's is not written to."""
    (tmp_path / "results.json").write_text('{"items": []}')
    assert files.own_directory(tmp_path, "results.json", "items") == tmp_path
    for content in ("[]", "{}", "items", "", '{"items": 1}', "[" * 100_000):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(InputError, match="a new or empty directory"):
            files.own_directory(tmp_path, "results.json", "items")


def test_logs_that_cannot_be_written_are_an_error(run, tmp_path, monkeypatch):
    """A tracker that fails ends no training; of the command that only writes logs nothing was left, silently."""
    monkeypatch.setattr("ravine.interop.tensorboard._Logs.numbers", full)
    done = CliRunner().invoke(
        app, ["tensorboard", str(run / "run"), "--out", str(tmp_path / "logs")]
    )
    assert done.exit_code == 1
    assert "No space left" in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_of_two_that_write_one_new_file_one_is_refused(tmp_path, monkeypatch, links):
    """Both have found the name free before; on a disk with links and without."""
    if not links:
        monkeypatch.setattr(files.os, "link", refuse_links)
    place = tmp_path / "out.csv"

    def late():
        with files.atomic(place, new=True) as partial:
            partial.write_text("late")
            files.write_text(place, "first", new=True)

    with pytest.raises(InputError, match="a file that does not exist yet"):
        late()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.csv": "first"}


def refuse_links(*_):
    raise PermissionError("no links")
