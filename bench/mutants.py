"""Mutation testing: one operator, number or condition of Ravine is changed, and the tests that touch that line
have to fail.

    python bench/mutants.py --map [TEST_FILE ...]     which test touches which line, by coverage (make mutants-map)
    python bench/mutants.py [--count 300] [--seed 0]  a sample of mutants, drawn evenly from the packages (make mutants)

The changes are those of cosmic-ray, drawn here and run in forks of a process that has imported what Ravine
needs. Survivors are printed with their change; those known to be equivalent stand in bench/mutants.toml, each
with the reason. What changes only annotations or documentation is no mutant.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ravine"
PACKAGES = ("engine", "optim", "nn", "data", "doctor", "study", "rundir", "recipe")
STORE = ROOT / ".mutants"  # the map, and the last sample's results
PAGES = [
    "tests/project/test_docs.py::test_pages_are_what_the_sources_say"
]  # they state all defaults
MOST_TESTS = 25  # of a mutant: of the tests that touch a line those that touch the fewest lines
SECONDS = 120  # a mutant that takes longer is killed: it hangs
_WITHOUT = ("Variable", "RemoveDecorator")  # operators that need arguments, or only break imports


@dataclass
class Mutant:
    package: str
    file: str  # in src/ravine
    line: int
    before: str
    after: str
    fate: str = ""  # killed, survived, untouched, equivalent
    text: str = ""  # of the whole file


# --- which test touches which line ----------------------------------------------------------------


def make_map(files: list[str]) -> None:
    """Run test files under coverage, one after another; a file that is mapped anew is replaced."""
    from coverage import CoverageData

    (STORE / "map").mkdir(parents=True, exist_ok=True)
    settings = STORE / "coveragerc"
    settings.write_text(f"[run]\ndynamic_context = test_function\nsource = {SOURCE}\n")
    for file in files or sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("tests/*/test_*.py")):
        data = STORE / "map" / Path(file).stem
        data.unlink(missing_ok=True)
        run = [
            "-m",
            "coverage",
            "run",
            f"--rcfile={settings}",
            f"--data-file={data}",
            "-m",
            "pytest",
        ]
        subprocess.run([sys.executable, *run, "-q", "-p", "no:xdist", file], cwd=ROOT, check=False)
        found = CoverageData(str(data))
        found.read()
        lines = {
            os.path.relpath(path, SOURCE): {
                str(line): sorted(filter(None, names))
                for line, names in found.contexts_by_lineno(path).items()
                if any(names)
            }
            for path in found.measured_files()
        }
        data.with_suffix(".json").write_text(json.dumps({"file": file, "lines": lines}))
        data.unlink()


@cache
def maps() -> list[dict]:
    found = [json.loads(path.read_text()) for path in sorted((STORE / "map").glob("*.json"))]
    for one in found:
        touched = Counter(
            name for lines in one["lines"].values() for names in lines.values() for name in names
        )
        one["weight"] = touched
    return found


def tests_of(file: str, line: int) -> list[str]:
    """The tests that touch a line, those first that touch the fewest others."""
    found = {
        f"{one['file']}::{name.rpartition('.')[2]}": one["weight"][name]
        for one in maps()
        for name in one["lines"].get(file, {}).get(str(line), ())
    }
    # what a technique's signature says is read without running it
    stated = PAGES if found and file in techniques() else []
    return sorted(found, key=lambda name: found[name])[:MOST_TESTS] + stated


@cache
def techniques() -> set[str]:
    """The files of the catalogue; Ravine itself is imported in the forks alone."""
    tree = ast.parse((SOURCE / "catalogue" / "catalogue.py").read_text())
    (files,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "FILES"
    )
    named = [name for names in ast.literal_eval(files).values() for name in names]
    return {f"{name.replace('.', '/')}.py" for name in named}


# --- mutants --------------------------------------------------------------------------------------


def mutants(package: str, draw: random.Random) -> Iterator[Mutant]:
    """Mutants of a package without end: a file by its length, a place in it, a change there."""
    from cosmic_ray.ast import get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    operators = [
        get_operator(n)() for n in operator_names() if not n.split("/")[1].startswith(_WITHOUT)
    ]
    place = SOURCE / package
    files = sorted(place.rglob("*.py"))
    texts = {file: file.read_text() for file in files}

    @cache
    def places(file: Path) -> dict:
        found: dict = {}
        tree = get_ast(texts[file])
        for operator in operators:
            count = 0
            for node in _nodes(tree):
                for start, _ in operator.mutation_positions(node):
                    found.setdefault(start, []).append((operator, count))
                    count += 1
        return found

    while True:
        file = draw.choices(files, [len(texts[f]) for f in files])[0]
        if not places(file):
            continue
        start = draw.choice(sorted(places(file)))
        operator, number = draw.choice(places(file)[start])
        changed = mutate_code(texts[file], operator, number)
        if changed is None or _same(texts[file], changed):
            continue
        before, after = _difference(texts[file], changed)
        name = str(file.relative_to(SOURCE))
        yield Mutant(package, name, start[0], before, after, text=changed)


def _nodes(node) -> Iterator:
    yield node
    for child in getattr(node, "children", ()):
        yield from _nodes(child)


def _same(text: str, changed: str) -> bool:
    """Whether two sources do the same: annotations and documentation left out."""
    try:
        return _code(text) == _code(changed)
    except SyntaxError:
        return True


def _code(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(0)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(0)
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return ast.dump(tree)


def _difference(text: str, changed: str) -> tuple[str, str]:
    lines = list(difflib.ndiff(text.splitlines(), changed.splitlines()))
    return tuple("\n".join(x[2:].strip() for x in lines if x[0] == mark) for mark in "-+")


# --- running --------------------------------------------------------------------------------------


def run(mutant: Mutant, copy: Path) -> str:
    """The fate of a mutant: its change is made in the copy, its tests run in a fork."""
    tests = tests_of(mutant.file, mutant.line)
    if not tests:
        return "untouched"
    path = copy / "ravine" / mutant.file
    sound = path.read_text()
    path.write_text(mutant.text)
    _forget(path)
    try:
        return _tested(tests, copy)
    finally:
        path.write_text(sound)
        _forget(path)


def _forget(path: Path) -> None:
    for old in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        old.unlink()


def _tested(tests: list[str], copy: Path) -> str:
    child = os.fork()
    if child == 0:
        import pytest

        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1), os.dup2(nothing, 2)
        os.chdir(ROOT)
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)
        code = 3
        try:
            code = pytest.main(["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *tests])
        finally:
            os._exit(int(code))
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "killed"


def _keep(done: list[Mutant], seed: int) -> None:
    rows = [asdict(mutant) | {"text": ""} for mutant in done]
    (STORE / f"sample-{seed}.json").write_text(json.dumps(rows, indent=1))


def known() -> dict[tuple[str, str, str], str]:
    """Mutants that no test can kill, with the reason."""
    rows = tomllib.loads((ROOT / "bench" / "mutants.toml").read_text())["equivalent"]
    return {(row["file"], row["before"], row["after"]): row["reason"] for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--map", nargs="*", help="map these test files (none: all)")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="*", default=PACKAGES)
    parser.add_argument(
        "--touched", action="store_true", help="of a partial map: only lines that it has"
    )
    given = parser.parse_args()
    if given.map is not None:
        make_map(given.map)
        return
    if not maps():
        sys.exit("first: python bench/mutants.py --map")
    for heavy in (
        "torch",
        "numpy",
        "pandas",
        "pydantic",
        "matplotlib",
        "sklearn",
        "typer",
        "pytest",
    ):
        __import__(heavy)  # the forks need not
    equivalent, done = known(), []
    with tempfile.TemporaryDirectory() as place:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE, Path(place) / "ravine", ignore=ignore)
        for number, package in enumerate(given.packages):
            share = given.count // len(given.packages) + (
                number < given.count % len(given.packages)
            )
            drawn = mutants(package, random.Random(f"{given.seed} {package}"))
            while share:
                mutant = next(drawn)
                if given.touched and not tests_of(mutant.file, mutant.line):
                    continue
                share -= 1
                why = equivalent.get((mutant.file, mutant.before, mutant.after))
                mutant.fate = "equivalent" if why else run(mutant, Path(place))
                done.append(mutant)
                _keep(done, given.seed)
                if mutant.fate != "killed":
                    print(
                        f"{mutant.fate}: {mutant.file}:{mutant.line}",
                        *(f"- {mutant.before}", f"+ {mutant.after}"),
                        sep="\n    ",
                        flush=True,
                    )
    (STORE / f"sample-{given.seed}.json").write_text(
        json.dumps([asdict(m) | {"text": ""} for m in done], indent=1)
    )
    for package in given.packages:
        fates = Counter(m.fate for m in done if m.package == package)
        of = sum(fates.values()) - fates["equivalent"]
        print(
            f"{package}: {fates['killed']} of {of} killed ({fates['killed'] / max(of, 1):.0%}); {dict(fates)}"
        )


if __name__ == "__main__":
    main()
