"""Files that are written whole or not at all, plain JSON, places to write to, and the writer's lock."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.data.tables import file as table_file
from ravine.errors import InputError, first_line
from ravine.storage import bounded, files
from ravine.storage.locks import Lock

SOURCE = Path(ravine.__file__).parent


def test_json_calls_no_function_for_each_of_its_numbers(monkeypatch):
    """A body of seven million numbers held the page of predictions up for half a minute."""
    monkeypatch.delattr(bounded, "_whole")
    assert bounded.parse_json('{"x": [1, -2.5, 3e9, 0]}', "body") == {"x": [1, -2.5, 3e9, 0]}


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_whole_number_of_over_300_digits_is_refused(sign):
    assert bounded.parse_json(f"[{sign}{'9' * 300}]", "body") == [int(f"{sign}{'9' * 300}")]
    for text in (f"[{sign}{'9' * 301}]", f'["{"9" * 301}", [{sign}{"9" * 400}]]'):
        with pytest.raises(InputError, match="digits"):
            bounded.parse_json(text, "body")
    assert bounded.parse_json(f'["{"9" * 301}"]', "body") == ["9" * 301]


def test_memory_that_ends_without_a_word_is_one_line():
    assert str(files.trouble(MemoryError())).startswith("not enough memory: a smaller")


def test_more_bytes_than_are_counted_are_not_enough_memory():
    for make in (
        lambda: torch.nn.Linear(64, 10**18),
        lambda: torch.empty(10**30),
        lambda: np.empty((10**18, 64)),
        lambda: np.empty(10**30),
    ):
        with pytest.raises((RuntimeError, ValueError, OverflowError, TypeError)) as caught:
            make()
        assert "not enough memory" in str(files.trouble(caught.value)), caught.value


def test_a_file_is_written_whole(tmp_path):
    place = tmp_path / "new" / "a.txt"
    files.write_text(place, "first")
    files.write_text(place, "second")
    assert place.read_text(encoding="utf-8") == "second"
    assert [path.name for path in place.parent.iterdir()] == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(place.stat().st_mode) == 0o666 & ~mask  # as any other file


def test_a_failure_leaves_what_was_there(tmp_path):
    place = tmp_path / "a.txt"
    files.write_text(place, "first")
    with pytest.raises(KeyboardInterrupt), files.atomic(place) as partial:  # noqa: PT012
        partial.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert place.read_text(encoding="utf-8") == "first"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("last", ["fsync", "replace"])
def test_a_failure_of_the_last_step_leaves_what_was_there(last, tmp_path, monkeypatch):
    """A disk that does not take the file left a hidden one behind, among the figures of a study for example."""
    place = tmp_path / "a.txt"
    files.write_text(place, "first")

    def fails(*_):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, last, fails)
    with pytest.raises(OSError, match="read-only"):
        files.write_text(place, "second")
    assert place.read_text(encoding="utf-8") == "first"
    assert list(tmp_path.iterdir()) == [place]


def test_the_file_is_on_the_disk_before_its_name_and_the_name_after(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: (done.append(os.fstat(h).st_mode), fsync(h)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("move"), replace(a, b)))
    files.write_text(tmp_path / "a.txt", "all")
    assert [step == "move" or stat.S_IFMT(step) for step in done] == [
        stat.S_IFREG,
        True,
        stat.S_IFDIR,
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.nan, torch.tensor(math.nan)])
def test_json_has_no_nan(value):
    text = files.to_json({"a": [value, (1, value)], "b": np.array([1.0, value]), 3: np.int64(2)})
    assert json.loads(text) == {"a": [None, [1, None]], "b": [1.0, None], "3": 2}


def test_a_new_file_and_a_new_directory(tmp_path):
    assert files.new_file(tmp_path / "a") == tmp_path / "a"
    assert files.new_directory(tmp_path / "none") == tmp_path / "none"
    (tmp_path / "a").write_text("x")
    with pytest.raises(InputError, match=r"--out.*does not exist yet; name another with --out"):
        files.new_file(tmp_path / "a")
    with pytest.raises(InputError, match=r"existing directory; make .*none first"):
        files.new_file(tmp_path / "none" / "a")
    with pytest.raises(InputError, match="a new or empty directory; name another"):
        files.new_directory(tmp_path)
    with pytest.raises(InputError, match="a place for a new directory"):
        files.new_directory(tmp_path / "a")


@pytest.mark.parametrize(
    ("pattern", "home"),
    [
        (r"os\.replace\(|\.replace\((out|path|place)\)|mkstemp", "storage/files.py"),
        (r"allow_nan", "storage/files.py"),
        (r"a file that does not exist yet|a new or empty directory", "storage/files.py"),
        (r"splitlines\(\)\[0\]|lines\[0\]\[:", "errors.py"),
        (r"\bfcntl\b", "storage/locks.py"),
        (r"rich\.console|import.*TextColumn|from_markup", "terminal.py"),
    ],
)
def test_each_has_one_home(pattern, home):
    found = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"))
    ]
    assert set(found) <= {home}


# --- the first line of an error's text ------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (AssertionError(), "AssertionError"),
        (ValueError("  \n \n"), "ValueError"),
        (ValueError("\n one \n two"), "one "),
        (RuntimeError("x" * 500), "x" * 200),
    ],
)
def test_the_first_line(error, text):
    assert first_line(error) == text


class Bare(torch.nn.Module):
    """A module that refuses batches under vmap, without a word."""

    def __init__(self, whatever: bool):
        super().__init__()
        self.dense, self.whatever = torch.nn.Linear(4, 2), whatever

    def forward(self, x):
        assert not self.whatever
        assert not torch._C._functorch.is_batchedtensor(x)
        return self.dense(x)


def _arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64")


def test_a_bare_assertion_of_an_own_module_is_named(tmp_path):
    with pytest.raises(InputError, match="AssertionError"):
        ravine.train(model=Bare(True), data=_arrays(), epochs=1, out=tmp_path / "a", quiet=True)
    assert not (tmp_path / "a").exists()


def test_a_bare_assertion_under_vmap_falls_back_to_rows_one_by_one(tmp_path):
    recipes = [ravine.Recipe(seed=seed, stop={"after": "1ep"}) for seed in range(2)]
    recipes = [recipe.edit({"data.source": "arrays", "data.batch": 20}) for recipe in recipes]
    runs = ravine.train_many(
        recipes, model=Bare(False), data=_arrays(), out=tmp_path / "a", quiet=True
    )
    assert [run.result["stopped"] for run in runs] == ["finished"] * 2


# --- a table is read once -------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["real", "kind"])
def test_train_reads_a_table_once(tmp_path, monkeypatch, target):
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.4f},{b:.4f},{a + b if target == 'real' else 'yn'[int(a > b)]}"
        for a, b in rng.random((80, 2))
    ]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,target", *rows]), encoding="utf-8")
    read, count = table_file.read, []
    monkeypatch.setattr(table_file, "read", lambda path: (count.append(path), read(path))[1])
    command = ["train", "--set", f"data.source=csv:{tmp_path / 't.csv'}", "--set", "stop.after=1ep"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert len(count) == 1
    recipe = (tmp_path / "run" / "recipe.json").read_text(encoding="utf-8")
    assert ("targets" in recipe) == (target == "real")


# --- the writer's lock ----------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from ravine.storage.locks import Lock
lock = Lock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_writes_a_directory(tmp_path):
    lock = Lock(tmp_path)
    assert not lock.taken
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "held\n"
        assert lock.taken
        with pytest.raises(InputError, match=f"wait for process {other.pid}, or stop it"):
            lock.take()
    finally:
        other.kill()  # the lock goes with the process
        other.wait()
    assert not lock.taken
    lock.take()
    lock.take()  # is kept
    assert lock.taken
    assert Lock(tmp_path).taken
    Lock(tmp_path).take()  # the same process may write by another handle
    lock.release()
    assert not Lock(tmp_path).taken


def test_the_same_number_of_another_process_is_not_this_one(tmp_path):
    """Two containers count their processes apart: the number beside the lock is no proof."""
    code = HOLD.replace(
        'print("held"',
        '(Path(sys.argv[1]) / ".writer-process").write_text(sys.argv[2])\nprint("held"',
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(os.getpid())]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="no other process is writing"):
            Lock(tmp_path).take()
    finally:
        other.kill()
        other.wait()
