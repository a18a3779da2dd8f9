"""A disk that fails on demand (disk.c): counts the operations that change files below a folder, kills
the process or fails at a chosen one, or records all of them so that a power failure can be replayed."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

OFF, COUNT, KILL, FAIL, TRACE, SLOW = range(6)
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")


def build(folder: Path) -> Path | None:
    """The library for LD_PRELOAD; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    place = folder / "disk.so"
    source = Path(__file__).with_name("disk.c")
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", place, source, "-ldl", "-lpthread"], check=True
    )
    return place


class Disk:
    """The library that was loaded before all others, in this process and its children."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.disk_count.restype = ctypes.c_long

    def arm(
        self, folder: Path, what: int, first: int = 0, last: int = 1 << 40, error: str = "EIO",
        book: Path | None = None,
    ) -> None:  # fmt: skip
        self._library.disk_arm(
            str(folder).encode(), what, ctypes.c_long(first), ctypes.c_long(last),
            getattr(errno, error), b"" if book is None else str(book).encode(),
        )  # fmt: skip

    @property
    def count(self) -> int:
        return self._library.disk_count()


class Ended(NamedTuple):
    """How a forked child ended: by a signal, or with a value or an error."""

    signal: int
    value: Any
    error: str


def forked(function: Callable[[], Any]) -> Ended:
    """Call a function in a child process, and give what it returned (plain data)."""
    return together([function])[0]


def together(functions: Sequence[Callable[[], Any]]) -> list[Ended]:
    """Call functions in child processes that begin at the same moment."""
    gate, begin = os.pipe()
    started = [_start(function, gate, begin) for function in functions]
    os.close(gate)
    os.close(begin)
    return [_finish(*one) for one in started]


def _start(function: Callable[[], Any], gate: int, begin: int) -> tuple[int, int]:
    out, into = os.pipe()
    child = os.fork()
    if child:
        os.close(into)
        return child, out
    os.close(out)
    os.close(begin)
    os.read(gate, 1)  # until the parent has started all
    try:
        said = {"value": function()}
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        said = {"error": f"{type(error).__name__}: {str(error)[:300]} ({where})"}
    with os.fdopen(into, "w") as file:
        json.dump(said, file)
    os._exit(0)


def _finish(child: int, out: int) -> Ended:
    with os.fdopen(out) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    said = json.loads(text) if text else {}
    return Ended(os.WTERMSIG(status), said.get("value"), said.get("error", ""))


# --- what was recorded, and what of it a power failure leaves -------------------------------------


class Operation(NamedTuple):
    kind: str
    words: list[str]
    data: bytes = b""


def operations(book: Path) -> Iterator[Operation]:
    """What a TRACE wrote down."""
    with book.open("rb") as file:
        while line := file.readline():
            kind, *words = line.decode().rstrip("\n").split("\t")
            yield Operation(kind, words, file.read(int(words[2])) if kind == "write" else b"")


@dataclass
class Content:
    """What a file holds, and what of it is on the disk itself; ``late`` are the changes since."""

    now: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    late: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut to this size

    def change(self, at: int, data: bytes | None) -> None:
        _apply(self.now, at, data)
        self.late.append((at, data))

    def sync(self) -> None:
        self.safe, self.late = bytes(self.now), []

    def some(self, keep: Callable[[], bool]) -> bytes:
        """What is on the disk itself if of the late changes those are that ``keep`` says."""
        kept = bytearray(self.safe)
        for at, data in self.late:
            if keep():
                _apply(kept, at, data)
        return bytes(kept)


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        content.extend(bytes(at - len(content)))
        return
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + len(data)] = data


class Names:
    """A tree of names: folders are dictionaries, files are Content."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}

    def folder(self, parts: tuple[str, ...]) -> dict[str, Any]:
        found = self.tree
        for part in parts:
            found = found.setdefault(part, {})
        return found

    def do(self, step: tuple[str, tuple[str, ...], Any]) -> None:
        kind, place, what = step
        folder, name = self.folder(place[:-1]), place[-1]
        if kind == "put":
            folder[name] = what
        elif kind == "drop":
            folder.pop(name, None)
        elif kind == "move":
            thing = self.folder(what[:-1]).pop(what[-1], None)
            if thing is not None:
                folder[name] = thing


class PowerFailure:
    """Follows a recording; at any moment ``leave`` writes the tree that a power failure could leave.

    A file has what was written before its last fsync, a name what was done before the last fsync of
    its folder. Of what came later everything may be lost (``lose = "all"``), or only the writes, while
    the names are there (``"writes"``), or any part of both (``"some"``, drawn by ``seed``).
    """

    WAYS = ("writes", "all", "some")

    def __init__(self, root: Path):
        self.root = root
        self.files: dict[str, Content] = {}
        self.now = Names()
        self.steps: list[list[Any]] = []  # of names: [step, folder(s) it needs, safe]

    def parts(self, path: str) -> tuple[str, ...]:
        return Path(path).relative_to(self.root).parts

    def follow(self, one: Operation) -> None:
        kind, words = one.kind, one.words
        if kind == "new":
            self.files[words[0]] = content = Content()
            self._name(("put", self.parts(words[1]), content))
        elif kind == "cut":
            self.files.setdefault(words[0], Content()).change(0, None)
        elif kind == "size":
            self.files.setdefault(words[0], Content()).change(int(words[1]), None)
        elif kind == "write":
            self.files.setdefault(words[0], Content()).change(int(words[1]), one.data)
        elif kind == "sync":
            self._renamed_unseen(words[0], self.parts(words[1]))
            self.files.setdefault(words[0], Content()).sync()
        elif kind == "mkdir":
            self._name(("put", self.parts(words[0]), {}))
        elif kind in ("unlink", "rmdir"):
            self._name(("drop", self.parts(words[0]), None))
        elif kind == "rename":
            self._name(("move", self.parts(words[1]), self.parts(words[0])))
        elif kind == "syncdir":
            self._sync_folder(self.parts(words[0]))

    def _name(self, step: tuple[str, tuple[str, ...], Any]) -> None:
        self.now.do((step[0], step[1], {} if step[2] == {} else step[2]))
        folders = {step[1][:-1]} | ({step[2][:-1]} if step[0] == "move" else set())
        self.steps.append([step, folders, False])

    def _renamed_unseen(self, number: str, place: tuple[str, ...]) -> None:
        """safetensors renames by a system call of its own, past libc: its file has another name when it
        is synced next."""
        content = self.files.get(number)
        folder = self.now.folder(place[:-1])
        if content is not None and folder.get(place[-1]) is not content:
            old = next(name for name, what in folder.items() if what is content)
            self._name(("move", place, (*place[:-1], old)))

    def _sync_folder(self, folder: tuple[str, ...]) -> None:
        for one in self.steps:
            one[1].discard(folder)
            one[2] = not one[1]
        # a folder that was moved after a name was made in it is synced under its new name
        for step, folders, _ in self.steps:
            if step[0] == "move" and step[1] == folder:
                for other in self.steps:
                    other[1].discard(step[2])
                    other[2] = not other[1]
            del folders

    def leave(self, place: Path, lose: str, seed: int = 0) -> None:
        """Write what the power failure leaves to an empty folder."""
        draw = random.Random(seed)
        chance = draw.random()
        keep = {
            "writes": lambda: False,
            "all": lambda: False,
            "some": lambda: draw.random() < chance,
        }[lose]
        names = Names()
        for step, _, safe in self.steps:
            if safe or lose == "writes" or keep():
                names.do((step[0], step[1], {} if step[2] == {} else step[2]))
        _write(names.tree, place, keep)

    def whole(self, place: Path) -> None:
        """Write what is there when nothing fails."""
        for content in self.files.values():
            content.sync()
        _write(self.now.tree, place, lambda: True)


def _write(tree: dict[str, Any], place: Path, keep: Callable[[], bool]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, what in tree.items():
        if isinstance(what, Content):
            (place / name).write_bytes(what.some(keep))
        else:
            _write(what, place / name, keep)
