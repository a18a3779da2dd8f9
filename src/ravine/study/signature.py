"""What a study's signature says, read without importing torch: its subjects, its options, their help.

The contract, in four lines. A study is a function decorated with ``@study`` in ``study/NAME/study.py``
(or ``study/NAME.py``); its name is the study's. After ``study`` come its subjects, annotated
``Recipe``, ``Run``, ``Run | None`` or ``Sequence[Run]``; every other argument, annotated in the
catalogue's vocabulary or this module's, with a literal default, is an option. ``Args:`` in its
docstring says what each option does, ``name (--flag): text`` where the flag is not the name.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

import ravine.study
from ravine import catalogue
from ravine.catalogue import parse_value
from ravine.catalogue.part import plain
from ravine.errors import InputError, nearest

BY_COMMAS = "values by commas"
Names = Annotated[Sequence[str], BY_COMMAS]
Numbers = Annotated[Sequence[float], BY_COMMAS]
MOST_TRAINED = 10_000  # recipes of a stage: a slip of the key is not waited for
Trained = Annotated[int, Field(strict=True, ge=1, le=MOST_TRAINED)]
Several = Annotated[int, Field(strict=True, ge=2)]
SeveralTrained = Annotated[int, Field(strict=True, ge=2, le=MOST_TRAINED)]
Depth = Annotated[int, Field(strict=True, ge=0, le=1000)]  # layers
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
Split = Literal["train", "validation", "test"]


class _Recipe:
    """Stands for ``ravine.Recipe`` where annotations are read."""


class _Run:
    """Stands for ``ravine.Run`` where annotations are read."""


_VOCABULARY: dict[str, Any] = {
    **{name: v for name, v in (vars(catalogue) | globals()).items() if name[0].isupper()},
    **{"Recipe": _Recipe, "Run": _Run},
}


@dataclass(frozen=True)
class Subject:
    """What a study is about: the recipe, or trained runs."""

    name: str
    is_run: bool
    required: bool
    many: bool


@dataclass(frozen=True)
class Option:
    """One option: its name in Python, its flag on the command line, and what it takes."""

    name: str
    flag: str
    annotation: Any
    default: Any
    help: str

    @property
    def base(self) -> type:
        """``int``, ``float``, ``bool``, ``str``, or ``list`` for several values."""
        return _base(self.annotation)

    @property
    def can_be_off(self) -> bool:
        """Whether it has a value unless it is turned off: None is off."""
        return self.default is not None and _optional(self.annotation)

    @property
    def by_commas(self) -> bool:
        return BY_COMMAS in getattr(_core(self.annotation), "__metadata__", ())

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a Literal; empty for others."""
        found = typing.get_args(self.annotation)
        return found if typing.get_origin(self.annotation) is Literal else ()

    def checked(self, value: Any) -> Any:
        """The value as plain data; an InputError under the flag if it is not what is expected.

        >>> Option("members", "--members", catalogue.Count, 25, "").checked(0)
        Traceback (most recent call last):
        ravine.errors.InputError: --members: got 0; expected a whole number of at least 1
        """
        value = (
            as_texts(value) if self.base is list and isinstance(value, Mapping) else plain(value)
        )
        if value is None and self.default is None:
            return None
        if self.base is list and isinstance(value, str):
            value = self._split(value)
        if self.base is list and not value and self.default != () and self.by_commas:
            raise InputError(self.flag, got="no values", expected=expected(self.annotation))
        try:
            return plain(TypeAdapter(self.annotation).validate_python(value))
        except ValidationError as error:
            first = error.errors()[0]
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, InputError):
                raise cause.under(self.flag) from None
            inner = [part for part in first["loc"] if isinstance(part, int)]
            got = value[inner[0]] if inner and isinstance(value, list | tuple) else value
            repair = nearest(got, self.choices) if isinstance(got, str) else ""
            raise InputError(
                self.flag, got=got, expected=expected(self.annotation), repair=repair
            ) from None

    def _split(self, text: str) -> list[Any]:
        if not self.by_commas:
            return [text]
        parts = split_texts(text)
        return parts if _core(self.annotation) == Names else [parse_value(part) for part in parts]


@dataclass(frozen=True)
class StudySignature:
    """One study, as its signature and docstring say."""

    name: str
    module: str
    doc: str
    subjects: tuple[Subject, ...]
    options: dict[str, Option]

    @property
    def summary(self) -> str:
        """The first paragraph of its docstring."""
        return " ".join(self.doc.partition("\n\n")[0].split())

    @property
    def of_runs(self) -> bool:
        return any(subject.is_run for subject in self.subjects)

    def function(self) -> Callable[..., dict[str, Any]]:
        """The study itself; this imports its file, and with it torch."""
        return getattr(import_module(self.module), self.name)


def declarations() -> dict[str, StudySignature]:
    """Every study, by name."""
    files: list[tuple[Path, str]] = []
    for place in map(Path, ravine.study.__path__):
        files += [(file, f"ravine.study.{file.stem}") for file in sorted(place.glob("*.py"))]
        files += [
            (file, f"ravine.study.{file.parent.name}.study")
            for file in sorted(place.glob("*/study.py"))
        ]
    return {found.name: found for file, module in files for found in _read(file, module)}


def declaration_of(function: Callable[..., Any]) -> StudySignature:
    """The declaration of one study's function."""
    file = Path(function.__code__.co_filename)
    return next(
        found for found in _read(file, function.__module__) if found.name == function.__name__
    )


@cache
def _read(file: Path, module: str) -> tuple[StudySignature, ...]:
    text = file.read_text(encoding="utf-8")
    if "@study" not in text:
        return ()
    return tuple(
        _declaration(node, module)
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator) == "study" for decorator in node.decorator_list)
    )


def _declaration(node: ast.FunctionDef, module: str) -> StudySignature:
    doc = inspect.cleandoc(ast.get_docstring(node) or "")
    described = dict(_described(doc))
    subjects: list[Subject] = []
    options: dict[str, Option] = {}
    for argument, default in _arguments(node):
        name, annotation = argument.arg, argument.annotation
        assert annotation is not None, f"{node.name}.{name} wants an annotation"
        # our own source, a closed vocabulary
        kind = eval(ast.unparse(annotation), dict(_VOCABULARY))
        inner = typing.get_args(kind) or (kind,)
        if _Run in inner or _Recipe in inner:
            many = typing.get_origin(kind) is not None and not _optional(kind)
            subjects.append(Subject(name, _Run in inner, default is None, many))
            continue
        assert default is not None, f"{node.name}.{name} wants a default"
        assert name in described, f"the docstring of {node.name} wants a line on {name} under Args:"
        flag, text = described[name]
        value = ast.literal_eval(default)
        options[name] = Option(name, flag, kind, value, text)
    return StudySignature(node.name, module, doc, tuple(subjects), options)


def _arguments(node: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Every argument after the first, with its default."""
    given = node.args
    none: list[ast.expr | None] = [None] * (len(given.args) - len(given.defaults))
    yield from list(zip(given.args, [*none, *given.defaults], strict=True))[1:]
    yield from zip(given.kwonlyargs, given.kw_defaults, strict=True)


def _described(doc: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """The lines under ``Args:``: name, flag and text of each option."""
    _, _, section = doc.partition("\nArgs:\n")
    block = re.split(r"\n(?=\S)", section)[0]
    for entry in re.split(r"\n(?=    \S)", block.rstrip()):
        found = re.match(r"\s*(\w+)(?: \((--[\w-]+)\))?: (.*)", entry, re.DOTALL)
        if found:
            name, flag, text = found.groups()
            yield name, (flag or f"--{name.replace('_', '-')}", " ".join(text.split()))


# --- annotations ----------------------------------------------------------------------------------


def expected(annotation: Any) -> str:
    """What an annotation takes, in words.

    >>> expected(Several), expected(Fraction), expected(Split)
    ('a whole number of at least 2', 'a number between 0 and 1', 'one of train, validation, test')
    """
    annotation = _core(annotation)
    if typing.get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(annotation)))}"
    if annotation == Numbers:
        return "numbers by commas"
    base = _base(annotation)
    if base is list:
        return "names by commas" if annotation == Names else "a list of texts"
    words = {int: "a whole number", float: "a number", bool: "true or false"}.get(base, "text")
    bounds = {
        name: value
        for mark in getattr(annotation, "__metadata__", ())
        if isinstance(mark, FieldInfo)
        for bound in mark.metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(bound, name, None)) is not None
    }
    if {"gt", "lt"} <= set(bounds):
        return f"{words} between {bounds['gt']:g} and {bounds['lt']:g}"
    if {"ge", "le"} <= set(bounds):
        return f"{words} from {bounds['ge']:g} to {bounds['le']:g}"
    forms = {"ge": "of at least", "gt": "greater than", "le": "of at most", "lt": "less than"}
    return " ".join([words, *(f"{forms[name]} {value:g}" for name, value in bounds.items())])


def _optional(annotation: Any) -> bool:
    return isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union


def _core(annotation: Any) -> Any:
    """The annotation without ``| None``."""
    if not _optional(annotation):
        return annotation
    return next(inner for inner in typing.get_args(annotation) if inner is not types.NoneType)


def _base(annotation: Any) -> type:
    annotation = _core(annotation)
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _base(typing.get_args(annotation)[0])
    if origin is Literal:
        return type(typing.get_args(annotation)[0])
    return list if origin is not None else annotation


def split_texts(text: str) -> list[str]:
    """Texts apart by commas, those within brackets, braces and quotes kept together."""
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def split_values(text: str) -> list[Any]:
    """Values apart by commas.

    >>> split_values("sgd,[64, 32],0.1")
    ['sgd', [64, 32], 0.1]
    """
    return [parse_value(part) for part in split_texts(text)]


def as_texts(values: Mapping[str, Any]) -> list[str]:
    """Fields and lists of their values, as on the command line; functions and classes of a person's
    own by their names.

    >>> as_texts({"optimizer.kind": ["sgd", "adam"], "model.hidden": [[64], [64, 32]]})
    ['optimizer.kind="sgd","adam"', 'model.hidden=[64],[64, 32]']
    """
    texts = []
    for path, listed in values.items():
        if not isinstance(listed, list | tuple):
            expected = "a list of its values"
            raise InputError(f"over: {path}", got=listed, expected=expected)
        kind = kind_at(path)
        texts.append(f"{path}={','.join(_as_toml(kind, value) for value in listed)}")
    return texts


_KINDS = {"metrics": "metric", "constraints": "constraint", "layers": "layer"}


def kind_at(path: str) -> str:
    """The kind of technique that a field of the recipe takes, if it takes one; ``optimizer.kind`` names
    an optimiser."""
    place = path.removesuffix(".kind").rpartition(".")[2]
    return _KINDS.get(place, place)


def _as_toml(kind: str, value: Any) -> str:
    """A value as TOML; what has no words there as the part of a recipe that it makes."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_as_toml(kind, each) for each in value)}]"
    if kind in catalogue.FILES and not isinstance(value, str | Mapping):
        value = catalogue.as_table(kind, value)
    if isinstance(value, Mapping):
        held = {name: each for name, each in value.items() if each is not None}
        inner = (f"{name} = {_as_toml(name, each)}" for name, each in held.items())
        return f"{{{', '.join(inner)}}}"
    value = plain(value)
    if not isinstance(value, str | int | float):
        raise InputError(
            f"over: {kind}",
            got=type(value).__name__,
            expected="a name, a number, a list, a table, or a function or class where a part of the "
            "recipe may be one",
        )
    return json.dumps(value)
