"""Mutation testing: one operator, number or condition of Ravine is changed, and the tests that touch that line
have to fail.

    python bench/mutants.py --map [TESTS ...]         which test touches which line, by coverage (make mutants-map)
    python bench/mutants.py [--count 300] [--seed 0]  a sample of mutants, drawn evenly from the packages (make mutants)

The changes are those of cosmic-ray, drawn here and run in forks of a process that has imported what Ravine
needs. A test counts only where it passes on the sound code too. Survivors are printed with their change; those known
to be equivalent stand in bench/mutants.toml, each with the reason. What changes only annotations or documentation is
no mutant. A sample that was interrupted goes on; --again runs ten times as many tests on what was not killed; --store writes
the counts for docs/reliability.md.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path

from mutants_map import ROOT, SOURCE, STORE, make_map, maps, record, tests_of, unsound

PACKAGES = ("engine", "optim", "nn", "data", "doctor", "study", "rundir", "recipe")
COUNTS = ROOT / "docs" / "mutants.json"
EXAMPLES = "its own examples"
NOT_RUN = (4, 5)  # exit codes of pytest: no such test, no test
REMAIN = ("survived", "untouched")
_WITHOUT = ("Variable", "RemoveDecorator")  # operators that need arguments, or only break imports


@dataclass
class Mutant:
    package: str
    file: str  # in src/ravine
    line: int
    before: str
    after: str
    fate: str = ""  # killed, survived, untouched, equivalent; none before it has run
    by: str = ""  # the test that killed it
    text: str = ""  # of the whole file


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
    seen: set[tuple[Path, str]] = set()

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
        if changed is None or (file, changed) in seen or _same(texts[file], changed):
            continue
        seen.add((file, changed))
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


class Verdict:
    """A plugin of pytest: writes down which tests failed."""

    def __init__(self, to: Path) -> None:
        self.to = to

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            with self.to.open("a") as file:
                file.write(report.nodeid + "\n")

    pytest_collectreport = pytest_runtest_logreport  # a file that cannot be imported


def run(mutant: Mutant, copy: Path, tests: list[str]) -> None:
    """The fate of a mutant: its change is made in the copy, its tests run in a fork."""
    path = copy / "ravine" / mutant.file
    tests = [*([str(path)] if ">>> " in mutant.text else []), *tests]  # its examples
    mutant.fate, mutant.by = "untouched", ""
    if not tests:
        return
    sound = path.read_text()
    path.write_text(mutant.text)
    _forget(path)
    try:
        ended, failed = _tested(tests, copy)
    finally:
        path.write_text(sound)
        _forget(path)
    if ended in NOT_RUN and not failed:
        sys.exit(f"pytest does not find {tests}")
    mutant.fate = "killed" if ended else "survived"
    by = next(iter(failed), f"exit {ended}") if ended else ""
    mutant.by = by if by.startswith(("tests/", "exit")) else EXAMPLES * bool(by)


def _forget(path: Path) -> None:
    for old in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        old.unlink()


def _tested(tests: list[str], copy: Path, *options: str) -> tuple[int, list[str]]:
    """How the tests end (0: all pass; -9: they took four times as long as they should), and what failed."""
    verdict = copy / "failed"
    verdict.write_text("")
    child = os.fork()
    if child == 0:
        import pytest

        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1), os.dup2(nothing, 2)
        os.chdir(ROOT)
        sys.path.insert(0, str(copy))
        sys.dont_write_bytecode = False
        os.environ["PYTHONPATH"] = str(copy)
        code = 3
        try:
            quiet = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
            quiet += ["-c", str(ROOT / "pyproject.toml")]
            code = pytest.main([*quiet, *(options or ["-x"]), *tests], [Verdict(verdict)])
        finally:
            os._exit(int(code))
    until = time.monotonic() + 60 + 4 * sum(maps()["seconds"].get(name, 200) for name in tests)
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), verdict.read_text().split("\n")[:-1]
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL, verdict.read_text().split("\n")[:-1]


def sample(seed: int, count: int, packages: list[str]) -> list[Mutant]:
    """The sample of a seed, one of each package in turn, with the results so far."""
    code = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        code.update(path.read_bytes())
    key = [code.hexdigest(), count, list(packages)]
    kept, fates = (STORE / f"sample-{seed}.json", STORE / f"fates-{seed}.jsonl")
    if kept.exists() and (found := json.loads(kept.read_text()))["of"] == key:
        drawn = [Mutant(**row) for row in found["mutants"]]
        for line in fates.read_text().splitlines():
            number, fate, by = json.loads(line)
            drawn[number].fate, drawn[number].by = fate, by
        return drawn
    shares = []
    for number, package in enumerate(packages):
        share = count // len(packages) + (number < count % len(packages))
        stream = mutants(package, random.Random(f"{seed} {package}"))
        shares.append([next(stream) for _ in range(share)])
    drawn = [m for m in chain.from_iterable(zip_longest(*shares)) if m]
    fates.write_text("")
    kept.write_text(json.dumps({"of": key, "mutants": [asdict(m) for m in drawn]}, indent=1))
    return drawn


def keep(number: int, mutant: Mutant, seed: int) -> None:
    with (STORE / f"fates-{seed}.jsonl").open("a") as file:
        file.write(json.dumps([number, mutant.fate, mutant.by]) + "\n")


def known() -> dict[tuple[str, str, str], str]:
    """Mutants that no test can kill, with the reason."""
    rows = tomllib.loads((ROOT / "bench" / "mutants.toml").read_text())["equivalent"]
    return {(row["file"], row["before"], row["after"]): row["reason"] for row in rows}


def try_all(drawn: list[Mutant], given: argparse.Namespace) -> None:
    """Run the mutants without a fate; those killed by a test that fails on the sound code too once more without it."""
    heavies = (
        "torch",
        "numpy",
        "pandas",
        "pydantic",
        "matplotlib",
        "sklearn",
        "typer",
        "pytest",
        "hypothesis",
    )
    for heavy in heavies:
        __import__(heavy)  # the forks need not
    for mutant in drawn:
        if (mutant.file, mutant.before, mutant.after) in known():
            mutant.fate = "equivalent"
    again, times = (("", *REMAIN), 10) if given.again or given.tests else (("",), 1)
    first = enumerate(drawn[: given.first])
    waiting = {i: m for i, m in first if m.fate in again and m.file.startswith(given.only)}
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "src"
        (Path(place) / "examples").symlink_to(ROOT / "examples")  # where its gallery looks
        shutil.copytree(SOURCE, copy / "ravine", ignore=shutil.ignore_patterns("__pycache__"))
        while True:
            for number, mutant in waiting.items():
                run(mutant, copy, given.tests or tests_of(mutant.file, mutant.line, times))
                keep(number, mutant, given.seed)
                show(mutant)
            waiting = doubtful(drawn, copy) if given.store or not given.tests else {}
            if not waiting:
                return


def doubtful(drawn: list[Mutant], copy: Path) -> dict[int, Mutant]:
    """The mutants killed by a test that fails on the sound code too; the map is without it from now on."""
    killers = {m.by for m in drawn if m.fate == "killed" and m.by.startswith("tests/")}
    failed = {name for name in killers if "::" not in name and _tested([name], copy, "--co")[0]}
    tests = sorted(name for name in killers if "::" in name)
    failed |= set(_tested(tests, copy, "--maxfail=1000")[1]) if tests else set()
    (STORE / "unsound.json").write_text(json.dumps(sorted(unsound() | failed)))
    unsound.cache_clear()
    return {i: m for i, m in enumerate(drawn) if m.fate == "killed" and m.by in failed}


def show(mutant: Mutant) -> None:
    if mutant.fate != "killed":
        print(f"{mutant.fate}: {mutant.file}:{mutant.line}")
        print(f"    - {mutant.before}\n    + {mutant.after}", flush=True)


def counts(drawn: list[Mutant], seed: int) -> dict:
    """What is stored: the fates by package, what survived, and why some are equivalent."""
    packages: dict[str, Counter] = {}
    for mutant in drawn:
        packages.setdefault(mutant.package, Counter())[mutant.fate or "not run"] += 1
    reasons = known()
    kept = [
        {"file": m.file, "before": m.before, "after": m.after, "fate": m.fate}
        | {"reason": reasons.get((m.file, m.before, m.after), "")}
        for m in drawn
        if m.fate not in ("killed", "")
    ]
    kept.sort(key=lambda row: (row["file"], row["before"], row["after"]))
    return {"seed": seed, "drawn": len(drawn), "packages": packages, "not_killed": kept}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--map", nargs="*", help="map these folders or files of tests (none: all)")
    parser.add_argument(
        "--record", nargs="+", help=argparse.SUPPRESS
    )  # some of them, in this process
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="*", default=PACKAGES)
    parser.add_argument("--draw", action="store_true", help="draw the sample, and run nothing")
    parser.add_argument(
        "--again", action="store_true", help="what was not killed: ten times the tests"
    )
    parser.add_argument("--first", type=int, help="so many of the sample, evenly from the packages")
    parser.add_argument("--only", default="", help="those in files that begin so: study/search")
    parser.add_argument("--tests", nargs="+", help="by these tests, not by those of the map")
    parser.add_argument("--store", action="store_true", help=f"write {COUNTS.relative_to(ROOT)}")
    given = parser.parse_args()
    STORE.mkdir(exist_ok=True)
    if given.record:
        record(given.record)
    elif given.map is not None:
        make_map(given.map)
    else:
        tried(given)


def tried(given: argparse.Namespace) -> None:
    drawn = sample(given.seed, given.count, given.packages)
    if given.draw:
        return
    if not maps()["lines"]:
        sys.exit("first: python bench/mutants.py --map")
    try:
        try_all(drawn, given)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on")
    stored = counts(drawn, given.seed)
    for package, fates in stored["packages"].items():
        of = sum(fates.values()) - fates.get("equivalent", 0) - fates.get("not run", 0)
        killed = fates.get("killed", 0)
        print(f"{package}: {killed} of {of} killed ({killed / max(of, 1):.0%}); {fates}")
    if given.store:
        COUNTS.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
