"""What another process asks of a run that trains: small files, taken by the process that trains it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ravine.errors import InputError
from ravine.rundir.rundir import RunDir
from ravine.storage.bounded import parse_json, read_text
from ravine.storage.files import write_text

FOLDER = "requests"
KINDS = ("stop", "snapshot", "set")
FIELDS = ("optimizer.lr",)  # what may change while a run trains
_LONGEST = 1000  # bytes of a request
_MOST = 100  # requests that are read at a time


def ask(run: RunDir, kind: str, field: str = "", value: Any = None) -> Path:
    """Ask a run to ``stop``, for a ``snapshot``, or to ``set`` a field to a value; gives the request's
    file, which is gone as soon as the run has answered.

    Errors: a run that is finished, a field that cannot change while a run trains, a bad value.
    """
    if kind not in KINDS:
        raise InputError("request", got=kind, expected=f"one of {', '.join(KINDS)}")
    if run.state == "finished":
        repair = f"ravine resume {run.path} --after END trains it on"
        raise InputError(
            str(run.path), got="a finished run", expected="one that trains", repair=repair
        )
    if kind != "set" and run.state != "running":
        raise InputError(str(run.path), got="an interrupted run", expected="one that trains")
    request: dict[str, Any] = {"kind": kind}
    if kind == "set":
        request |= {"field": field, "value": _checked(run, field, value)}
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.time_ns()}.json"
    write_text(path, json.dumps(request))
    return path


def _checked(run: RunDir, field: str, value: Any) -> float:
    if field not in FIELDS:
        expected = f"what may change while a run trains: {', '.join(FIELDS)}"
        raise InputError("set", got=field, expected=expected)
    return float(run.recipes[0].edit({field: value}).get(field))


def requests_to(directory: Path) -> Callable[[], list[dict[str, Any]]]:
    """What takes the requests to a run, the oldest first: each is given once. What is no request is
    thrown away."""
    folder = directory / FOLDER

    def take() -> list[dict[str, Any]]:
        if not folder.is_dir() or folder.is_symlink():
            return []
        found = []
        for path in sorted(folder.glob("*.json"))[:_MOST]:
            with suppress(OSError, ValueError):
                text = "" if path.is_symlink() else read_text(path, _LONGEST)
                request = parse_json(text, "request")
                if isinstance(request, dict):
                    found.append(request)
            with suppress(OSError):  # a folder of that name: it stays, and is no request
                path.unlink(missing_ok=True)
        return found

    return take


def answered(request: Path, seconds: float = 10.0) -> bool:
    """Wait until a run has taken a request; gives whether it has."""
    until = time.monotonic() + seconds
    while request.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return not request.exists()
