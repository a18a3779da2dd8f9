"""What the source of a file of techniques says of them, read without importing it; and values as
they are typed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from ravine.errors import InputError
from ravine.storage.bounded import parse_toml


def signatures(
    file: str, words: dict[str, Any], marks: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, dict[str, tuple[Any, Any]], frozenset[str]]]:
    """Name, documentation, fields and decorators of every public function of a file of techniques.

    ``words``: what annotations may name; ``marks`` are added to every one.
    """
    path = Path(__file__).parents[1].joinpath(*file.split(".")).with_suffix(".py")
    vocabulary = dict(words)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            vocabulary |= _aliases(node, vocabulary)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            doc = inspect.cleandoc(ast.get_docstring(node) or "")
            decorators = (d.id for d in node.decorator_list if isinstance(d, ast.Name))
            yield node.name, doc, _fields(node, vocabulary, marks), frozenset(decorators)


def _aliases(node: ast.Assign, vocabulary: dict[str, Any]) -> dict[str, Any]:
    """``Average = Literal["macro", "micro"]`` in a file of techniques; what is no annotation is
    passed over."""
    try:
        value = eval(ast.unparse(node.value), dict(vocabulary))
    except (NameError, TypeError):
        return {}
    return {target.id: value for target in node.targets if isinstance(target, ast.Name)}


def _fields(
    node: ast.FunctionDef, vocabulary: dict[str, Any], marks: tuple[str, ...]
) -> dict[str, tuple[Any, Any]]:
    fields = {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        assert argument.annotation is not None, f"{node.name}.{argument.arg} wants an annotation"
        # our own source, a closed vocabulary
        annotation = eval(ast.unparse(argument.annotation), dict(vocabulary))
        for mark in marks:
            annotation = Annotated[annotation, mark]
        fields[argument.arg] = (annotation, ... if default is None else ast.literal_eval(default))
    return fields


def parse_value(text: str) -> Any:
    """A value as typed in ``--set key=value``: TOML where it is TOML, else the text itself; nothing
    is the default.

    >>> parse_value("0.1"), parse_value("true"), parse_value("5ep"), parse_value("")
    (0.1, True, '5ep', None)
    """
    try:
        table = parse_toml(f"x = {text}", "value")
    except InputError:
        return text.strip() or None
    return table["x"] if set(table) == {"x"} else text
