"""Nothing grows with the number of runs in a process, and readers do not slow the one that writes."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ravine
import trials

LEAKS = "Nothing leaks"
LOAD = "Readers do not slow training"
MEMORY = 24 << 20  # bytes by which 150 runs may grow: the allocator's own holes
SLOWER = 1.02

GROW = """
import gc, os, sys, threading
sys.path.insert(0, sys.argv[1])
import trials, ravine
from pathlib import Path

def held():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return [pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count()]

for number in range(int(sys.argv[3])):
    place = Path(sys.argv[2]) / str(number)
    trials.one(place)
    ravine.Run(place).evaluate()
    if number == int(sys.argv[3]) // 4:
        before = held()
print(before, held())
"""


def grown(folder: Path, runs: int) -> tuple[list[int], list[int]]:
    """Memory, open files and threads of a process after a quarter of so many runs, and after all."""
    code = [sys.executable, "-c", GROW, str(Path(trials.__file__).parent), str(folder), str(runs)]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    before, after = done.stdout.split("] [")
    return json.loads(before + "]"), json.loads("[" + after)


def test_runs_leave_no_file_open_and_no_thread(tmp_path):
    def held() -> list[int]:
        gc.collect()
        return [len(os.listdir("/proc/self/fd")), threading.active_count()]

    trials.one(tmp_path / "first")
    ravine.Run(tmp_path / "first").evaluate()
    before = held()
    for number in range(4):
        trials.one(tmp_path / str(number))
        ravine.Run(tmp_path / str(number)).evaluate()
    assert held() == before


@pytest.mark.slow
def test_200_runs_in_one_process(tmp_path, counted):
    """200 runs trained and evaluated in one process: open files and threads are after 200 runs what they were
    after 50, and memory has grown by less than 24 MiB.

    Broken: seen to fail where a run directory that is closed keeps its database open.
    """
    before, after = grown(tmp_path, 200)
    print(
        f"memory {before[0] >> 20} to {after[0] >> 20} MiB, files and threads {before[1:]}, {after[1:]}"
    )
    sound = after[0] - before[0] < MEMORY and after[1:] == before[1:]
    counted(LEAKS, 200, 200 * sound, [f"{before} {after}"])


TRAIN = """
import json, sys, time, warnings
import ravine
warnings.simplefilter("ignore")
recipe = ravine.Recipe(data={"source": "digits", "batch": 32}, model={"kind": "mlp", "hidden": [32]},
                stop={"after": "10000it"}, threads=1)
ravine.train(recipe.edit({"stop.after": "50it"}), out=sys.argv[1] + "-first", quiet=True, doctor=False)
for number in range(int(sys.argv[2])):
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.process_time()
    run = ravine.train(recipe, out=f"{sys.argv[1]}-{number}", quiet=True, doctor=False)
    print(json.dumps([time.process_time() - began, len(run.losses)]), flush=True)
"""
READ = """
import sys, time, threading
from pathlib import Path
from starlette.testclient import TestClient
from ravine.report.server import application
client = TestClient(application(Path(sys.argv[1])))
errors, reads, stop = [], 0, threading.Event()
def poll():
    global reads
    while not stop.wait(0.1):
        for answer in (client.get("/api/runs"), *(client.get("/api/curves", params={"run": row["id"], "metric": "loss"})
                       for row in client.get("/api/runs").json()["runs"][-1:])):
            reads += 1
            if answer.status_code != 200:
                errors.append((answer.status_code, answer.text[:200]))
threads = [threading.Thread(target=poll) for _ in range(4)]
[thread.start() for thread in threads]
sys.stdin.readline()
stop.set()
[thread.join() for thread in threads]
print(reads, errors)
"""


@pytest.mark.slow
def test_four_readers_cost_less_than_two_per_cent(tmp_path, counted):
    """10,000 steps with a page open and four readers that poll it ten times a second, and without, in turn: the
    processor time of training is less than 2 % longer (median of the pairs), and no answer is an error.

    Broken: not yet; it has only been seen to pass.
    """
    pytest.importorskip("starlette", reason="the extra web is not installed")
    pairs, ratios, reads = 5, [], 0
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(tmp_path / "run"), str(2 * pairs)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert trainer.stdin is not None
    assert trainer.stdout is not None

    def seconds() -> float:
        assert trainer.stdout.readline() == "ready\n"
        trainer.stdin.write("\n")
        trainer.stdin.flush()
        found, steps = json.loads(trainer.stdout.readline())
        assert steps == 10_000
        return found

    for _ in range(pairs):
        alone = seconds()
        reader = subprocess.Popen(
            [sys.executable, "-c", READ, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        ratios.append(seconds() / alone)
        said, _ = reader.communicate("\n")
        count, _, errors = said.strip().partition(" ")
        reads += int(count)
        assert errors == "[]"
    trainer.communicate()
    print(
        f"{reads} answers; processor time with readers / without: {[round(r, 3) for r in ratios]}"
    )
    counted(LOAD, pairs, pairs * (statistics.median(ratios) < SLOWER), [str(ratios)])
