"""Nobody gets in by a file: every reader meets files that were made to do harm, reads them or refuses
them by one InputError, in bounded time and memory, and starts no program and opens no socket."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import hostile
from ravine.app.cli import app
from ravine.data.read import images
from ravine.errors import InputError
from ravine.storage.bounded import parse_json, read_text

SECONDS = 20  # for one file; a sound reader takes milliseconds
MEMORY = 400 << 20  # bytes that a bomb of a few MB may take


def reader(name: str):
    from ravine.data import sources
    from ravine.data.read import formats, npz, weights
    from ravine.recipe import Recipe

    def image(path: Path) -> None:
        if images.header(path) is None:
            raise InputError(str(path), expected="an image")
        images.decode(path, "RGB", (8, 8))

    def arrays(path: Path) -> None:
        if "y" in npz.read(path):
            sources.npz(Path(), path=str(path))

    found = {
        "idx": formats.idx_images,
        "npz": arrays,
        "recipe": Recipe.load,
        "json": lambda path: parse_json(read_text(path), str(path)),
        "image": image,
        "weights": lambda path: weights.read_weights(str(path)),
    }
    source = getattr(sources, name, None)
    return found.get(name) or (lambda path: source(Path(), path=str(path)))


@contextmanager
def limited(seconds: int):
    def stop(*_):
        raise TimeoutError(f"over {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(cases) -> tuple[dict[str, int], list[str]]:
    """How many files were read and refused, and what else happened."""
    counts, wrong = {"read": 0, "refused": 0}, []
    for name, kind, path in cases:
        try:
            with limited(SECONDS):
                reader(kind)(path)
            counts["read"] += 1
        except InputError as error:
            counts["refused"] += 1
            if len(str(error)) > 2000:
                wrong.append(f"{name}: a message of {len(str(error))} letters")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            if kind == "image" and isinstance(error, images.BROKEN):  # left out, with a warning
                counts["refused"] += 1
                continue
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:120]}")
    return counts, wrong


FOREIGN = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.", "pty.")
WATCHED: list[list[str]] = []  # the last one collects what is called


def _watch(event: str, arguments: tuple) -> None:
    if WATCHED and event.startswith(FOREIGN):
        WATCHED[-1].append(f"{event}{arguments!r:.200}")


sys.addaudithook(_watch)


@contextmanager
def nothing_started():
    """No program is started and no socket opened in this block."""
    WATCHED.append([])
    try:
        yield
    finally:
        called = WATCHED.pop()
    assert not called, called


def test_the_watch_sees_programs_and_sockets():
    for act in (lambda: subprocess.run(["true"]), lambda: socket.socket().close()):
        with pytest.raises(AssertionError), nothing_started():
            act()


@pytest.mark.filterwarnings("ignore")
def test_files_made_to_harm_are_refused_and_start_nothing(tmp_path):
    cases = list(hostile.files(tmp_path))
    with nothing_started():
        counts, wrong = tried(cases)
    assert not wrong, "\n".join(wrong)
    assert counts["refused"] > 150


def test_an_image_of_an_open_format_is_left_out_whatever_its_name(tmp_path):
    """Pillow reads EPS by Ghostscript, and names of files say nothing."""
    for name in ("EPS", "EPS of DOS", "postscript", "WMF", "ICO of a PNG"):
        (tmp_path / "a.png").write_bytes(hostile.IMAGES[name])
        with nothing_started():
            assert images.header(tmp_path / "a.png") is None
            with pytest.raises(images.BROKEN):
                images.decode(tmp_path / "a.png", "RGB")


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused(tmp_path):
    seeds = hostile.sound(tmp_path / "sound")
    assert tried(seeds) == ({"read": len(seeds), "refused": 0}, [])
    counts, wrong = tried(hostile.mutated(seeds, tmp_path / "changed", 340))
    assert not wrong, "\n".join(wrong)
    assert counts["refused"] > 100


FINDINGS = sorted((Path(__file__).parent / "findings").glob("*-*"))


ENDS = {"csv": "t.csv", "npz": "a.npz", "recipe": "r.toml", "image": "p.png", "idx": "i-idx3"}
ENDS |= {"text": "t.txt", "weights": "w.safetensors", "json": "j.json"}
ENDS |= {"shards": "t.tar", "parquet": "t.parquet"}


@pytest.mark.filterwarnings("ignore")
def test_what_fuzzing_found_is_read_or_refused(tmp_path):
    """Inputs that once were neither: kept by bench/fuzz.py under KIND-…"""
    cases = []
    for number, found in enumerate(FINDINGS):
        kind = found.name.partition("-")[0]
        place = tmp_path / str(number) / ENDS[kind]
        place.parent.mkdir()
        place.write_bytes(found.read_bytes())
        cases.append((found.name, kind, place))
    counts, wrong = tried(cases)
    assert not wrong, "\n".join(wrong)
    assert sum(counts.values()) == len(FINDINGS) > 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_damaged_files_are_read_or_refused(tmp_path, seed):
    seeds = hostile.sound(tmp_path / "sound")
    counts, wrong = tried(hostile.mutated(seeds, tmp_path / "changed", 1500, seed))
    assert not wrong, "\n".join(wrong)
    print(f"hostile files, seed {seed}: {counts}")


CHILD = """
import resource, sys, warnings
sys.path[:0] = sys.argv[1].split(":")
warnings.simplefilter("ignore")
from pathlib import Path
import test_hostile
from ravine.errors import InputError
read = test_hostile.reader(sys.argv[2])
import ravine.data.tables.load, pandas
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read(Path(sys.argv[3]))
    told = "read"
except InputError as error:
    told = "refused"
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_is_in_proportion_to_the_file(tmp_path):
    for name, kind, path in hostile.bombs(tmp_path):
        here = f"{Path(__file__).parent}:{Path(hostile.__file__).parent}"
        done = subprocess.run(
            [sys.executable, "-c", CHILD, here, kind, str(path)], capture_output=True, text=True
        )
        assert done.returncode == 0, f"{name}: {done.stderr[-500:]}"
        told, grown = done.stdout.split()
        print(f"{name}: {told}, {path.stat().st_size >> 10} KiB took {int(grown) >> 10} MiB")
        assert told == "refused", name
        assert int(grown) << 10 < MEMORY, f"{name}: {int(grown) >> 10} MiB"


# --- what a person named is shown as it is written ------------------------------------------------

MARK = "[/red][bold] :smile: [link=file:///x]a"


def test_names_are_no_markup(tmp_path, monkeypatch):
    """A path, a class, a column and a run that are called like the end of a style."""
    monkeypatch.chdir(tmp_path)
    folder, out = MARK.replace("/", ""), tmp_path / "[bold] run"
    for name in ("[a] [red]", "[b]"):
        (tmp_path / folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.full((8, 8, 3), 20 * number + len(name), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{number}.png")
    (tmp_path / "[b].csv").write_text(
        "[/red],[bold],target [/]\n" + "".join(f"{i},{i % 7},{'[/x]' if i % 2 else '[y]'}\n" for i in range(80)),
    )  # fmt: skip
    lines = [
        ["data", folder],
        ["data", "[b].csv"],
        ["data", "[/red].csv"],
        ["train", "[b].csv", "--set", "name=[/red]", "--epochs", "1", "--out", str(out)],
        ["evaluate", str(out)],
        ["summary", str(out)],
        ["catalogue", "[/red]"],
        ["train", "--set", "model=[/red]"],
        ["compare", "[b].csv", "--set", "optimizer.lr=0.1", "--vary", "model=[/red]"],
    ]
    for line in lines:
        done = CliRunner().invoke(app, line)
        assert done.exception is None or isinstance(done.exception, SystemExit), (
            line,
            done.exc_info,
        )
        assert "Traceback" not in done.output
    shown = CliRunner().invoke(app, ["data", "[b].csv"]).output
    assert "[/red]" in shown
    assert "[/x]" in shown


def test_names_do_not_steer_the_terminal(tmp_path, monkeypatch):
    """Escape sequences in a column, a class, a file and a run would clear the screen, or write what was never said."""
    monkeypatch.chdir(tmp_path)
    steer, out = "\x1b[2J\x9b1m\u202e", str(tmp_path / "run\x1b[2J")
    rows = "".join(f"{i},{i % 7},{'y' if i % 2 else 'n' + steer}\n" for i in range(80))
    (tmp_path / f"t{steer}.csv").write_text(f"a{steer},b,target\n{rows}", encoding="utf-8")
    lines = [
        ["data", f"t{steer}.csv"],
        ["data", f"none{steer}.csv"],
        ["train", f"t{steer}.csv", "--set", f"name={steer}", "--epochs", "1", "--out", out],
        ["evaluate", out],
        ["report", out],
        ["doctor", out],
        ["predict", out, f"t{steer}.csv", "--out", f"p{steer}.csv"],
    ]
    for line in lines:
        shown = CliRunner().invoke(app, line).output
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown), (line, shown)
        assert "\\x1b[2J" in shown, line
