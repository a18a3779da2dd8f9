"""Ctrl-C, SIGTERM and SIGHUP in every phase of every long command: one line, a documented exit code, soon; a run
that has begun can be resumed; a second signal ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import ravine
import trials
from ravine import stop_signals
from ravine.app import guard
from ravine.rundir import RunDir

SIGNALS = "Signals stop soon and lose nothing"
SECONDS = 60  # until a busy machine answers; alone it takes under 5
SOON = 5.0  # seconds that are promised
LONG = ["--set", "data.source=digits", "--epochs", "100000"]
COMMANDS = {
    "train": ["train", *LONG],
    "doctor": ["doctor", *LONG],
    "prove": ["doctor", "--prove", "--set", "optimizer.lr=10", *LONG],
    "lr": ["lr", "--set", "stop.after=2000ep"],
    "compare": ["compare", "--over", "optimizer.lr=0.1,0.01", "--set", "stop.after=2000ep"],
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
        preexec_fn=heard,
    )


def heard() -> None:
    """SIGHUP ends a program, also where the tests themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


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


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGTERM, 0.0), (signal.SIGINT, 1.0), (signal.SIGHUP, 0.4)]
)
def test_a_signal_at_the_start_ends_with_one_line(tmp_path, number, seconds):
    process = start(COMMANDS["train"], tmp_path)
    assert "loading" in process.stderr.readline()
    time.sleep(seconds)
    check(process, number, tmp_path)


def test_a_closed_terminal_ends_the_live_page_with_one_line(tmp_path):
    """Its server knows SIGTERM and Ctrl-C alone; SIGHUP interrupted it amid its loop, with a traceback."""
    process = start(["serve", ".", "--port", "0"], tmp_path)
    assert "http://" in process.stdout.readline()
    time.sleep(0.3)
    code, told, _ = stopped(process, signal.SIGHUP)
    assert (code, told) == (1, "ravine: interrupted\n")


MET = """
import signal, sys, types
import ravine.__main__ as program

def run():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise {error} from None

sys.modules["ravine.app.cli"] = types.SimpleNamespace(main=run)
program.main()
"""


@pytest.mark.parametrize("error", ["ImportError('loaded twice')", "SystemExit(130)"])
def test_another_error_that_an_interruption_becomes_is_one(error):
    """NumPy half loaded ends by other errors, and Typer by 130 where it meets Ctrl-C itself."""
    done = subprocess.run(
        [sys.executable, "-c", MET.format(error=error)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "ravine: interrupted\n")


def half_loaded() -> None:
    with guard.guarded(False):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("cannot load module more than once per process") from None


def test_another_error_of_an_interrupted_command_is_one(capsys):
    before = {number: signal.getsignal(number) for number in stop_signals._answered()}
    try:
        with stop_signals.raised(), pytest.raises(typer.Exit) as ended:
            half_loaded()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "ravine: interrupted\n"


SWALLOWED = """
import pathlib, signal, sys, time
import ravine.__main__ as program

pathlib.Path("half.py").write_text("import signal, time\\ntry:\\n    signal.raise_signal({number})\\n"
    "    time.sleep({seconds})\\nexcept BaseException:\\n    pass\\n")

def run():
    sys.path.insert(0, ".")
    import half
    from ravine.stop_signals import noted
    time.sleep(0.5)
    with noted([]):
        print("went on")

import types
sys.modules["ravine.app.cli"] = types.SimpleNamespace(main=run)
program.main()
"""


@pytest.mark.parametrize(
    ("number", "seconds"),  # the import ends in time, or is interrupted and goes on
    [(signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGHUP, 0.2), (signal.SIGHUP, 3.3)],
)
def test_an_import_that_swallows_an_interruption_hides_none(tmp_path, number, seconds):
    text = SWALLOWED.format(number=int(number), seconds=seconds)
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        preexec_fn=heard,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "ravine: interrupted\n")


def test_a_second_signal_amid_an_import_ends_at_once(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import signal, time\nsignal.raise_signal(15)\ntime.sleep(0.2)\nsignal.raise_signal(15)\n"
        "time.sleep(30)\n"
    )
    text = "from ravine.stop_signals import raised\nwith raised():\n    import slow"
    done = subprocess.run([sys.executable, "-c", text], check=False, cwd=tmp_path)
    assert done.returncode == 128 + signal.SIGTERM


def test_nohup_keeps_its_effect():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals.raised():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_at_any_time_of_every_command(tmp_path, counted, command):
    """SIGTERM, SIGINT and SIGHUP half a second to 16 seconds after the start of a training, an examination, a proof, a
    search of the rate, a comparison and the live page: within 5 seconds the command ends with one line, exit
    code 1 and no traceback, and the run directory that has begun opens.

    Broken: seen to fail where a command catches no SIGTERM, as 11 of 18 did once, where a signal met NumPy half
    loaded, and where the live page did not know SIGHUP. A search of the rate and a comparison are not counted: while
    five others used the machine, 1 trial of 15 took 5.8 seconds, and 1 of 15 took 5.1.
    """
    wrong, count = [], 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for seconds in (0.5, 2, 4, 8, 16):
            place = tmp_path / f"{number} {seconds}"
            place.mkdir()
            process = start(COMMANDS[command], place)
            time.sleep(seconds)
            if process.poll() is not None:
                continue  # it has ended by itself
            count += 1
            code, told, needed = stopped(process, number)
            lines = told.splitlines()
            good = code == 1 and "Traceback" not in told and "interrupted" in lines[-1]
            if (place / "out" / "recipe.json").exists():
                RunDir.open(place / "out").close()
            if not good or needed > SOON:
                wrong.append(f"{place.name}: code {code}, {needed:.1f} s, {lines[-3:]}")
    assert count >= 2, "most of the commands ended by themselves"
    counted(SIGNALS, count, count - len(wrong), wrong)


IN_PHASE = """
import importlib, runpy, sys, time
module, names, left = sys.argv[1], sys.argv[2].split("."), int(sys.argv[3])
owner = importlib.import_module(module)
for name in names[:-1]:
    owner = getattr(owner, name)
original = getattr(owner, names[-1])
def announced(*given, **named):
    global left
    left -= 1
    if left == 0:
        print("in it", flush=True)
        time.sleep(0.3)
    return original(*given, **named)
setattr(owner, names[-1], announced)
sys.argv = ["ravine", *sys.argv[4:]]
runpy.run_module("ravine", run_name="__main__", alter_sys=True)
"""
PHASES = {  # where it is, and which calls of it are met
    "data": ("ravine.data.pipeline", "Pipeline.__init__", (1,)),
    "pilot": ("ravine.engine.execution.pilot", "_by_rules", (1,)),
    "step": ("ravine.engine.rows.step", "Stepper.one", (1, 7)),
    "evaluation": ("ravine.engine.loop.evaluation", "Evaluation.epoch", (1, 2)),
    "save": ("ravine.engine.loop.loop", "TrainingLoop.save", (1,)),
}
SHORT = ["--set", "data.source=blobs", "--set", "threads=1", "--set", "precision=float32", "--epochs", "3"]  # fmt: skip


def in_phase(place: Path, phase: str, call: int, number: int) -> str:
    """A training that meets a signal in a phase, and goes on; empty if it ends as without one."""
    module, name, _ = PHASES[phase]
    train = ["train", *SHORT, "--no-doctor", "--out", str(place / "run")]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_PHASE, module, name, str(call), *train],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "in it\n":
        return f"never came there: {process.communicate()[1][-300:]}"
    code, told, needed = stopped(process, number)
    if code != 1 or "Traceback" in told or "interrupted" not in told or needed > SOON:
        return f"code {code}, {needed:.1f} s, {told[-300:]}"
    if not (place / "run").exists():
        return ""  # nothing had begun
    ravine.resume(place / "run", quiet=True)
    same = trials.result(place / "run") == trials.result(place.parent / "sound")
    return "" if same else "other numbers"


def all_phases(folder: Path, phases, numbers) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "ravine", "train", *SHORT, "--no-doctor"]
    subprocess.run([*command, "--out", str(folder / "sound")], check=True, capture_output=True)
    cases = [
        (phase, call, number) for phase in phases for call in PHASES[phase][2] for number in numbers
    ]
    wrong = []
    for phase, call, number in cases:
        place = folder / f"{phase} {call} {number}"
        place.mkdir()
        text = in_phase(place, phase, call, number)
        if text:
            wrong.append(f"{place.name}: {text}")
    return len(cases), wrong


@pytest.mark.slow
def test_a_signal_in_every_phase(tmp_path, counted):
    """SIGTERM and SIGINT while a training reads data, is timed, steps, evaluates and saves, the first time and
    later: within 5 seconds it ends with one line and exit code 1, and goes on to the numbers of a training that
    met none.

    Broken: seen to fail where the loop does not ask whether it was stopped.
    """
    count, wrong = all_phases(tmp_path, PHASES, (signal.SIGTERM, signal.SIGINT))
    counted(SIGNALS, count, count - len(wrong), wrong)


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
