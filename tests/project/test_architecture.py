"""The walls of docs/architecture.md, held over the sources' own import statements."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import ravine

SOURCE = Path(__file__).parents[2] / "src" / "ravine"
FILES = sorted(SOURCE.rglob("*.py"))

BASE = {
    "errors",
    "storage",
    "layout",
    "catalogue",
    "registering",
    "recipe",
    "randomness",
    "records",
    "rundir",
    "measures",
    "stop_signals",
    "terminal",
    "machine",
    "version",
}
TECHNIQUES = {"data", "nn", "optim"}
ORDER = (
    {"report"},
    {"engine"},
    {"starters"},
    {"doctor"},
    {"training"},
    {"study"},
    {"interop", "bench", "gallery"},
    {"app"},
    {"__init__", "__main__"},
)
ALLOWED = dict.fromkeys(BASE, BASE) | {part: BASE | {part} for part in TECHNIQUES}
below = BASE | TECHNIQUES
for floor in ORDER:
    below = below | floor
    ALLOWED |= dict.fromkeys(floor, below)
ALLOWED["report"] = {
    "storage",
    "errors",
    "catalogue",
    "measures",
    "recipe",
    "rundir",
    "report",
}
NO_TORCH = BASE - {"randomness"} | {"report"}


def part_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, but not what only type checkers
    read."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tests = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    unread = {id(node) for test in tests for node in ast.walk(test)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in unread:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and id(node) not in unread:
            assert node.level == 0, f"{file}: relative imports hide what is imported"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_walls(file):
    part, found = part_of(file), imports(file)
    own = (name.split(".")[1] for name in found if name.startswith("ravine."))
    inner = {
        ravine._HOMES.get(name, name).split(".")[0] for name in own
    }  # public names count as the part they come from
    assert inner <= ALLOWED[part], f"{part} must not import {sorted(inner - ALLOWED[part])}"
    if part in NO_TORCH:
        assert not {name for name in found if name.split(".")[0] == "torch"}, (
            f"{part} must not import torch"
        )
    assert file.stem not in {"utils", "helpers", "common"}
    forbidden = {
        "pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "torch.load",
        "torch.save",
    }
    assert not {name for name in found if name in forbidden or name.split(".")[0] in forbidden}


def only_weights(node):
    """Checkpoints that a person names are read by PyTorch's reader of tensors and containers."""
    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
    return ast.unparse(node.func) == "torch.load" and options.get("weights_only") == "True"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_nothing_reads_or_writes_pickle(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"torch.load", "torch.save"} or only_weights(node), ast.unparse(
                node
            )
            assert "pickle" not in called, ast.unparse(node)
            pickles = {ast.unparse(k.value) for k in node.keywords if k.arg == "allow_pickle"}
            assert pickles <= {"False"}, ast.unparse(node)
            assert pickles or called not in {"np.save", "numpy.save"}, "say allow_pickle=False"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_texts_are_written_whole_or_not_at_all(file):
    """By ``files.write_text``, or to the path that ``files.atomic`` lends; the lock's number alone is
    written in place."""
    if file.name in ("files.py", "locks.py"):
        return
    written = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "write_text":
                written.append(ast.unparse(node))
            if node.func.attr == "open" and any(
                isinstance(a, ast.Constant) and str(a.value)[:1] in ("w", "a") for a in node.args
            ):
                assert ast.unparse(node.func.value) == "partial", ast.unparse(node)
    assert not written, written


def test_what_is_imported_is_a_stated_dependency():
    project = tomllib.loads((SOURCE.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    extras = project["optional-dependencies"].values()
    stated = [*project["dependencies"], *(name for extra in extras for name in extra)]
    known = {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in stated}
    known |= {"sklearn", "PIL", "mpl_toolkits", "ravine", *sys.stdlib_module_names}
    known |= {
        "scipy",
        "pydantic_core",
        "markupsafe",
        "IPython",
        "mlflow",
    }  # what scikit-learn, pydantic and Jinja2 stand on; where a notebook runs; mlflow-skinny's
    assert {name.split(".")[0] for file in FILES for name in imports(file)} <= known


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_no_file_over_450_lines_and_no_function_over_60(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 450, f"{file}: divide it by purpose"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{file}: {node.name} has {length} lines"


def test_every_part_has_its_place():
    assert {part_of(file) for file in FILES} <= set(ALLOWED)


# --- circles --------------------------------------------------------------------------------------


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def arrows(file: Path, modules: set[str]) -> set[str]:
    """The modules of Ravine that a file imports anywhere: also in functions, where a circle could
    hide, and for type checkers alone."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in modules:  # a name in a module: the module
                name = name.rpartition(".")[0]
            found.add(name)
    return found - {module_of(file), "", "ravine"}  # the package itself loads nothing by itself


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules that reach each other."""

    def reached(start: str) -> set[str]:
        seen, ahead = set(), [start]
        while ahead:
            for target in graph.get(ahead.pop(), set()) - seen:
                seen.add(target)
                ahead.append(target)
        return seen

    reach = {module: reached(module) for module in graph}
    return {
        frozenset(other for other in graph if other in reach[module] and module in reach[other])
        for module in graph
        if module in reach[module]
    }


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_every_import_of_ravine_names_a_module_that_exists(file):
    """Also inside functions, which no other test may call."""
    modules = {module_of(one) for one in FILES}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ravine":
            assert node.module in modules, f"line {node.lineno}: {node.module}"


def test_no_module_imports_itself_by_way_of_others():
    modules = {module_of(file) for file in FILES}
    graph = {module_of(file): arrows(file, modules) for file in FILES}
    assert circles(graph) == set()
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {frozenset({"b", "c"})}


# --- the list of files ----------------------------------------------------------------------------


def listed_files(text: str) -> list[str]:
    """The files of the list in docs/architecture.md: lines ``folder/``, and indented below them
    ``file.py  purpose``."""
    folder, found = "", []
    for line in text.partition("## Every file")[2].splitlines():
        if re.fullmatch(r"[a-z_/]+/", line):
            folder = line.removeprefix("ravine/")
        elif row := re.fullmatch(r"  (\w+\.py) +(\S.*)", line):
            found.append(folder + row[1])
    return found


def test_the_architecture_page_names_every_file_once():
    page = SOURCE.parent.parent / "docs" / "architecture.md"
    named = listed_files(page.read_text(encoding="utf-8"))
    there = [str(f.relative_to(SOURCE)) for f in FILES if f.name != "__init__.py"]
    assert sorted(named) == sorted(there), sorted(set(named) ^ set(there))
