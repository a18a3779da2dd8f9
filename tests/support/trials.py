"""Trainings on a disk that kills, fails or loses power, many in one process.

``trials.py MATRIX:SUBJECT:FIRST:STEP …`` with disk.so in LD_PRELOAD tries the operations FIRST, FIRST + STEP,
… of a training of one or four members, of a study, or of what is written of a run (use), and prints JSON for
each: trials, passed, what was wrong. MATRIX is ``kills``, ``power``, ``failing`` or ``races``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

import disk
import ravine
from ravine import Recipe
from ravine.app.data import show_data
from ravine.app.predict import predict_file
from ravine.engine.loop import loop
from ravine.errors import RavineError
from ravine.interop.export import export
from ravine.interop.tensorboard import write_logs
from ravine.rundir import RunDir
from ravine.storage.files import trouble

ONE = {
    "data": {"source": "blobs", "batch": 256},
    "model": {"kind": "mlp", "hidden": [4], "dropout": 0.3},
    "average": {"ema": 0.9},
    "stop": {"after": "2ep", "best": True},
    "threads": 1,
}
KINDS = ("adam", "sgd", "rmsprop", "adamw")


def one(place: Path) -> None:
    if _there(place):
        ravine.resume(place, quiet=True)
    else:
        ravine.train_many([Recipe(**ONE)], out=place, quiet=True)


def four(place: Path) -> None:
    """Four members of which two train at a time and end at different steps."""
    recipes = [
        Recipe(**ONE).edit({"seed": n, "optimizer.kind": kind, "stop.after": f"{1 + n % 2}ep"})
        for n, kind in enumerate(KINDS)
    ]
    if _there(place):
        ravine.resume(place, quiet=True)
    else:
        ravine.train_many(recipes, out=place, quiet=True, width=2)


def study(place: Path) -> None:
    ravine.lr(Recipe(**ONE), rates=3, after="4it", quiet=True, out=place)


@functools.cache
def _trained() -> Path:
    """A run that is used; it ends with this process."""
    place = Path(tempfile.mkdtemp(dir=_room()))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    ravine.train(Recipe(**ONE), out=place / "run", quiet=True, doctor=False)
    (place / "new.csv").write_text("0.1,0.2\n0.3,0.4\n")
    return place


def use(place: Path) -> None:
    """What is written of a trained run: exports, predictions, logs, a sheet of samples."""
    about, run = _trained(), ravine.Run(_trained() / "run")
    outputs = {
        "out": lambda to: export(run, out=to),
        "net.pt2": lambda to: export(run, out=to),
        "net.safetensors": lambda to: export(run, out=to),
        "new.csv": lambda to: predict_file(run, about / "new.csv", to),
        "logs": lambda to: write_logs(run.directory, to),
        "sheet.png": lambda to: show_data(run.recipe.data, to),
    }
    with contextlib.redirect_stderr(io.StringIO()):
        for name, write in outputs.items():
            if not (place.parent / name).exists():
                write(place.parent / name)


def used(place: Path) -> dict[str, str]:
    """What was written, by name; what holds a time or is drawn is compared by its size."""
    found = {}
    for path in sorted(place.parent.rglob("*")):
        name = str(path.relative_to(place.parent))
        if path.is_file() and not any(part.startswith(".") for part in path.parts[-3:]):
            same = path.suffix in (".csv", ".safetensors", ".toml", ".json")
            content = hashlib.sha256(path.read_bytes()).hexdigest() if same else path.stat().st_size
            found["logs" if "logs" in name else name] = "" if "logs" in name else str(content)
    return found


TRAININGS = {"one": one, "four": four, "study": study}
SUBJECTS = {**TRAININGS, "use": use}


def _there(place: Path) -> bool:
    return (place / "recipe.json").exists()


def numbers(place: Path) -> list[dict[str, Any]]:
    """All numbers that each member of a run came to; clock times are not among them."""
    found = []
    with RunDir.open(place) as run:
        for member in range(len(run.recipes)):
            ended = dict(run.result(member) or {})
            ended.pop("seconds", None)
            slots = ravine.Run(place, member).slots
            one = {"losses": repr(run.steps(member).tolist()), "metrics": repr(run.epochs(member))}
            digests = {f"slot {name}": _digest(slots[name]) for name in sorted(slots)}
            found.append({**one, "result": repr(ended), **digests})
    return found


def result(place: Path) -> str:
    """A digest of all numbers that a run or a study came to."""
    if (place.parent / "net.pt2").exists() or (place / "export.json").exists():
        return repr(used(place))
    runs = [place] if _there(place) else sorted((place / "runs").glob("[!.]*"))  # drafts have a dot
    found: list[Any] = [numbers(path) for path in runs]
    if (place / "summary.json").exists():
        summary = json.loads((place / "summary.json").read_text())
        found.append({k: v for k, v in summary.items() if k not in ("study", "report", "seconds")})
        found.append(sorted(path.name for path in (place / "figures").iterdir()))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def steps(place: Path) -> int:
    """The steps that all members of a run took together."""
    with RunDir.open(place) as run:
        return sum(len(run.steps(member)) for member in range(len(run.recipes)))


def _digest(tensor: Any) -> str:
    return hashlib.sha256(
        tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    ).hexdigest()


class Trials:
    """The trials of one subject."""

    def __init__(self, subject: str, folder: Path):
        self.subject, self.work = subject, SUBJECTS[subject]
        self.folder, self.disk = folder, disk.Disk()
        self.trials, self.passed, self.wrong = 0, 0, list[str]()
        folder.mkdir()
        warm = self.fresh("warm")
        self.work(warm)  # what is imported late is there now
        self.expected = result(warm)
        self.whole = used(warm) if subject == "use" else {}
        place = self.fresh("count")
        counted = disk.forked(lambda: self._counted(place))
        assert not counted.error, counted.error
        self.operations: int = counted.value

    def _counted(self, place: Path) -> int:
        self.disk.arm(place.parent, disk.COUNT)
        self.work(place)
        return self.disk.count

    def fresh(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder / "out"

    def judge(self, name: str, wrong: str) -> None:
        self.trials += 1
        self.passed += not wrong
        if wrong:
            self.wrong.append(f"{name}: {wrong}")

    def goes_on(self, place: Path) -> str:
        """Empty if the work is done to its end, with the numbers of one that was not disturbed."""

        def work() -> str:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.work(place)
            said = [str(one.message) for one in caught]
            passed_over = [text for text in said if "an older snapshot is used" in text]
            # one whose writing was interrupted is no damage
            if any("sha256" in text or "arrays-" in text for text in passed_over):
                return f"damaged: {passed_over}"
            return result(place)

        ended = disk.forked(work)
        if ended.signal:
            return f"goes on: signal {ended.signal}"
        return ended.error or ("" if ended.value == self.expected else "other numbers")

    # --- the matrices -----------------------------------------------------------------------------

    def kills(self, numbers: range) -> None:
        for number in numbers:
            place = self.fresh("kill")

            def killed(place: Path = place, number: int = number) -> None:
                self.disk.arm(place.parent, disk.KILL, number)
                self.work(place)

            ended = disk.forked(killed)
            if ended.signal != signal.SIGKILL:
                self.judge(f"kill at {number}", f"it was not killed: {ended}")
            else:
                self.judge(f"kill at {number}", self.goes_on(place))

    def power(self, numbers: range) -> None:
        place, book = self.fresh("traced"), self.folder / "book"

        def traced() -> None:
            self.disk.arm(place.parent, disk.TRACE, book=book)
            self.work(place)

        ended = disk.forked(traced)
        assert not ended.error, ended.error
        done = list(disk.operations(book))
        follower = disk.PowerFailure(place.parent)
        seen: dict[str, str] = {}
        chosen = set(numbers)
        for number, operation in enumerate(done, 1):
            follower.follow(operation)
            for lose in disk.PowerFailure.WAYS if number in chosen else ():
                left = self.fresh("left")
                follower.leave(left.parent, lose, number)
                state = _tree_digest(left.parent)
                if state not in seen:  # the same tree comes to the same end
                    seen[state] = self.goes_on(left)
                self.judge(f"power lost after {number} ({operation.kind}), {lose}", seen[state])
        left = self.fresh("left")
        follower.whole(left.parent)
        same = _tree_digest(left.parent) == _tree_digest(place.parent)
        self.judge("replay of all", "" if same else "it is not what was recorded")

    def failing(self, numbers: range) -> None:
        """Each operation fails with every error, of larger subjects with one of them; every other time
        all that follow fail too."""
        codes = disk.ERRORS
        for at, number in enumerate(numbers):
            for turn, code in enumerate(
                codes if self.subject == "one" else [codes[at % len(codes)]]
            ):
                self.failed(number, number + 1 if (at + turn) % 2 else 1 << 40, code)

    def failed(self, first: int, last: int, code: str) -> None:
        place = self.fresh("fail")

        def failing() -> str:
            warnings.simplefilter("ignore")
            self.disk.arm(place.parent, disk.FAIL, first, last, code)
            try:
                self.work(place)
            except RavineError:
                return "refused"
            except Exception as error:
                if trouble(error) is None:
                    raise
                return "trouble"
            finally:
                self.disk.arm(place.parent, disk.OFF)
            return "done"

        ended = disk.forked(failing)
        name = f"{code} at {first}{'' if last == first + 1 else ' and after'}"
        if ended.signal or ended.error:
            self.judge(name, ended.error or f"signal {ended.signal}")
            return
        half = set(used(place).items()) - set(self.whole.items()) if self.whole else set()
        self.judge(name, f"half written: {half}" if half else self.goes_on(place))

    def races(self, numbers: range) -> None:
        """Eight start the same, or go on with what a killed one left; every second time each file
        operation takes up to 20 ms, as over a network."""
        for number in numbers:
            place = self.fresh("race")
            if number % 4 > 1:

                def killed(place: Path = place, number: int = number) -> None:
                    self.disk.arm(place.parent, disk.KILL, self.operations * (number % 7 + 2) // 10)
                    self.work(place)

                disk.forked(killed)
            ended = disk.together([partial(self.raced, place, number, n) for n in range(8)])
            wrong = [one.error for one in ended if one.error and "InputError" not in one.error]
            wrong += [f"signal {one.signal}" for one in ended if one.signal]
            if not any(one.value == "done" for one in ended):
                wrong.append(f"nobody came to the end: {ended}")
            self.judge(f"race {number}", "; ".join(wrong) or self.goes_on(place))

    def raced(self, place: Path, number: int, runner: int) -> str:
        warnings.simplefilter("ignore")
        if number % 2:
            self.disk.arm(place.parent, disk.SLOW, runner, 20)
        self.work(place)
        return "done"


def _tree_digest(folder: Path) -> str:
    found = hashlib.sha256()
    for place in sorted(folder.rglob("*")):
        if place.name.endswith("-shm"):
            continue
        name = str(place.relative_to(folder))
        found.update(f"{name} {place.is_file()} ".encode())
        if place.is_file():
            found.update(place.read_bytes())
    return found.hexdigest()


def _room() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main(*wanted: str) -> None:
    loop.BLOCK_SECONDS = loop.SNAPSHOT_SECONDS = 0.0
    room = _room()
    found, made = [], dict[str, Trials]()
    with tempfile.TemporaryDirectory(dir=room) as folder:
        for one in wanted:
            matrix, subject, first, step = one.split(":")
            if subject not in made:
                made[subject] = Trials(subject, Path(folder) / subject)
            trials = made[subject]
            trials.trials, trials.passed, trials.wrong = 0, 0, []
            chosen = range(int(first), trials.operations + 1, int(step))
            getattr(trials, matrix)(chosen)
            names = ("operations", "trials", "passed", "wrong")
            found.append({name: getattr(trials, name) for name in names})
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
