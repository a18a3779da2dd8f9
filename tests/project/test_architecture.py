"""The walls of docs/architecture.md, held over the sources' own import statements."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

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
FORBIDDEN = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "torch.load",
    "torch.save",
}
NO_TORCH = BASE - {"randomness"} | {"report"}


def part_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's syntax tree: each file is parsed once."""
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def calls(file: Path) -> list[ast.Call]:
    return [node for node in nodes(file) if isinstance(node, ast.Call)]


@cache
def imports(file: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, but not what only type checkers
    read."""
    tests = [
        node
        for node in nodes(file)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    unread = {id(node) for test in tests for node in ast.walk(test)}
    found = set()
    for node in nodes(file):
        if isinstance(node, ast.Import) and id(node) not in unread:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and id(node) not in unread:
            assert node.level == 0, f"{file}: relative imports hide what is imported"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def crossed(file: Path) -> str:
    """What is wrong with a file's imports, or its name."""
    part, found = part_of(file), imports(file)
    own = (name.split(".")[1] for name in found if name.startswith("ravine."))
    inner = {
        ravine._HOMES.get(name, name).split(".")[0] for name in own
    }  # public names count as the part they come from
    if not inner <= ALLOWED[part]:
        return f"{part} must not import {sorted(inner - ALLOWED[part])}"
    if part in NO_TORCH and any(name.split(".")[0] == "torch" for name in found):
        return f"{part} must not import torch"
    if pickling := {name for name in found if {name, name.split(".")[0]} & FORBIDDEN}:
        return f"imports {sorted(pickling)}"
    return "say what is in it" if file.stem in {"utils", "helpers", "common"} else ""


def test_walls():
    wrong = {file: crossed(file) for file in FILES}
    assert not {file: said for file, said in wrong.items() if said}


def only_weights(node):
    """Checkpoints that a person names are read by PyTorch's reader of tensors and containers."""
    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
    return ast.unparse(node.func) == "torch.load" and options.get("weights_only") == "True"


def test_nothing_reads_or_writes_pickle():
    for file in FILES:
        for node in calls(file):
            called = ast.unparse(node.func)
            told = f"{file}: {called} in line {node.lineno}"
            assert called not in {"torch.load", "torch.save"} or only_weights(node), told
            assert "pickle" not in called, told
            pickles = {ast.unparse(k.value) for k in node.keywords if k.arg == "allow_pickle"}
            assert pickles <= {"False"}, told
            assert pickles or called not in {"np.save", "numpy.save"}, f"{told}: allow_pickle=False"


def test_texts_are_written_whole_or_not_at_all():
    """By ``files.write_text``, or to the path that ``files.atomic`` lends; the lock's number alone is
    written in place."""
    for file in FILES:
        if file.name in ("files.py", "locks.py"):
            continue
        for node in (node for node in calls(file) if isinstance(node.func, ast.Attribute)):
            told = f"{file}: {node.func.attr} in line {node.lineno}"
            assert node.func.attr != "write_text", told
            if node.func.attr == "open" and any(
                isinstance(a, ast.Constant) and str(a.value)[:1] in ("w", "a") for a in node.args
            ):
                assert ast.unparse(node.func.value) == "partial", told


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


def test_no_file_over_450_lines_and_no_function_over_60():
    for file in FILES:
        lines = file.read_text(encoding="utf-8").count("\n")
        assert lines <= 450, f"{file}: divide it by purpose"
        for node in nodes(file):
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
    for node in nodes(file):
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


def test_every_import_of_ravine_names_a_module_that_exists():
    """Also inside functions, which no other test may call."""
    modules = {module_of(one) for one in FILES}
    for file in FILES:
        for node in nodes(file):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ravine":
                assert node.module in modules, f"{file}, line {node.lineno}: {node.module}"


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
