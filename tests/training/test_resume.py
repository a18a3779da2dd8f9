"""A killed run resumes to the very bits of an uninterrupted one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import crash
import ravine
import stored
from ravine.engine.loop import loop
from ravine.rundir import RunDir


class Crash(Exception):
    """Stands for the process's end."""


def train(program: str, members: int, directory: Path, crash_after: int | None = None) -> None:
    """Train with a snapshot at every block; ``crash_after`` blocks the process "ends"."""
    original = loop.TrainingLoop.save

    def save(self: loop.TrainingLoop) -> None:
        original(self)
        if crash_after is not None and self.step >= crash_after:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        patch.setattr(loop.TrainingLoop, "save", save)
        ravine.train_many(crash.recipes(program, members, directory), out=directory, quiet=True)


def assert_same(one: Path, other: Path) -> None:
    a, b = RunDir.open(one), RunDir.open(other)
    assert a.epochs() == b.epochs()
    assert a.events("layers") == b.events("layers") != []
    for member in range(len(a.recipes)):
        np.testing.assert_array_equal(a.steps(member), b.steps(member))
        left, right = ravine.Run(one, member).slots, ravine.Run(other, member).slots
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), name
    unclocked = [
        {k: v for k, v in d.result(m).items() if k != "seconds"}
        for d in (a, b)
        for m in range(len(a.recipes))
    ]
    assert unclocked[: len(a.recipes)] == unclocked[len(a.recipes) :]


HOLDER = """
import sys, time
from pathlib import Path
from ravine.storage.locks import Lock
lock = Lock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
time.sleep(60)
"""


def test_a_run_that_another_process_writes_is_not_touched(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Crash):
        train("digits", 1, run, crash_after=1)
    files = {p: p.stat().st_mtime_ns for p in run.rglob("step-*/*")}
    assert files
    command = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ravine.InputError, match=f"wait for process {holder.pid}"):
                ravine.resume(run, quiet=True)
        finally:
            holder.kill()
    assert files == {p: p.stat().st_mtime_ns for p in run.rglob("step-*/*")}
    with pytest.raises(ravine.InputError):
        ravine.resume(run, after="-1ep", quiet=True)  # what is refused leaves the run to others
    assert RunDir.open(run).state == "interrupted"
    ravine.resume(run, quiet=True)


def test_a_run_whose_recipes_changed_since_it_was_opened_is_not_written(tmp_path):
    run = tmp_path / "run"
    train("digits", 1, run)
    stale = RunDir.open(run)
    stored.edit(run, lambda about: about["facts"].update(note="extended"))
    with pytest.raises(ravine.InputError, match="run the command again"), stale.begins_to_write():
        pass


@pytest.mark.parametrize("members", [1, 8])
@pytest.mark.parametrize("program", crash.PROGRAMS)
def test_resumed_in_the_middle_of_an_epoch(program, members, tmp_path):
    train(program, members, tmp_path / "whole")
    with pytest.raises(Crash):
        train(program, members, tmp_path / "cut", crash_after=7)
    ravine.resume(tmp_path / "cut", quiet=True)
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 8])
@pytest.mark.parametrize("program", crash.PROGRAMS)
def test_killed_at_random_moments(program, members, tmp_path):
    script = [sys.executable, crash.__file__, program, str(members)]
    began = time.monotonic()
    subprocess.run([*script, tmp_path / "whole"], check=True)
    span = time.monotonic() - began
    rng = random.Random(f"{program}{members}")
    for trial in range(20):
        cut = tmp_path / f"cut{trial}"
        process = subprocess.Popen([*script, cut])
        time.sleep(rng.uniform(0.4, 1.0) * span)
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run([*script, cut], check=True)
        assert_same(tmp_path / "whole", cut)


def test_ctrl_c_writes_a_snapshot_and_says_how_to_resume(tmp_path):
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "ravine",
        "train",
        "--out",
        run,
        "--set",
        "stop.after=5000ep",
        "--quiet",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while not (run / "recipe.json").exists() or RunDir.open(run).done < 20:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 1
    assert f"ravine resume {run}" in said
    assert "Traceback" not in said
    held = RunDir.open(run)
    assert held.state == "interrupted"
    assert held.latest_snapshots(0)


def test_a_finished_run_is_extended(tmp_path):
    run = ravine.train(
        data="blobs", epochs=2, schedule="cosine", lr=0.01, out=tmp_path / "run", quiet=True
    )
    assert run.result["stopped"] == "finished"
    longer = ravine.resume(run.directory, after="4ep", quiet=True)[0]
    assert longer.result["epochs"] == 4
    assert list(longer.metrics["epoch"]) == [1, 2, 3, 4]
    jump = longer.events_of("lr_jump")[0]
    assert jump["data"]["before"] < jump["data"]["after"]
    constant = ravine.train(data="blobs", epochs=2, lr=0.01, out=tmp_path / "constant", quiet=True)
    extended = ravine.resume(constant.directory, after="4ep", quiet=True)[0]
    whole = ravine.train(data="blobs", epochs=4, lr=0.01, out=tmp_path / "whole", quiet=True)
    assert torch.equal(extended.slots["theta"], whole.slots["theta"])


def test_a_run_is_extended_twice(tmp_path):
    said = {"data": "blobs", "lr": 0.01, "quiet": True}
    run = ravine.train(epochs=1, out=tmp_path / "run", **said)
    for after in ("2ep", "3ep"):
        last = ravine.resume(run.directory, after=after, quiet=True)[0]
    whole = ravine.train(epochs=3, out=tmp_path / "whole", **said)
    assert torch.equal(last.slots["theta"], whole.slots["theta"])
    assert len(last.losses) == len(whole.losses)


def test_an_interrupted_extension_is_resumed(tmp_path):
    recipes = [
        ravine.Recipe(seed=seed, data={"source": "blobs"}, stop={"after": f"{1 + seed}ep"})
        for seed in range(2)
    ]
    ravine.train_many(recipes, out=tmp_path / "run", quiet=True)
    original, saves = loop.TrainingLoop.save, []

    def save(self: loop.TrainingLoop) -> None:
        original(self)
        saves.append(self.step)
        if len(saves) == 3:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        patch.setattr(loop.TrainingLoop, "save", save)
        with pytest.raises(Crash):
            ravine.resume(tmp_path / "run", after="4ep", quiet=True)
    runs = ravine.resume(tmp_path / "run", quiet=True)
    for run, recipe in zip(runs, recipes, strict=True):
        whole = ravine.train(recipe, epochs=4, out=tmp_path / f"whole{run.member}", quiet=True)
        assert run.result["epochs"] == 4
        assert float((run.slots["theta"] - whole.slots["theta"]).norm()) < 1e-4


def test_an_extension_must_be_longer(tmp_path):
    run = ravine.train(data="blobs", epochs=2, out=tmp_path / "run", quiet=True)
    with pytest.raises(ravine.InputError, match="--after: got '1ep'"):
        ravine.resume(run.directory, after="1ep", quiet=True)
    assert run.result["stopped"] == "finished"


def test_an_existing_directory_is_never_overwritten(tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(ravine.InputError):
        ravine.train(data="blobs", epochs=1, out=tmp_path, quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
