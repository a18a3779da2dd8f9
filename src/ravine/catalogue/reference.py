"""What fields are, in words, for the command line and the documentation."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import WithJsonSchema
from pydantic.fields import FieldInfo

from ravine.catalogue import Holds, Init, Part, per_member

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_PLAIN = {float: "number", int: "whole number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Row:
    """One field of a part."""

    name: str
    takes: str
    required: bool
    default: Any  # plain data; None where nothing is the default
    per_member: bool
    doc: str


def rows(part: type[Part], *, inherited: bool = False) -> Iterator[Row]:
    """The fields of a part's class, ``kind`` left out; ``inherited``: all that stands there is per
    member.

    >>> from ravine.catalogue import find
    >>> [(row.name, row.takes, row.default) for row in rows(find("optimizer", "sgd").part) if row.name == "momentum"]
    [('momentum', 'number >= 0, < 1', 0.0)]
    """
    own = part.technique.fields if part.technique else {}
    for name in dict.fromkeys([*own, *part.model_fields]):
        if name != "kind":
            field = part.model_fields[name]
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            shown = default.explicit() or None if isinstance(default, Part) else default
            member = per_member(field, inherited)
            yield Row(
                name, takes(field), field.is_required(), shown, member, field.description or ""
            )


def markdown(doc: str) -> str:
    """A docstring as Markdown: its examples become code blocks, and lines of formulas stay lines.

    >>> markdown(">>> 1 + 1\\n2").splitlines()
    ['```python', '>>> 1 + 1', '2', '```']
    """
    blocks = doc.strip().split("\n\n")
    return "\n\n".join(
        f"```python\n{block}\n```" if block.startswith(">>>") else _lines(block) for block in blocks
    )


def _lines(block: str) -> str:
    """A paragraph of which every line holds a formula keeps its lines: two spaces break them."""
    lines = block.splitlines()
    return "  \n".join(lines) if all("=" in line for line in lines) else block


def takes(annotation: Any) -> str:
    """What a field with this annotation takes, in words.

    >>> takes(int | None), takes(typing.Literal["a", "b"]), takes(tuple[int, ...])
    ('whole number', "'a' or 'b'", 'list: whole number')
    """
    base, marks = _open(annotation)
    kind = next((mark.kind for mark in marks if isinstance(mark, Holds)), None)
    if kind:
        return kind
    if base is Init:
        return "initializer"
    if any(isinstance(mark, WithJsonSchema) for mark in marks):
        return "duration"
    options = typing.get_args(base)
    if typing.get_origin(base) in (typing.Union, types.UnionType):
        return " or ".join(
            dict.fromkeys(takes(option) for option in options if option is not type(None))
        )
    if typing.get_origin(base) is typing.Literal:
        return " or ".join(map(repr, options))
    if typing.get_origin(base) is tuple:
        return (
            f"list: {takes(options[0])}"
            if options[-1] is ...
            else f"[{', '.join(map(takes, options))}]"
        )
    found = [(sign, getattr(mark, name, None)) for mark in marks for name, sign in _SIGNS.items()]
    limits = [f"{sign} {limit:g}" for sign, limit in found if limit is not None]
    return f"{_PLAIN.get(base, 'table')} {', '.join(limits)}".strip()


def _open(annotation: Any) -> tuple[Any, list[Any]]:
    """The type within ``Annotated`` and pydantic's fields, and its marks."""
    if isinstance(annotation, FieldInfo):
        base, marks = _open(annotation.annotation)
        return base, [*marks, *annotation.metadata]
    if typing.get_origin(annotation) is Annotated:
        base, marks = _open(typing.get_args(annotation)[0])
        own = typing.get_args(annotation)[1:]
        return base, [
            *marks,
            *(
                m
                for mark in own
                for m in (mark.metadata if isinstance(mark, FieldInfo) else [mark])
            ),
        ]
    return annotation, []
