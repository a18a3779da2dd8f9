"""A thousand files, runs, studies and requests that were made to do harm: each is read or refused by one typed
error, nothing is started, opened elsewhere or hung up."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hostile
import ravine
import trials
from ravine.errors import InputError, RavineError
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.study.directory import read_request

NOBODY = "Nobody gets in"
SECONDS = 20
# what a field of a directory that a stranger made may hold
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**18, 10**299, -0.5, 1e308, "", "[/red][bold]", "../../../etc/passwd", "/dev/zero",
    "own:x", "a" * 100_000, "\x00", "\ud800", [], [[]], {}, {"kind": "x"}, {"kind": ["a"]}, [None] * 1000,
    "9" * 400 + "ep", "1e9", json.loads("[" * 30 + "]" * 30), "hf:../../x", "csv:/dev/zero", "'; DROP TABLE losses; --",
)  # fmt: skip
STARTED = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pty.",
)
WATCHED: list[
    list[str]
] = []  # the last one collects what is started, and what is written elsewhere


def _watch(event: str, arguments: tuple) -> None:
    if not WATCHED:
        return
    if event.startswith(STARTED):
        WATCHED[-1].append(f"{event}{arguments!r:.200}")
    if (
        event == "open"
        and isinstance(arguments[0], str)
        and arguments[0].startswith(("/etc/passwd", "/dev/zero"))
    ):
        WATCHED[-1].append(f"{event}{arguments!r:.200}")


sys.addaudithook(_watch)


@contextmanager
def limited() -> Iterator[list[str]]:
    """At most SECONDS, and what was started or opened elsewhere."""

    def stop(*_):
        raise TimeoutError(f"over {SECONDS} seconds")

    WATCHED.append([])
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield WATCHED[-1]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        WATCHED.pop()


def tried(name: str, act: Callable[[], Any], wrong: list[str]) -> str:
    """Whether the act was done or refused; anything else is wrong."""
    with limited() as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
            told = "read"
        except RavineError as error:
            told = "refused"
            if len(str(error)) > 4000:
                wrong.append(f"{name}: a message of {len(str(error))} letters")
        except Exception as error:
            told = "wrong"
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        if seen:
            wrong.append(f"{name}: {seen}")
    return told


def fields(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The place of every value in plain data."""
    if path:
        yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, one in inner:
        yield from fields(one, (*path, name))


def replaced(value: Any, path: tuple, new: Any) -> Any:
    found = copy.deepcopy(value)
    place = found
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = new
    return found


def resigned(body: dict[str, Any]) -> str:
    """A text with a right sha256: all but the mark can be forged."""
    mark = body.pop("mark", None)
    body.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps(body | {"sha256": digest} | ({} if mark is None else {"mark": mark}))


def forged(place: Path, file: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Texts of a signed file in which one value is another."""
    body, draw = json.loads((place / file).read_text()), random.Random(seed)
    every = [path for path in fields(body) if path[0] not in ("sha256", "mark")]
    for _ in range(count):
        path, new = draw.choice(every), draw.choice(VALUES)
        try:
            text = resigned(replaced(body, path, new))
        except (KeyError, IndexError, TypeError):
            continue
        yield f"{file} {'.'.join(map(str, path))} = {str(new)[:40]!r}", text


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    trials.one(folder / "run")
    trials.study(folder / "study")
    return folder


def use_run(place: Path) -> None:
    with RunDir.open(place) as opened:
        opened.steps(0), opened.epochs(), opened.events(), opened.result(0)
    run = ravine.Run(place)
    run.predict([[0.0, 1.0]])
    ravine.resume(place, quiet=True)


def all_runs(made: Path, folder: Path, count: int, seed: int, wrong: list[str]) -> int:
    manifest = next((made / "run" / "final").rglob("manifest.json")).relative_to(made / "run")
    data = next((made / "run" / "data").rglob("manifest.json")).relative_to(made / "run")
    total = 0
    for file in ("recipe.json", str(manifest), str(data)):
        for name, text in forged(made / "run", file, count, seed):
            place = folder / "run"
            shutil.copytree(made / "run", place)
            (place / file).write_text(text, encoding="utf-8", errors="surrogatepass")
            tried(f"run: {name}", lambda place=place: use_run(place), wrong)
            shutil.rmtree(place)
            total += 1
    return total


def all_studies(made: Path, folder: Path, count: int, seed: int, wrong: list[str]) -> int:
    from ravine.study.declare import resume_study

    total = 0
    shutil.copytree(made / "study", folder / "study")
    for name, text in forged(made / "study", "study.json", count, seed):
        (folder / "study" / "study.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        tried(f"study: {name}", lambda: read_request(folder / "study"), wrong)
        if total % 8 == 0:  # to its end, where it is taken
            tried(f"study: {name}", lambda: resume_study(folder / "study", quiet=True), wrong)
        total += 1
    return total


def all_recipes(made: Path, count: int, seed: int, wrong: list[str]) -> int:
    body, draw, total = Recipe(**trials.ONE).to_dict(), random.Random(seed), 0
    every = list(fields(body))
    for _ in range(count):
        path, new = draw.choice(every), draw.choice(VALUES)
        changed = replaced(body, path, new)
        tried(
            f"recipe {path} = {str(new)[:40]!r}", lambda changed=changed: Recipe(**changed), wrong
        )
        total += 1
    return total


def all_files(folder: Path, count: int, seed: int, wrong: list[str]) -> int:
    sys.path.insert(0, str(Path(__file__).parents[1] / "safety"))
    import test_hostile

    cases = list(hostile.files(folder / "made")) if seed == 1 else []
    seeds = hostile.sound(folder / "sound")
    cases += list(hostile.mutated(seeds, folder / "changed", count, seed))
    for name, kind, path in cases:

        def act(kind=kind, path=path):
            try:
                test_hostile.reader(kind)(path)
            except test_hostile.images.BROKEN as error:  # an image that is left out, with a warning
                raise InputError(str(path), expected="an image") from error

        tried(f"file {name}", act, wrong)
    return len(cases)


def all_pages(made: Path, folder: Path, count: int, seed: int, wrong: list[str]) -> int:
    testclient = pytest.importorskip(
        "starlette.testclient", reason="the extra web is not installed"
    )
    from ravine.report.server import application

    draw = random.Random(seed)
    shutil.copytree(made / "run", folder / "pages" / "run")
    for number, (_, text) in enumerate(forged(made / "run", "recipe.json", 20, seed)):
        place = folder / "pages" / f"bad{number}"
        shutil.copytree(made / "run", place)
        (place / "recipe.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    client = testclient.TestClient(application(folder / "pages", ["testserver"]))
    names = [place.name for place in (folder / "pages").iterdir()] + [
        "../run", "/etc/passwd", "..%2f..", "%00", "a" * 3000, "run/../../x", "\\..\\x", "[/red]",
    ]  # fmt: skip
    paths = ("/api/runs", "/api/curves", "/api/run", "/run/", "/report/", "/api/compare", "/")
    for _ in range(count):
        query = {
            "run": draw.choice(names),
            "metric": draw.choice(["loss", "' OR 1=1", "a" * 900, "../x"]),
            "x": draw.choice(["epoch", "step", "9" * 400, "nan"]),
        }
        path = draw.choice(paths) + (draw.choice(names) if draw.random() < 0.4 else "")

        def ask(path=path, query=query):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    answer = client.get(path, params=query)
                except (ValueError, testclient.httpx.InvalidURL):
                    return  # the client itself refuses the address
            assert answer.status_code < 500, f"{answer.status_code} {answer.text[:200]}"
            assert "root:" not in answer.text

        tried(f"page {path[:80]} {str(query)[:120]}", ask, wrong)
    return count


@pytest.mark.parametrize(
    ("file", "path", "new"),
    [
        ("recipe.json", ("facts", "programs", 0, "answers"), {}),
        ("recipe.json", ("facts", "programs", 0, "answers"), []),
        ("final", ("arrays", "final_buffer/hard_negatives", "shape"), []),
        ("data", ("facts", "input_shape"), "a" * 100_000),
        ("data", ("facts", "classes"), "\ud800"),
        ("data", ("facts", "classes", 1), []),
    ],
)
def test_found_by_the_corpus(made, tmp_path, file, path, new):
    """Each was a traceback, or a message of 100,000 letters."""
    shutil.copytree(made / "run", tmp_path / "run")
    place = tmp_path / "run" / file
    if place.is_dir():
        place = next(place.rglob("manifest.json"))
    text = resigned(replaced(json.loads(place.read_text()), path, new))
    place.write_text(text, encoding="utf-8", errors="surrogatepass")
    wrong: list[str] = []
    tried("run", lambda: use_run(tmp_path / "run"), wrong)
    assert not wrong


def test_some_of_each_kind(made, tmp_path):
    wrong: list[str] = []
    assert all_recipes(made, 60, 0, wrong) == 60
    assert all_runs(made, tmp_path, 6, 0, wrong) > 12
    assert all_studies(made, tmp_path, 20, 0, wrong) > 15
    assert all_pages(made, tmp_path, 40, 0, wrong) == 40
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("part", [1, 2])
def test_a_thousand_of_each_kind(made, tmp_path, counted, part, monkeypatch):
    """Generated recipes, run directories and studies in which any value is a hostile one (signed again with a right
    sha256), files of data, images and archives made to harm or damaged, and requests to the live page over such
    directories: each is read or refused by one typed error within 20 seconds, no program is started, no
    connection opened, and no page answers 500.

    Broken: seen to fail on the code of before, ten times: names of classes, answers and shapes that were made up
    were tracebacks or messages of 100,000 letters, and so was a number of classes that no memory holds.
    """
    wrong: list[str] = []
    monkeypatch.chdir(tmp_path)
    sizes = {
        "recipes": all_recipes(made, 600, part, wrong),
        "runs": all_runs(made, tmp_path, 100, part, wrong),
        "studies": all_studies(made, tmp_path, 200, part, wrong),
        "files": all_files(tmp_path, 400, part, wrong),
        "pages": all_pages(made, tmp_path, 300, part, wrong),
    }
    print(sizes)
    total = sum(sizes.values())
    counted(NOBODY, total, total - len(wrong), wrong)
