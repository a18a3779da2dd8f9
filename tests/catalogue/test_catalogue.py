"""The catalogue: the table says what the functions are, every name makes a part, every technique is
documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import typing
import warnings
from pathlib import Path

import pytest

import ravine
from ravine.catalogue import ALWAYS_PER_MEMBER, COMMON, FILES, MEMBER, Part, find, held, make, table
from ravine.catalogue.catalogue import _techniques
from ravine.errors import InputError
from ravine.recipe import fields

SOURCE = Path(ravine.__file__).parent
ROWS = [(kind, name) for kind in FILES for name in table(kind)]
row = pytest.mark.parametrize(("kind", "name"), ROWS, ids=[f"{kind}-{name}" for kind, name in ROWS])

# How many arguments a function of each kind receives before its ``*``.
GIVEN = {
    "source": 1,
    "preprocess": 1,
    "augment": 2,
    "layer": 1,
    "initializer": 3,
    "loss": 0,
    "metric": 2,
    "model": 2,
    "optimizer": 5,
    "schedule": 3,
    "constraint": 2,
}


@row
def test_the_table_is_what_the_function_is(kind, name):
    technique = find(kind, name)
    function = technique.function()
    parameters = inspect.signature(function).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    missing = inspect.Parameter.empty
    assert {
        field: missing if default is ... else default
        for field, (_, default) in technique.fields.items()
    } == own
    assert len([p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]) == GIVEN[kind]
    assert not [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert technique.module == function.__module__


@row
def test_every_technique_makes_a_part(kind, name):
    technique = find(kind, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a field that shadows one of pydantic's, for instance
        part = technique.part
    clash = set(technique.fields) & (
        set(dir(Part)) | set(COMMON.get(kind, Part).model_fields) | {"kind"}
    )
    assert not clash, f"these names are taken: {clash}"
    if not any(field.is_required() for field in part.model_fields.values()):
        made = make(kind, name)
        assert made == make(kind, {"kind": name}) == make(kind, made) == part()
        assert made.explicit() == {"kind": name}
        assert set(made.arguments) == set(technique.fields)
        assert hash(made) == hash(part())  # frozen all the way down


@row
def test_an_absent_value_is_the_default(kind, name):
    """TOML has no null, so None may be a field's value only where it is its default."""
    for field_name, (annotation, default) in find(kind, name).fields.items():
        inner = (
            typing.get_args(annotation)[0]
            if typing.get_origin(annotation) is typing.Annotated
            else annotation
        )
        if type(None) in typing.get_args(inner):
            assert default is None, field_name


OLDER_THAN_PAPERS = {
    ("layer", "dense"),
    ("layer", "flatten"),
    ("layer", "reshape"),
    ("layer", "transpose"),
    ("layer", "chain"),
    ("initializer", "zeros"),
    ("initializer", "constant"),
    ("initializer", "uniform"),
    ("initializer", "normal"),
    ("loss", "auto"),
    ("loss", "output"),
    ("model", "layers"),
    ("model", "module"),
    ("model", "linear"),
    ("schedule", "constant"),
    ("schedule", "step"),
    ("schedule", "exponential"),
    ("schedule", "polynomial"),
    ("schedule", "on_plateau"),
    ("schedule", "table"),
    ("constraint", "unit_norm"),
    ("constraint", "l2_ball"),
}
HAVE_PAPERS = {"layer", "initializer", "loss", "model", "optimizer", "schedule", "constraint"}


@row
def test_every_technique_is_documented(kind, name):
    doc, first = find(kind, name).doc, find(kind, name).summary
    assert first.endswith((".", "?"))
    assert 10 < len(first) <= 240, "the first paragraph is a sentence or two"
    if kind in HAVE_PAPERS and (kind, name) not in OLDER_THAN_PAPERS:
        assert "Source" in doc, "say where it comes from: Source: author, year"


@pytest.mark.parametrize("kind", ALWAYS_PER_MEMBER)
def test_what_is_always_per_member(kind):
    for technique in table(kind).values():
        assert all(
            MEMBER in getattr(a, "__metadata__", ()) for a, _ in technique.fields.values()
        ), technique.name


def test_per_member_and_structural_fields_of_a_part():
    marks = {path: member for path, _, member in fields(make("loss", "cross_entropy"))}
    assert marks["l2"]
    assert not marks["kind"]
    assert not marks["class_weights"]


def test_every_public_function_of_the_files_is_listed_once():
    for kind, files in FILES.items():
        names = [t.name for file in files for t in _techniques(kind, file)]
        assert len(names) == len(set(names)), f"two techniques of one name: {sorted(names)}"


def test_no_file_of_techniques_is_forgotten():
    """A file whose functions use the vocabulary as techniques do, yet which is not in FILES."""
    listed = {file.replace(".", "/") + ".py" for files in FILES.values() for file in files}
    vocabulary = {
        "Positive",
        "NonNegative",
        "Probability",
        "Decay",
        "Count",
        "PerMember",
        "Flag",
        "Duration",
    }
    for folder in ("data", "nn", "optim"):
        for path in (SOURCE / folder).glob("*.py"):
            if path.relative_to(SOURCE).as_posix() in listed:
                continue
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    said = {ast.unparse(a.annotation) for a in node.args.kwonlyargs if a.annotation}
                    assert not said & vocabulary, f"{path.name}: is {node.name} a technique?"


def test_the_short_forms():
    assert make("layer", "dropout:0.5") == make("layer", {"kind": "dropout", "rate": 0.5})
    assert make("source", "csv:a:b.csv").path == "a:b.csv"
    assert make("source", "text:3").path == "3"
    layers = make("model", {"kind": "layers", "layers": ["relu"]})
    assert make("model", ["relu"]) == make("model", {"layers": ["relu"]}) == layers
    assert held(dict(table("model")["layers"].fields)["layers"][0]) == "layer"


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("optimizer", "adamm", "kind: got 'adamm'; expected one of .*; did you mean 'adam'"),
        ("optimizer", 3, "got 3; expected the name of a technique"),
        ("optimizer", {"lr": 1}, "expected the name of a technique"),
        ("optimizer", {"kind": 3}, "expected the name of a technique"),
        ("optimizer", None, "expected the name of a technique"),
        ("loss", find("optimizer", "adam").part(), "kind: got 'adam'; expected one of"),
        ("layer", "relu:3", "takes no argument"),
        ("nothing", "adam", "kind: got 'nothing'; expected one of"),
    ],
)
def test_what_makes_no_part(kind, value, message):
    with pytest.raises(InputError, match=message):
        make(kind, value)


def test_reading_the_table_imports_no_technique():
    modules = {f"ravine.{file}" for files in FILES.values() for file in files}
    assert all(importlib.util.find_spec(module) for module in modules)
