"""Ctrl-C and SIGTERM in every phase of every long command: one line, a documented exit code, soon; a run
that has begun can be resumed; a second signal ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ravine.rundir import RunDir

SECONDS = 60  # until a busy machine answers; alone it takes under 5
LONG = ["--set", "data.source=digits", "--epochs", "100000"]
COMMANDS = {
    "train": ["train", *LONG],
    "doctor": ["doctor", *LONG],
    "prove": ["doctor", "--prove", "--set", "optimizer.lr=10", *LONG],
    "lr": ["lr", "--set", "stop.after=2000ep"],
    "compare": ["compare", "--vary", "optimizer.lr=0.1,0.01", "--set", "stop.after=2000ep"],
    "serve": ["serve", ".", "--port", "8791"],
}


def start(command: list[str], place: Path) -> subprocess.Popen:
    out = [] if command[0] in ("serve", "doctor") else ["--out", str(place / "out")]
    return subprocess.Popen(
        [sys.executable, "-m", "ravine", *command, *out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
    )


def stopped(process: subprocess.Popen, number: int) -> tuple[int, str, float]:
    process.send_signal(number)
    began = time.monotonic()
    _, told = process.communicate(timeout=SECONDS)
    return process.returncode, told, time.monotonic() - began


def check(process: subprocess.Popen, number: int, place: Path) -> None:
    code, told, _ = stopped(process, number)
    assert code == 1, told
    assert "Traceback" not in told
    assert "interrupted" in told.splitlines()[-1], told
    if (place / "out" / "recipe.json").exists():
        RunDir.open(place / "out").close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_signal_at_the_start_ends_with_one_line(tmp_path, number, seconds):
    process = start(COMMANDS["train"], tmp_path)
    assert "loading" in process.stderr.readline()
    time.sleep(seconds)
    check(process, number, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("seconds", [0.5, 2, 4, 8, 16])
def test_a_signal_in_every_phase_of_every_command(tmp_path, command, number, seconds):
    process = start(COMMANDS[command], tmp_path)
    time.sleep(seconds)
    if process.poll() is not None:
        pytest.skip("it has ended by itself")
    check(process, number, tmp_path)


SLOW_SAVE = """
import sys, time
import ravine
from ravine.engine.loop import loop
save = loop.TrainingLoop.save
def slow(self):
    if self.step:
        print("saving", flush=True)
        time.sleep(1000)
    save(self)
loop.TrainingLoop.save = slow
loop.SNAPSHOT_SECONDS = 1e9
recipe = ravine.Recipe(data={"source": "blobs"}, model="softmax", stop={"after": "1000000ep"})
def ready(row):
    print("ready", flush=True)
ravine.train(recipe, out=sys.argv[1], quiet=True, doctor=False, on_epoch=ready)
"""


def test_a_second_signal_ends_at_once(tmp_path):
    """The first waits for a snapshot, which here never ends; what was stored before is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_SAVE, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGTERM)
    while process.stdout.readline() != "saving\n":
        pass
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(SECONDS) == 128 + signal.SIGTERM

    assert RunDir.open(tmp_path / "run").begun(0)
