"""Units on a Ray cluster: the driver hands them out, and hands out again what a lost worker had.

Ray's workers train as joined processes do, in the study's directory, where they reach it: on one
machine, or on a file system that the machines share. A worker that does not reach it gets the order
as JSON and gives its run directory back as the bytes of a tar file. Between processes go paths,
JSON and such bytes alone; no object of Ravine's is pickled.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ravine import registering
from ravine.engine.loop.loop import Interrupted
from ravine.engine.loop.progress import Progress
from ravine.engine.run import Run
from ravine.errors import InputError, RavineError
from ravine.rundir import RunDir
from ravine.storage.files import write_text
from ravine.study.workers.executor import Stage
from ravine.study.workers.order import Order

MOST_LOSSES = 5  # of workers of one unit: what kills five workers will kill the sixth
WAIT = 1.0  # seconds until a unit that made way for an earlier one is handed out again


class OnRay:
    """Trains stages on a Ray cluster: the one that ``address`` names, or one of this machine."""

    def __init__(self, address: str | None, given: Sequence[str]):
        if given:
            raise InputError(
                "--workers ray",
                got=f"{' and '.join(given)} given in Python",
                expected="recipes that say it all: other processes cannot see this one's memory",
                repair='save arrays as a file and name it (data="npz:FILE"), a module as a technique '
                'in a file (--with FILE.py); or call the study with workers="join" in each process',
            )
        self.address = address
        self.ray: Any = None
        self._started = False

    def train(self, stage: Stage) -> list[Run]:
        if not stage.finished:
            order = Order.of(stage)
            self._connect()
            self._hand_out(order, stage)
            order.gather(stage.place)
        return stage.runs()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._started:
            self.ray.shutdown()
            self._started = False

    def _connect(self) -> None:
        if self.ray is not None:
            return
        try:
            import ray
        except ImportError:
            raise InputError(
                "--workers", got="ray", expected="Ray", repair="pip install 'ravine[ray]'"
            ) from None
        self.ray = ray
        if not ray.is_initialized():
            try:
                ray.init(
                    address=self.address,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                where = self.address or "a local cluster"
                raise InputError(
                    "--workers",
                    got=f"ray:{where}",
                    expected="a Ray cluster that can be reached",
                    repair=str(error).partition("\n")[0],
                ) from None
            self._started = True

    # --- units ------------------------------------------------------------------------------------

    def _hand_out(self, order: Order, stage: Stage) -> None:
        """Hand out every unit that is not done, until all are."""
        units, packed = range(len(order.groups)), False
        left = [number for number in units if not order.done(number)]
        losses, waiting = dict.fromkeys(units, 0), dict[Any, int]()
        while left or waiting:
            ready = [number for number in left if not packed or _may_be_packed(order, number)]
            waiting |= {self._submit(order, number, packed): number for number in ready}
            left = [number for number in left if number not in ready]
            (done, *_), _ = self.ray.wait(list(waiting), num_returns=1)
            number = waiting.pop(done)
            found = self._given_back(done)
            if found["state"] == "lost":
                losses[number] += 1
                if losses[number] == MOST_LOSSES:
                    text = f"unit {number} of {order.name} lost {MOST_LOSSES} workers"
                    raise RavineError(f"{text}: {found['text']}")
                if not stage.quiet:
                    print(f"{order.name}: a worker was lost; its recipes go on", file=sys.stderr)
            packed = packed or found["state"] == "elsewhere"
            if _taken(order, number, found):
                _show(order, number, stage)
            else:
                left.append(number)
            if found["state"] == "busy":
                time.sleep(WAIT)

    def _given_back(self, task: Any) -> dict[str, Any]:
        """What a worker gave back, or that it was lost."""
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            raise RavineError(f"a worker failed: {error}") from None
        except self.ray.exceptions.RayError as error:
            return {"state": "lost", "text": str(error).partition("\n")[0]}

    def _submit(self, order: Order, number: int, packed: bool) -> Any:
        """Hand out a unit. Its processors are the threads of the order, its device a GPU where the
        cluster has one and a recipe may take it."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        most = max((node.get("CPU", 1) for node in nodes), default=1)
        gpu = any(node.get("GPU") for node in nodes)
        wanted = gpu and any(recipe.device != "cpu" for recipe in order.recipes)
        how = {"num_cpus": min(order.about["threads"], most), "num_gpus": int(wanted)}
        function = train_packed if packed else train_shared
        given = pack(order, number) if packed else (str(order.path), fingerprint(order.path))
        task = self.ray.remote(max_retries=0, **how)(function)
        return task.remote(*given, number, registering.loaded())


def _may_be_packed(order: Order, number: int) -> bool:
    """Whether a worker that does not reach the directory can train a unit now: where losers are
    dropped, it must know whom the earlier programs dropped."""
    earlier = all(order.done(one) for one in range(number))
    return earlier or not order.about["how"].get("halving")


def _taken(order: Order, number: int, found: dict[str, Any]) -> bool:
    """Whether a unit is done, by what its worker gave back."""
    if found["state"] == "wrong":
        error = RavineError(found["text"])
        error.exit_code = found["exit_code"]
        raise error
    if found["state"] == "packed":
        before = len(list(order.unit(number).glob("run-*")))
        run = order.unit(number) / f"run-{before + 1:06d}"
        unpack(found["bytes"], run)
        order.finish(number, run)
    return order.done(number) is not None


def _show(order: Order, number: int, stage: Stage) -> None:
    """Report how far the stage is, and the last metrics of a unit's members."""
    run = order.done(number)
    if stage.report is None or run is None:
        return
    with RunDir.open(run) as found:
        rows = [rows[-1] for member in order.groups[number] if (rows := found.epochs(member))]
    units = range(len(order.groups))
    done = sum(order.done(one) is not None for one in units)
    stage.report(Progress(done, len(units), 1, len(units) - done, 0.0, rows=rows))


# --- on the workers -------------------------------------------------------------------------------


def train_shared(path: str, expected: str, number: int, loaded: list[str]) -> dict[str, Any]:
    """Train a unit in the study's directory, where this worker reaches it; what became of it."""
    if fingerprint(Path(path)) != expected:
        return {"state": "elsewhere"}
    return _trained(Path(path), number, loaded)


def train_packed(about: str, files: bytes, number: int, loaded: list[str]) -> dict[str, Any]:
    """Train a unit in a directory of this worker, and give its run directory back as bytes."""
    with tempfile.TemporaryDirectory(prefix="ravine-") as folder:
        path = Path(folder) / "order"
        unpack(files, path)
        write_text(path / "order.json", about)
        found = _trained(path, number, loaded)
        run = Order(path).done(number) if found["state"] == "done" else None
        return found if run is None else {"state": "packed", "bytes": packed([run], run)}


def _trained(path: Path, number: int, loaded: list[str]) -> dict[str, Any]:
    try:
        for place in loaded:
            if place not in registering.loaded():
                registering.load(place)
        order = Order(path)
        while not order.done(number) and not order.claims[number].take():
            time.sleep(WAIT)  # of a driver that died: its worker is dying too, or finishes
        if not order.done(number) and not order.train(number):
            return {"state": "busy"}
    except Interrupted as error:  # the cluster takes the machine back
        return {"state": "lost", "text": str(error)}
    except RavineError as error:
        return {"state": "wrong", "text": str(error), "exit_code": error.exit_code}
    return {"state": "done"}


# --- what goes between them -----------------------------------------------------------------------


def fingerprint(path: Path) -> str:
    """The hash of an order, by which a worker knows that it reaches the driver's directory."""
    try:
        return hashlib.sha256((path / "order.json").read_bytes()).hexdigest()
    except OSError:
        return ""


def pack(order: Order, number: int) -> tuple[str, bytes]:
    """An order as JSON, and as a tar file what a unit needs beside it: the weights to start from,
    and whom earlier programs dropped."""
    files = [order.path / "rows"] if (order.path / "rows").is_dir() else []
    files += [order.unit(one) / "rungs.json" for one in range(number) if order.done(one)]
    return (order.path / "order.json").read_text(encoding="utf-8"), packed(files, order.path)


def packed(files: Sequence[Path], root: Path) -> bytes:
    """Files and folders as the bytes of a tar file, their names from ``root`` on."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for file in files:
            tar.add(file, file.relative_to(root).as_posix())
    return held.getvalue()


def unpack(content: bytes, to: Path) -> None:
    """Write what ``packed`` has read; no name leads out of ``to``."""
    to.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(to, filter="data")
