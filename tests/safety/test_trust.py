"""A run directory of a stranger, and one that was damaged: nothing outside it is touched, nothing changes
silently."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.engine import snapshot
from ravine.engine.loop import kept_weights, loop
from ravine.errors import InputError, RavineError
from ravine.rundir import RunDir, mark, measurements
from ravine.rundir.measurements import Measurements
from ravine.storage import files

BROKEN = kept_weights.Weights.broken


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run of a table, with its data beside it."""
    place = tmp_path_factory.mktemp("trust")
    draw = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yn'[int(a > b)]}" for a, b in draw.random((90, 2))]
    (place / "t.csv").write_text("\n".join(["a,b,target", *rows]), encoding="utf-8")
    recipe = ravine.Recipe(
        data={"source": {"kind": "csv", "path": str(place / "t.csv")}, "batch": 16},
        model={"kind": "mlp", "hidden": [4]},
        stop={"after": "3ep"},
    )
    ravine.train(recipe, out=place / "run", quiet=True, doctor=False, baselines=False)
    return place


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run, as a stranger could hand it on."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def resigned(place: Path, change) -> None:
    """Change what a directory says, with a right sha256: all but the mark can be forged."""
    file = place / ("manifest.json" if (place / "manifest.json").exists() else "recipe.json")
    body = json.loads(file.read_text())
    digest, own = body.pop("sha256"), body.pop("mark", None)
    change(body)
    text = json.dumps(body, sort_keys=True)
    new = hashlib.sha256(text.encode()).hexdigest()
    assert new != digest
    file.write_text(json.dumps(body | {"sha256": new} | ({} if own is None else {"mark": own})))


def edited_rate(body) -> None:
    for one in (*body["recipes"], *body["explicit"]):
        one.setdefault("optimizer", {"kind": "adam"})["lr"] = 0.5


# --- links and special files ----------------------------------------------------------------------

TRAPS = {
    "a snapshot that is a link": lambda run, out: link(final(run), out),
    "a folder of snapshots": lambda run, out: link(run / "snapshots", out),
    "the draft of the report": lambda run, out: link(run / "report.draft", out / "precious"),
    "the report": lambda run, out: link(run / "report.html", out / "precious"),
    "the lock": lambda run, out: link(run / ".writer", out / "precious"),
    "the lock's number": lambda run, out: link(run / ".writer-process", out / "precious"),
    "the measurements": lambda run, out: link(run / "metrics.sqlite", out / "precious"),
    "their log": lambda run, out: link(run / "metrics.sqlite-wal", out / "precious"),
    "the recipe": lambda run, out: link(run / "recipe.json", out / "precious"),
    "a pipe": lambda run, out: pipe(run / "metrics.sqlite"),
    "a pipe for the recipe": lambda run, out: pipe(run / "recipe.json"),
    "a pipe for a manifest": lambda run, out: pipe(final(run) / "manifest.json"),
    "a second name": lambda run, out: second(run / ".writer-process", out / "precious"),
    "a journal": lambda run, out: journal(run / "metrics.sqlite-journal", out / "precious"),
    "a file for a folder": lambda run, out: second(run / "final", out / "precious"),
    "a folder for a file": lambda run, out: folder(run / ".writer"),
}


def final(run: Path) -> Path:
    return next((run / "final").glob("*/*/step-*"))


def link(place: Path, to: Path) -> None:
    clear(place)
    place.symlink_to(to)


def pipe(place: Path) -> None:
    clear(place)
    os.mkfifo(place)


def folder(place: Path) -> None:
    clear(place)
    place.mkdir()


def journal(place: Path, of: Path) -> None:
    """A journal of an interrupted transaction over several databases: SQLite deletes the file it names."""
    name, magic = os.fsencode(of), bytes.fromhex("d9d505f920a163d7")
    head = magic + struct.pack(">iIIII", -1, 1, 1, 512, 1024).ljust(504, b"\0")
    place.write_bytes(head + name + struct.pack(">II", len(name), sum(name)) + magic)


def second(place: Path, of: Path) -> None:
    clear(place)
    os.link(of, place)


def clear(place: Path) -> None:
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)


REFUSED = (
    r"a link|a device, a pipe or a socket|a second name|a journal|a f\w+ in the place|a folder"
)


@pytest.mark.parametrize("trap", TRAPS)
def test_links_and_special_files_are_refused_and_nothing_outside_is_touched(run, tmp_path, trap):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("keep me")
    TRAPS[trap](run, tmp_path / "outside")
    for act in (
        lambda: ravine.resume(run, after="4ep", quiet=True),
        lambda: ravine.Run(run),
        lambda: RunDir.open(run),
    ):
        with pytest.raises(RavineError, match=REFUSED):
            act()
    assert [p.name for p in (tmp_path / "outside").iterdir()] == ["precious"]
    assert (tmp_path / "outside" / "precious").read_text() == "keep me"


def test_a_manifest_names_a_plain_file_beside_it(run, tmp_path):
    place = final(run)
    held = next(place.glob("arrays-*"))
    (tmp_path / held.name).write_bytes(held.read_bytes())
    for name in (
        f"../../../../../{held.name}",
        str(tmp_path / held.name),
        "manifest.json",
        3,
        None,
    ):
        resigned(place, lambda body, name=name: body.update(file=name))
        with pytest.raises(RavineError, match="not of a form that Ravine writes"):
            snapshot.read(place)


# --- whose run it is ------------------------------------------------------------------------------


def strange(monkeypatch, key: bytes = b"x" * 32) -> None:
    """From here on this is another person's machine."""
    monkeypatch.setattr(mark, "_key", lambda: key)


@pytest.mark.parametrize("key", [b"x" * 32, b""])
def test_a_strangers_run_reads_no_file_unless_it_is_trusted(run, monkeypatch, key):
    strange(monkeypatch, key)
    for act in (
        lambda **how: ravine.resume(run, after="4ep", quiet=True, **how),
        lambda **how: ravine.Run(run).evaluate(),
        lambda **how: ravine.advise(ravine.Run(run), out=run.parent / "advice", quiet=True),
    ):
        with pytest.raises(InputError, match=r"not made here, and that would read .*t\.csv"):
            act()
    assert ravine.Run(run).predict(np.array([[0.1, 0.2]])).shape == (1,)  # needs no data
    (ended,) = ravine.resume(run, after="4ep", quiet=True, trust=True)
    assert ended.result["epochs"] == 4
    assert not RunDir.open(run).made_here  # trusting it once does not make it one's own


def test_a_run_made_here_needs_no_trust(run):
    with RunDir.open(run) as opened:
        assert opened.made_here
    assert ravine.Run(run).evaluate()["loss"] > 0


# --- silent change --------------------------------------------------------------------------------


def test_an_edited_rate_is_refused(run, monkeypatch):
    text = (run / "recipe.json").read_text()
    about = json.loads(text)
    edited_rate(about)
    (run / "recipe.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"recipe\.json is not what was written"):
        ravine.resume(run, after="4ep", quiet=True)
    (run / "recipe.json").write_text(text)
    resigned(run, edited_rate)
    with pytest.raises(RavineError, match="another recipe than the run's"):
        ravine.resume(run, after="4ep", quiet=True, trust=True)


def test_other_data_under_the_same_name_are_refused(trained, tmp_path):
    """All labels inverted: every statistic of the inputs is the same."""
    table = tmp_path / "t.csv"
    text = (trained / "t.csv").read_text()
    table.write_text(text)
    recipe = ravine.Recipe(
        data={"source": {"kind": "csv", "path": str(table)}}, stop={"after": "1ep"}
    )
    ravine.train(recipe, out=tmp_path / "run", quiet=True, doctor=False, baselines=False)
    ravine.resume(tmp_path / "run", after="2ep", quiet=True)
    head, _, rows = text.partition("\n")
    table.write_text(head + "\n" + rows.translate(str.maketrans("yn", "ny")))
    with pytest.raises(InputError, match="data that differ"):
        ravine.resume(tmp_path / "run", after="3ep", quiet=True)
    shutil.rmtree(tmp_path / "run" / "data" / "program-0")  # so that nothing could be compared
    with pytest.raises(InputError, match="expected what the run noted of its data"):
        ravine.resume(tmp_path / "run", after="3ep", quiet=True)


def read_all(place: Path) -> object:
    """All that a run says, or None where it is refused."""
    try:
        with RunDir.open(place) as run:
            rows = [
                run.steps(0).tolist(),
                run.epochs(clock=True),
                run.events(),
                run.result(0),
                run.done,
            ]
            return json.dumps([rows, [r.to_dict() for r in run.recipes], run.facts], default=str)
    except RavineError:
        return None


def flips(place: Path, file: str, every: int, seed: int) -> tuple[int, int, list[int]]:
    """Bit flips in a file: how many were tried, how many were refused, and where one changed what is
    read without a word."""
    sound, data = read_all(place), bytearray((place / file).read_bytes())
    tried, refused, silent = 0, 0, []
    draw = np.random.default_rng(seed)
    for at in range(int(draw.integers(every)), len(data), every):
        bit = 1 << int(draw.integers(8))
        data[at] ^= bit
        (place / file).write_bytes(bytes(data))
        for left in ("-wal", "-shm"):
            (place / (file + left)).unlink(missing_ok=True)
        found = read_all(place)
        tried, refused = tried + 1, refused + (found is None)
        if found is not None and found != sound:
            silent.append(at)
        data[at] ^= bit
    (place / file).write_bytes(bytes(data))
    return tried, refused, silent


@pytest.mark.parametrize(("file", "every"), [("recipe.json", 101), ("metrics.sqlite", 401)])
def test_a_flipped_bit_changes_nothing_silently(run, file, every):
    tried, refused, silent = flips(run, file, every, 0)
    assert not silent
    assert refused > tried // 50


@pytest.mark.slow
@pytest.mark.parametrize(("file", "every"), [("recipe.json", 2), ("metrics.sqlite", 23)])
def test_no_flipped_bit_changes_anything_silently(run, file, every):
    tried, refused, silent = flips(run, file, every, 1)
    print(f"bit flips of {file}: {tried} tried, {refused} refused, {len(silent)} silent")
    assert not silent


FORGED = {
    "a view": "DROP TABLE losses; CREATE VIEW losses AS WITH RECURSIVE n(member, chunk, losses) AS "
    "(SELECT 0, 0, x'' UNION ALL SELECT 0, chunk + 1, x'' FROM n) SELECT * FROM n",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM losses; END",
    "another table": "CREATE TABLE more (a)",
    "no table": "DROP TABLE results",
    "a text for losses": "UPDATE losses SET losses = 'text'",
    "a huge chunk": "UPDATE losses SET chunk = 1000000000000",
    "a text for an epoch": "UPDATE metrics SET epoch = 'a'",
    "deep data": "UPDATE events SET data = '" + "[" * 100_000 + "'",
    "a deep result": "UPDATE results SET result = '" + '{"a":' * 5000 + "'",
    "a result that is a list": "UPDATE results SET result = '[]'",
    "another format": "PRAGMA user_version = 77",
}


@pytest.mark.parametrize("change", FORGED)
def test_forged_measurements_are_refused(run, change):
    with sqlite3.connect(run / "metrics.sqlite") as database:
        database.executescript(FORGED[change])
    database.close()
    with pytest.raises(RavineError), RunDir.open(run) as opened:
        opened.steps(0), opened.epochs(), opened.events(), opened.result(0)


def test_what_is_far_longer_than_any_row_is_not_read(run, monkeypatch):
    """900 MB of losses once took twice that memory and half a minute before they were refused."""
    with sqlite3.connect(run / "metrics.sqlite") as database:
        database.execute("UPDATE losses SET losses = zeroblob(2000000)")
    database.close()
    monkeypatch.setattr(measurements, "_LONGEST", 1_000_000)
    with pytest.raises(InputError, match="too big"), RunDir.open(run) as opened:
        opened.steps(0)


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
def test_a_disk_that_takes_nothing_makes_no_damaged_run(run):
    """SQLite makes a file beside the rows even to read them."""
    code = "import resource, signal, sys; from ravine.rundir import RunDir\n"
    code += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    code += f"from ravine.app.guard import guarded\nwith guarded(False): RunDir.open({str(run)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the disk does not answer" in done.stderr
    assert "intact" not in done.stderr
    with RunDir.open(run) as opened:
        assert opened.state == "finished"


# --- an older snapshot is used aloud --------------------------------------------------------------


class Stopped(Exception):
    """What ends training in the middle."""


def interrupted(place: Path, after: int = 40) -> None:
    """A run that was killed after so many saves of its state."""
    recipe = ravine.Recipe(data={"batch": 128}, model={"kind": "mlp", "hidden": [4]}, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        saves = []
        save = loop.TrainingLoop.save

        def counted(self):
            save(self)
            saves.append(self.step)
            if len(saves) == after:
                raise Stopped

        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        patch.setattr(loop.TrainingLoop, "save", counted)
        with pytest.raises(Stopped):
            ravine.train(recipe, out=place, quiet=True, doctor=False)


def test_an_older_snapshot_is_used_aloud(tmp_path):
    interrupted(tmp_path / "run", after=5)
    with RunDir.open(tmp_path / "run") as opened:
        newest, older = opened.latest_snapshots(0)
    held = next(newest.glob("arrays-*"))
    data = bytearray(held.read_bytes())
    data[-1] ^= 1
    held.write_bytes(bytes(data))
    with pytest.warns(
        UserWarning, match=rf"{older.name}: an older snapshot is used.*{newest.name}"
    ):
        (run,) = ravine.resume(tmp_path / "run", quiet=True)
    assert "an older snapshot is used" in run.events_of("snapshot")[0]["text"]


# --- nothing stays open ---------------------------------------------------------------------------


def test_a_run_leaves_nothing_open_and_another_process_may_go_on(tmp_path):
    def opened() -> list[str]:
        found = []
        for place in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(place))
        return [name for name in found if ".writer" in name]

    runs = [
        ravine.train(data="blobs", epochs=1, out=tmp_path / f"r{n}", quiet=True) for n in range(3)
    ]
    assert opened() == []
    code = f"import ravine; ravine.resume({str(tmp_path / 'r0')!r}, after='2ep', quiet=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert runs[0].result["epochs"] == 2


# --- a disk that is full or fails -----------------------------------------------------------------

FAILING = ["ENOSPC", "EDQUOT", "EIO", "EROFS", "EFBIG"]


class Disk:
    """A disk on which the operations ``from_`` to ``to`` of writing fail."""

    def __init__(self, monkeypatch, code: str, from_: int, to: float):
        self.count, self.number = 0, getattr(errno, code)
        save, write, fsync = snapshot.save_file, files.atomic.__enter__, os.fsync

        def failing(function):
            def call(*given, **named):
                self.count += 1
                if from_ <= self.count < to:
                    raise OSError(self.number, os.strerror(self.number), "somewhere")
                return function(*given, **named)

            return call

        monkeypatch.setattr(snapshot, "save_file", failing(save))
        monkeypatch.setattr(files.atomic, "__enter__", failing(write))
        monkeypatch.setattr(os, "fsync", failing(fsync))
        rows = Measurements._write
        monkeypatch.setattr(Measurements, "_write", failing(rows))


DIGITS = {"data": {"batch": 256}, "model": {"kind": "mlp", "hidden": [4]}, "threads": 1}


@pytest.mark.parametrize("code", FAILING)
def test_a_disk_that_fails_for_a_while_costs_a_warning(tmp_path, monkeypatch, code):
    recipe = ravine.Recipe(**DIGITS, stop={"after": "4ep"})
    whole = ravine.train(recipe, out=tmp_path / "whole", quiet=True, doctor=False)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        disk = Disk(patch, code, 60, 80)
        with pytest.warns(UserWarning, match="training goes on, the last snapshot is kept"):
            run = ravine.train(recipe, out=tmp_path / "run", quiet=True, doctor=False)
    assert disk.count > 80
    assert run.losses.tolist() == whole.losses.tolist()
    assert run.metrics.equals(whole.metrics)
    assert run.slots["theta"].equal(whole.slots["theta"])


def test_a_disk_that_stays_full_keeps_the_last_snapshot(tmp_path, monkeypatch):
    recipe = ravine.Recipe(**DIGITS, stop={"after": "4ep"})
    whole = ravine.train(recipe, out=tmp_path / "whole", quiet=True, doctor=False)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        Disk(patch, "ENOSPC", 60, 1e9)
        with (
            pytest.warns(UserWarning, match="the disk is full"),
            pytest.raises(
                RavineError, match=r"the last snapshot is whole: make room, then ravine resume"
            ),
        ):
            ravine.train(recipe, out=tmp_path / "run", quiet=True, doctor=False)
    (run,) = ravine.resume(tmp_path / "run", quiet=True)
    assert run.losses.tolist() == whole.losses.tolist()
    assert run.slots["theta"].equal(whole.slots["theta"])


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Disk(monkeypatch, "ENOSPC", 1, 1e9)
    for line in (
        ["train", "--set", "data.source=blobs", "--epochs", "1", "--out", "run", "--quiet"],
        ["lr", "--set", "data.source=blobs", "--epochs", "1", "--out", "study"],
    ):
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 1, done.output
        assert "ravine: the disk is full" in done.output
        assert "Traceback" not in done.output
    assert [p.name for p in tmp_path.rglob("*") if p.is_file() and p.name[:7] != ".writer"] == []


def test_too_little_room_is_said_at_the_start(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.warns(UserWarning, match=r"needs about .* and 100 bytes are free"):
        ravine.train(data="blobs", epochs=1, out=tmp_path / "run", quiet=True, doctor=False)


# --- old runs, and what is refused before anything is made ----------------------------------------

OLD = sorted((Path(__file__).parent / "old_runs").iterdir())


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.name)
def test_a_run_of_every_form_opens(tmp_path, old):
    """Form 1 was written at commit 5b0b5a9, form 2 signs recipe.json and the measurements."""
    shutil.copytree(old, tmp_path / "run")
    run = ravine.Run(tmp_path / "run")
    assert run.result["test_accuracy"] == 0.585
    assert run.predict(np.zeros((2, 2))).shape == (2,)
    assert len(run.losses) == 12
    said = "begun by an earlier version" if old.name == "form-1" else None
    with pytest.warns(UserWarning, match=said) if said else contextlib.nullcontext():
        (longer,) = ravine.resume(tmp_path / "run", after="3ep", quiet=True)
    fresh = ravine.train(
        run.recipe.edit({"stop.after": "3ep"}), out=tmp_path / "fresh", quiet=True, doctor=False
    )
    assert longer.losses.tolist() == pytest.approx(fresh.losses.tolist(), rel=1e-5)
    assert len(longer.losses) == 18
    assert longer.losses[:12].tolist() == run.losses[:12].tolist()


def test_slots_are_a_members_own(tmp_path):
    """Where a member would go back to is not a slot, though it may have as many rows."""
    recipe = ravine.Recipe(
        data={"source": "blobs"},
        model="softmax",
        stop={"after": "2ep", "on_trouble": "rollback"},
    )
    run = ravine.train(recipe, out=tmp_path / "run", quiet=True, doctor=False)
    assert not [name for name in run.slots if name.startswith(("good/", "epoch_"))]
    assert "theta" in run.slots


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--set", "threads=100000"], ["threads", "100000", "at most 1,024"]),
        (["--set", "model.hidden=[100000000000]"], ["model.1", "an array of", "fits into memory"]),
        (["--out", "taken/run"], ["taken"]),
        (["--out", "/proc/none/run"], ["/proc/none"]),
    ],
)
def test_what_can_be_refused_is_refused_before_anything_is_made(tmp_path, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    model = ["--set", "model=mlp", "--set", "data.source=digits", "--epochs", "1"]
    done = CliRunner().invoke(app, ["train", *model, *line, "--quiet"])
    assert done.exit_code in (1, 2), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    for word in words:
        assert word in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_interrupted_plan_is_not_shortened(tmp_path):
    """Its schedule has counted on the steps it had."""
    interrupted(tmp_path / "run", after=4)
    before = read_all(tmp_path / "run")
    with pytest.raises(InputError, match=r"--after: got '2ep'; expected no earlier end than"):
        ravine.resume(tmp_path / "run", after="2ep", quiet=True)
    assert read_all(tmp_path / "run") == before


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_directory_that_is_gone_is_noticed_at_the_next_block(tmp_path, monkeypatch, how):
    place, steps = tmp_path / "run", []
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 0.0)

    def gone(seen):
        steps.append(seen["step"])
        if len(steps) == 3:
            if how == "deleted":
                shutil.rmtree(place)
            else:
                place.rename(tmp_path / "elsewhere")
            if how == "replaced":
                shutil.copytree(tmp_path / "elsewhere", place)

    with pytest.raises(RavineError, match="the run directory was deleted or moved"):
        ravine.train(data="blobs", epochs=30, out=place, quiet=True, doctor=False, on_step=gone)
    assert len(steps) <= 6
    assert how == "replaced" or not place.exists()


def test_an_average_that_broke_is_reported_once(tmp_path):
    recipe = ravine.Recipe(
        data={"source": "blobs", "batch": 64},
        model="softmax",
        stop={"after": "3ep"},
        average={"ema": 0.9},
    )

    def broken(self, rows):
        self.stepper.average[:, 0] = float("nan")
        return BROKEN(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_weights.Weights, "broken", broken)
        with pytest.warns(UserWarning, match="the average of the weights has NaN or infinity"):
            run = ravine.train(recipe, out=tmp_path / "run", quiet=True, doctor=False)
    (event,) = run.events_of("average")
    assert event["member"] == 0
    assert "train without it" in event["text"]
    whole = ravine.train(recipe, out=tmp_path / "whole", quiet=True, doctor=False)
    assert not whole.events_of("average")


def test_a_key_is_made_once_in_a_folder_that_is_there_already(tmp_path, monkeypatch):
    monkeypatch.setattr(mark, "user_data_path", lambda name: tmp_path)
    made = mark._key.__wrapped__()
    assert len(made) == 32
    assert mark._key.__wrapped__() == made
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]
    if os.name != "nt":
        assert (tmp_path / "mark").stat().st_mode & 0o077 == 0
