"""Which test touches which line, by coverage: the map of bench/mutants.py, made by its --map."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ravine"
STORE = ROOT / ".mutants"  # the map, and the samples with their results
PAGES = "tests/project/test_docs.py::test_pages_are_what_the_sources_say"  # they state all defaults
MOST_TESTS = 40  # of a mutant,
MOST_SECONDS = 30  # which take no more than this together, as measured while they were mapped


class Recorder:
    """A plugin of pytest: what is executed stands under the test's name, also in processes that it starts."""

    def __init__(self, coverage) -> None:
        self.coverage = coverage
        self.seconds: Counter[str] = Counter()
        self.passed: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        os.environ["RAVINE_TEST"] = nodeid

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        elif report.failed:
            self.passed.discard(report.nodeid)


def make_map(tests: list[str]) -> None:
    """Run tests under coverage, those of a folder in one process; a file that is mapped anew is replaced."""
    (STORE / "map").mkdir(parents=True, exist_ok=True)
    start = "import coverage\ncoverage.process_startup()\n"
    (STORE / "sitecustomize.py").write_text(start)
    folders: dict[str, list[str]] = {}
    for test in tests or sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("tests/*/test_*.py")):
        folder = test if (ROOT / test).is_dir() else str(Path(test).parent)
        folders.setdefault(folder, []).append(test)
    for some in folders.values():
        child = [sys.executable, "bench/mutants.py", "--record", *some]
        subprocess.run(child, cwd=ROOT, check=False)


def record(tests: list[str]) -> None:
    """Run tests in this process, and write what each of their files touches."""
    import coverage
    import pytest

    with tempfile.TemporaryDirectory() as place:
        settings = Path(place) / "coveragerc"
        settings.write_text(
            f"[run]\nsource = {SOURCE}\ncontext = ${{RAVINE_TEST-}}\nparallel = true\n"
            f"data_file = {place}/data\ndisable_warnings = no-data-collected\n"
        )
        measure = coverage.Coverage(config_file=str(settings))
        measure.start()
        os.environ["COVERAGE_PROCESS_START"] = str(settings)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(STORE), os.environ.get("PYTHONPATH")))
        )
        recorder = Recorder(measure)
        sys.path.insert(0, str(ROOT))
        pytest.main(["-q", "-p", "no:xdist", "-p", "no:cacheprovider", *tests], [recorder])
        measure.stop()
        measure.save()
        measure.combine()
        _write_map(measure.get_data(), recorder)


def _write_map(found, recorder: Recorder) -> None:
    tests = sorted(recorder.passed)
    number = {name: i for i, name in enumerate(tests)}
    lines: dict[str, dict] = {}
    for path in found.measured_files():
        file = os.path.relpath(path, SOURCE)
        for line, names in found.contexts_by_lineno(path).items():
            for name in names:
                if name in number:
                    within = lines.setdefault(name.partition("::")[0], {}).setdefault(file, {})
                    within.setdefault(str(line), []).append(number[name])
    for test, touched in lines.items():
        mine = {number[n]: n for n in tests if n.partition("::")[0] == test}
        seconds = {i: recorder.seconds[name] for i, name in mine.items()}
        to = STORE / "map" / (test.replace("/", "-") + ".json")
        to.write_text(json.dumps({"tests": mine, "seconds": seconds, "lines": touched}))


@cache
def maps() -> dict:
    """The seconds of each test, and the tests of each line: by file, by line."""
    seconds: dict[str, float] = {}
    lines: dict[str, dict[int, list[str]]] = {}
    weight: Counter[str] = Counter()
    for path in sorted((STORE / "map").glob("*.json")):
        one = json.loads(path.read_text())
        seconds |= {one["tests"][i]: one["seconds"][i] for i in one["tests"]}
        for file, touched in one["lines"].items():
            for line, numbers in touched.items():
                names = [one["tests"][str(i)] for i in numbers]
                lines.setdefault(file, {}).setdefault(int(line), []).extend(names)
                weight.update(names)
    return {"seconds": seconds, "lines": lines, "weight": weight}


def tests_of(file: str, line: int, times: int) -> list[str]:
    """The tests that touch a line's statement, and so many times the usual number: one case of each function,
    those first that touch the fewest other lines. Where it is executed on import, those that touch its file."""
    touched = maps()["lines"].get(file, {})
    place = statement(file, line)
    found = {name for n in place or touched for name in touched.get(n, ())} - unsound()
    chosen: list[str] = []
    spent = 0.0
    cases: Counter[str] = Counter()  # one of each test function, then a second
    order = []
    for name in sorted(found, key=lambda name: (maps()["weight"][name], name)):
        function = name.partition("[")[0]
        order.append((cases[function], maps()["weight"][name], name))
        cases[function] += 1
    for *_, name in sorted(order):
        long = maps()["seconds"][name]
        if not chosen or (
            spent + long <= times * MOST_SECONDS and len(chosen) < times * MOST_TESTS
        ):
            chosen.append(name)
            spent += long
    # what a signature says is read without running it
    return chosen + ([PAGES] if chosen and file in stated() else [])


@cache
def unsound() -> set[str]:
    """Tests that were seen to fail on the sound code, run as those of mutants are."""
    path = STORE / "unsound.json"
    return set(json.loads(path.read_text())) if path.exists() else set()


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse((SOURCE / file).read_text())


def statement(file: str, line: int) -> range | None:
    """The lines of the smallest statement around a line; none where it is executed on import."""
    place, inside = None, False
    for node in ast.walk(_tree(file)):
        if not isinstance(node, ast.stmt):
            continue
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno
        if isinstance(node, ast.FunctionDef) and body[0].lineno <= line <= node.end_lineno:
            inside = True
        if node.lineno <= line <= max(last, node.lineno):
            place = range(node.lineno, max(last, node.lineno) + 1)  # walk goes inwards
    return (place or range(line, line + 1)) if inside else None


@cache
def stated() -> set[str]:
    """The files whose defaults stand on pages: the catalogue, the recipe. Ravine is imported in forks alone."""
    tree = _tree("catalogue/catalogue.py")
    (files,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "FILES"
    )
    named = [name for names in ast.literal_eval(files).values() for name in names]
    return {"recipe/sections.py", *(f"{name.replace('.', '/')}.py" for name in named)}
