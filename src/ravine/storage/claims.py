"""Claims: which of several processes, on one machine or on several over a shared directory, does a
piece of work. A claim lasts as long as its holder writes into it: it has a lease.

A claim is a file ``claim-000001`` in a folder of its own. It is created exclusively, so one process
gets it. Its holder counts up a number in it; where that number has not changed for a lease, by the
clock of whoever looks, the holder is dead, and ``claim-000002`` may be created, exclusively again.
Nothing is deleted, so two who see the same dead holder cannot both follow it. A holder that was
only suspended finds the later claim and knows that it has lost its own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ravine.errors import InputError
from ravine.storage.bounded import MOST_RECIPE, parse_json, read_text
from ravine.storage.files import write_text

LEASE = 30.0  # seconds without a beat after which a holder counts as dead
BEAT = 5.0  # seconds between two beats
_NAME = re.compile(r"claim-([0-9]{6,18})")


class Claim:
    """The right to do what the folder stands for.

    >>> one, other = Claim(tmp / "unit"), Claim(tmp / "unit")
    >>> one.take(), other.take()
    (True, False)
    >>> one.release()
    >>> other.take(), other.number
    (True, 2)
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.number = 0  # of the claim that this object holds or held last
        self.lost = False  # whether another process has followed this holder
        self._ended = threading.Event()
        self._ended.set()
        self._seen: tuple[int, str, float] = (0, "", 0.0)  # the claim looked at, and since when

    @property
    def held(self) -> bool:
        """Whether this object holds the claim."""
        return not self._ended.is_set() and not self.lost

    def take(self) -> bool:
        """Take the claim where nobody holds it; whether this object holds it now."""
        if self.held:
            return True
        newest = self._newest()
        if newest and not self._over(newest):
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._file(newest + 1).open("x", encoding="utf-8") as file:
                file.write(_content(0, released=False))
        except FileExistsError:
            return False
        self.number, self.lost, self._ended = newest + 1, False, threading.Event()
        threading.Thread(target=self._beat, args=(self.number, self._ended), daemon=True).start()
        return True

    def release(self) -> None:
        """Give the claim back, if it is held."""
        if self.held:
            self._ended.set()
            with suppress(OSError):
                write_text(self._file(self.number), _content(0, released=True))
        self._ended.set()

    @property
    def taken(self) -> bool:
        """Whether a process holds the claim; of one that died it is known a lease after the first
        look, or at once where it ran on this machine."""
        newest = self._newest()
        return bool(newest) and not self._over(newest)

    # --- inside -----------------------------------------------------------------------------------

    def _file(self, number: int) -> Path:
        return self.folder / f"claim-{number:06d}"

    def _newest(self) -> int:
        """The number of the newest claim, 0 where there is none."""
        with suppress(FileNotFoundError):
            found = [_NAME.fullmatch(name) for name in os.listdir(self.folder)]
            return max((int(match[1]) for match in found if match), default=0)
        return 0

    def _over(self, number: int) -> bool:
        """Whether a claim was given back, or its holder is dead."""
        text = ""
        with suppress(InputError):  # it is being written, or nobody can read it: it has its lease
            text = read_text(self._file(number), MOST_RECIPE)
            content = parse_json(text, "claim")
            if isinstance(content, dict) and (
                content.get("released") is True or _died(content.get("holder"))
            ):
                return True
        now = time.monotonic()
        if self._seen[:2] != (number, text):
            self._seen = (number, text, now)
        return now - self._seen[2] > LEASE

    def _beat(self, number: int, ended: threading.Event) -> None:
        last, count = time.monotonic(), 0
        while not ended.wait(BEAT):
            if self._newest() > number or time.monotonic() - last > LEASE:
                self.lost = True
                return
            with suppress(OSError):
                count += 1
                write_text(self._file(number), _content(count, released=False))
                last = time.monotonic()


@contextmanager
def holding(claim: Claim) -> Iterator[Claim]:
    """A claim that was taken; it is given back however the block ends."""
    try:
        yield claim
    finally:
        claim.release()


def _content(beat: int, *, released: bool) -> str:
    return json.dumps({"holder": _process(os.getpid()), "beat": beat, "released": released})


def _process(number: int) -> dict[str, Any]:
    """A process, so that others on its machine know whether it lives. The start of the machine and
    the name space of numbers say which machine that is, within a container too."""
    return {
        "host": platform.node(),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "names": _link("/proc/self/ns/pid"),
        "process": number,
        "started": _started(number),
    }


def _died(holder: Any) -> bool:
    """Whether a process of this machine has ended; of another machine's, and of what no process writes,
    nothing is known here."""
    form = {"host": str, "boot": str, "names": str, "process": int, "started": str}
    if not isinstance(holder, dict) or any(
        not isinstance(holder.get(name), kind) for name, kind in form.items()
    ):
        return False
    if not holder["boot"] or not holder["started"]:
        return False
    here = _process(holder["process"])
    same = all(holder[name] == here[name] for name in ("host", "boot", "names"))
    return same and holder["started"] != here["started"]


def _started(number: int) -> str:
    """When a process started, in ticks of its machine; empty where it has ended or is not known."""
    fields = _read(f"/proc/{number}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else ""


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip()
    return ""


def _link(path: str) -> str:
    with suppress(OSError):
        return os.readlink(path)
    return ""
