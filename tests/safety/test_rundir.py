import errno
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stored
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.rundir import CHUNK, RunDir, environment, measurements
from ravine.rundir.rundir import check_facts
from ravine.storage import locks


def recipes(n=3):
    return [
        Recipe(name="a name / with ümlauts", seed=seed, optimizer={"kind": "adam", "lr": 0.1})
        for seed in range(n)
    ]


@pytest.fixture
def run(tmp_path):
    return RunDir.create(tmp_path / "run", recipes(), facts={})


def contents(path):
    """Every row of every table, as a person with sqlite3 would compare two runs; clock times
    apart."""
    with sqlite3.connect(path / "metrics.sqlite") as database:
        tables = ("losses", "metrics", "events", "results")
        return {
            t: [row[t == "events" :] for row in database.execute(f"SELECT * FROM {t}")]
            for t in tables
        }


def test_what_is_created_is_what_opens(tmp_path):
    place = tmp_path / "new" / "folders" / "run"
    made = RunDir.create(place, recipes(), facts={"threads": 2, "shape": [1, 28]})
    opened = RunDir.open(place)
    assert opened.recipes == made.recipes == recipes()
    assert [r.to_toml() for r in opened.recipes] == [r.to_toml() for r in recipes()]
    assert opened.facts == made.facts
    assert opened.facts["threads"] == 2
    assert opened.facts["shape"] == [1, 28]
    assert opened.facts["versions"]["numpy"] == np.__version__
    assert opened.created == made.created
    assert environment()["machine"]["cores"] == os.cpu_count()


def test_a_default_that_changed_since_is_kept_as_it_was(tmp_path):
    RunDir.create(tmp_path / "run", recipes(1), facts={})
    # as if 64 had been the default then
    stored.edit(tmp_path / "run", lambda about: about["recipes"][0]["data"].update(batch=64))
    assert RunDir.open(tmp_path / "run").recipes[0].data.batch == 64


def test_without_a_path_each_run_gets_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [RunDir.create(None, recipes(1), facts={}).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(
        path.parent == Path("runs") and path.name.startswith("a-name-with-mlauts-2")
        for path in paths
    )


def test_the_database_is_checked_where_nobody_writes_it(run, monkeypatch):
    checked = []
    monkeypatch.setattr("ravine.rundir.rundir.check_pages", lambda _, path: checked.append(path))
    RunDir.open(run.path).close()
    assert checked == [], "pages change while they are written"
    run.close()
    RunDir.open(run.path).close()
    assert checked == [run.path]


@pytest.mark.parametrize("programs", [[1], {}, "ab"])
def test_programs_are_a_list_of_tables(programs):
    with pytest.raises(ValueError, match="its programs are no tables"):
        check_facts({"recipes": [{}], "explicit": [{}], "facts": {"programs": programs}})


def fill(path, content):
    path.mkdir(parents=True)
    (path / "file").write_text(content)
    return path


def broken(run, name, content):
    run.close()
    (run.path / name).write_bytes(content) if content is not None else (run.path / name).unlink()
    return run.path


BAD = [
    (
        "taken",
        lambda t, r: RunDir.create(fill(t / "d", "x"), recipes(), facts={}),
        "new or empty.*ravine resume",
    ),
    ("again", lambda t, r: RunDir.create(r.path, recipes(), facts={}), "new or empty"),
    (
        "file",
        lambda t, r: RunDir.create(r.path / "recipe.json", recipes(), facts={}),
        "a place for a new directory",
    ),
    ("nothing", lambda t, r: RunDir.create(t / "new", [], facts={}), "at least one recipe"),
    ("absent", lambda t, r: RunDir.open(t / "absent"), "no recipe.json"),
    ("foreign", lambda t, r: RunDir.open(fill(t / "d", "x")), "no recipe.json"),
    ("no json", lambda t, r: RunDir.open(broken(r, "recipe.json", b"{")), "recipe.json:"),
    (
        "a list",
        lambda t, r: RunDir.open(broken(r, "recipe.json", b"[]")),
        "recipe.json is not of a form",
    ),
    (
        "format",
        lambda t, r: RunDir.open(broken(r, "recipe.json", b'{"format": 0}')),
        "recipe.json is not of a form",
    ),
    (
        "no table",
        lambda t, r: RunDir.open(broken(r, "metrics.sqlite", None)),
        "metrics.sqlite is missing",
    ),
    (
        "no sqlite",
        lambda t, r: RunDir.open(broken(r, "metrics.sqlite", b"x" * 5000)),
        "not a database",
    ),
    ("empty", lambda t, r: RunDir.open(broken(r, "metrics.sqlite", b"")), "has format 0"),
    ("members", lambda t, r: r.set_recipes(recipes(2)), "got 2; expected 3"),
]


@pytest.mark.parametrize(("act", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_directories_are_input_errors(tmp_path, run, act, message):
    with pytest.raises(InputError, match=message):
        act(tmp_path, run)


def test_an_empty_directory_may_be_used(tmp_path):
    (tmp_path / "made").mkdir()
    assert RunDir.create(tmp_path / "made", recipes(1), facts={}).path == tmp_path / "made"


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 900), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_losses_return_exactly_however_they_were_cut(tmp_path_factory, sizes, seed):
    n = sum(sizes)
    losses = np.random.default_rng(seed).normal(size=(n, 2))
    losses[n // 2, 0] = np.nan
    runs = [
        RunDir.create(tmp_path_factory.mktemp("run") / "r", recipes(), facts={}) for _ in range(2)
    ]
    runs[0].add_steps(0, [0, 2], losses)
    at = 0
    for size in sizes:
        runs[1].add_steps(at, [0, 2], losses[at : at + size])
        at += size
    np.testing.assert_array_equal(runs[1].steps(0), losses[:, 0])
    np.testing.assert_array_equal(runs[1].steps(2, start=n // 3), losses[n // 3 :, 1])
    assert len(runs[1].steps(1)) == 0
    assert runs[1].done == n
    assert contents(runs[0].path) == contents(runs[1].path)
    for run in runs:
        run.close()


def test_float32_losses_are_widened_and_gaps_are_nan(run):
    run.add_steps(700, [1], np.array([[0.1], [np.inf]], dtype=np.float32))
    losses = run.steps(1)
    assert len(losses) == 702
    assert np.isnan(losses[:700]).all()
    assert losses[700:].tolist() == [float(np.float32(0.1)), math.inf]


def test_epochs_are_one_wide_table(run):
    run.add_epochs([{"member": 1, "epoch": 0.5, "step": 5, "val_loss": math.nan, "seconds": 1.5}])
    run.add_epochs(
        [{"member": 0, "epoch": 1, "step": 10, "train_loss": 0.5, "lr": np.float32(0.25)}]
    )
    run.add_epochs([{"member": 0, "epoch": 1, "step": 10, "val_loss": 0.75}])
    rows = [
        {"member": 0, "epoch": 1, "step": 10, "lr": 0.25, "train_loss": 0.5, "val_loss": 0.75},
        {"member": 1, "epoch": 0.5, "step": 5, "val_loss": math.nan},
    ]
    assert run.epochs() == rows
    assert run.epochs(1) == rows[1:]
    assert run.metrics == ["lr", "train_loss", "val_loss"]
    assert [row["seconds"] for row in run.epochs(clock=True)] == [
        pytest.approx(math.nan, nan_ok=True),
        1.5,
    ]


def test_events_are_told_once_and_in_order(run):
    for _ in range(2):
        run.add_event(20, 1, "frozen", "loss is not finite", {"loss": "nan"})
        run.add_event(0, None, "execution", "one row at a time", {"why": [".item()"]})
    assert [(e["step"], e["member"], e["kind"]) for e in run.events()] == [
        (0, None, "execution"),
        (20, 1, "frozen"),
    ]
    assert run.events("execution")[0]["data"] == {"why": [".item()"]}
    assert [e["kind"] for e in run.events(member=1)] == ["frozen"]


def write_all(run, start, stop, members=(0, 1, 2), block=64):
    losses = np.random.default_rng(0).normal(size=(3000, 3))
    for first in range(start, stop, block):
        last = min(first + block, stop)
        run.add_steps(first, members, losses[first:last, list(members)])
        for step in range(first + 1, last + 1):
            if step % 100 == 0:
                rows = [
                    {"member": m, "epoch": step // 100, "step": step, "val_loss": losses[step, m]}
                    for m in members
                ]
                run.add_epochs(rows)
            if step % 300 == 0:
                run.add_event(step, None, "finding", f"at {step}")
                run.add_event(step, members[0], "finding", f"at {step}")
    for member in members:
        run.set_result(member, {"val_loss": losses[stop, member], "stopped": "after"})


@pytest.mark.parametrize("step", [0, 1, 299, 300, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 1200])
def test_truncated_and_written_again_is_equal(tmp_path, step):
    whole, again = (
        RunDir.create(tmp_path / name, recipes(), facts={}) for name in ("whole", "again")
    )
    write_all(whole, 0, 1200)
    write_all(again, 0, 1200, block=50)
    again.truncate(step, [0, 1, 2])
    assert again.done == step
    assert all(again.result(member) is None for member in range(3))
    assert all(row["step"] <= step for row in again.epochs() + again.events())
    write_all(again, step, 1200)
    assert contents(again.path) == contents(whole.path)


def test_truncating_some_members_leaves_the_others(run):
    write_all(run, 0, 1200)
    before = contents(run.path)
    run.truncate(301, [1])
    assert [len(run.steps(member)) for member in range(3)] == [1200, 301, 1200]
    assert [row["step"] for row in run.epochs(1)] == [100, 200, 300]
    assert len(run.epochs(0)) == 12
    assert run.result(1) is None
    assert [e["step"] for e in run.events() if e["member"] is None] == [300, 600, 900, 1200]
    write_all(run, 301, 1200, members=(1,))
    after = contents(run.path)
    assert [before[t] == after[t] for t in ("losses", "metrics", "results")] == [True, True, True]


def test_results_and_state(run):
    assert run.state == "running"
    run.set_result(0, {"val_loss": math.inf, "stopped": "patience"})
    assert run.result(0) == {"val_loss": math.inf, "stopped": "patience"}
    assert run.result(1) is None
    run.close()
    other = RunDir.open(run.path)
    assert other.state == "interrupted"
    other.set_result(1, {})
    other.set_result(2, {})
    assert other.state == "finished"


def test_snapshots_are_listed_newest_first(run):
    for step in (5, 1000, 30):
        run.snapshot_path(1, step).mkdir(parents=True)
    run.snapshot_path(0, 7).mkdir(parents=True)
    assert run.latest_snapshots(1) == [run.snapshot_path(1, step) for step in (1000, 30, 5)]
    assert run.latest_snapshots(2) == []
    for step in (8, 40):
        run.final_path(0, step).mkdir(parents=True)
    assert run.final_snapshots(0) == [run.final_path(0, 40), run.final_path(0, 8)]
    assert (
        len({run.data_path(0), run.data_path(1), run.final_path(0, 8), run.snapshot_path(0, 8)})
        == 4
    )


WRITER = """
import sys, numpy as np
from pathlib import Path
from ravine.recipe import Recipe
from ravine.rundir import RunDir
run = RunDir.create(Path(sys.argv[1]), [Recipe(seed=s) for s in range(3)], facts={})
for first in range(0, 10**7, 37):
    run.add_steps(first, [0, 1, 2], np.arange(first, first + 37)[:, None] + np.array([0.0, 0.25, 0.5]))
    run.add_epochs([{"member": m, "epoch": first, "step": first + 37, "val_loss": first} for m in range(3)])
    print(first + 37, flush=True)
"""


def start_writer(path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    return writer, int(writer.stdout.readline())


def test_after_a_kill_everything_told_is_there_and_truncate_repairs_it(tmp_path):
    for trial in range(3):
        path = tmp_path / str(trial)
        writer, first = start_writer(path)
        time.sleep(0.05 * trial + 0.013)
        os.kill(writer.pid, signal.SIGKILL)
        told = [first, *map(int, writer.communicate()[0].split())][-1]
        run = RunDir.open(path)
        assert run.done >= told
        for member in range(3):
            losses = run.steps(member)
            np.testing.assert_array_equal(losses, np.arange(len(losses)) + member / 4)
        run.truncate(told - 5, [0, 1, 2])
        assert [len(run.steps(member)) for member in range(3)] == [told - 5] * 3
        assert max(row["step"] for row in run.epochs()) <= told - 5
        assert run.state == "running"  # by this process now


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path):
    writer, told = start_writer(tmp_path / "run")
    try:
        run = RunDir.open(tmp_path / "run")
        assert run.state == "running"
        assert len(run.steps(0)) >= told
        run.add_event(0, None, "finding", "seen from outside")
        with pytest.raises(InputError, match=f"wait for process {writer.pid}"):
            run.truncate(0, [0])
    finally:
        writer.kill()
        writer.communicate()
    assert run.state == "interrupted"
    run.truncate(0, [0])


def test_a_run_on_a_disk_that_is_only_read_opens(run, monkeypatch):
    """A read-only disk stands as one that refuses every new file; a database with a log cannot be opened then."""
    run.add_steps(0, [1], np.ones((3, 1), dtype=np.float32))
    path, losses = run.path, run.steps(1)
    run.close()
    (path / ".writer").touch()
    before = sorted(path.iterdir())

    def refuse(self, timeout=0):
        raise OSError(errno.EROFS, "Read-only file system", str(path / ".writer"))

    monkeypatch.setattr(measurements.os, "access", lambda place, mode: False)
    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    with RunDir.open(path) as again:
        assert np.array_equal(again.steps(1), losses)
        assert sorted(path.iterdir()) == before
        with pytest.raises(OSError, match="Read-only"), again.begins_to_write():
            pass


def test_opening_imports_no_torch(run):
    code = "import sys, ravine.rundir as r; r.RunDir.open(sys.argv[1]).epochs(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)


@pytest.mark.parametrize("steps", [20, 21, 80])
def test_a_long_course_is_thinned_up_to_its_last_step(run, steps):
    run.add_epochs(
        [
            {"member": 1, "epoch": n / 4, "step": n, "seconds": 0.5, "loss": 1 / n}
            for n in range(1, steps + 1)
        ]
    )
    course = run.course(1, "loss", points=10)
    assert len(course) == (20 if steps == 20 else 10)
    assert course[[0, -1], 0].tolist() == [1, steps]
    np.testing.assert_allclose(course[:, 3], 1 / course[:, 0])
