"""Own parts among the values that a study compares or searches: whether this process holds them, and the
line that brings those that it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ravine.catalogue import FILES, find
from ravine.catalogue.own import PREFIX
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.registering import own_parts
from ravine.study.signature import kind_at, split_values


def require_values(name: str, recipe: Recipe, options: Mapping[str, Any], out: Any) -> None:
    """Every own part that a study's recipe or its options name is in this process.

    Errors: what is not, by name, with the call that brings it.
    """
    absent = {
        (part.technique.kind, part.kind.removeprefix(PREFIX))
        for part in own_parts(recipe)
        if part.technique.own is None
    }
    fields = {option: fields_of_texts(texts) for option, texts in options.items()}
    for listed in fields.values():
        for path, values in listed.items():
            absent |= {(k, n) for k, n in _named(kind_at(path), values) if not _is_here(k, n)}
    if not absent:
        return
    names = ", ".join(sorted({bare for _, bare in absent}))
    given = [f"{option}={_as_python(listed)}" for option, listed in fields.items() if listed]
    given += [] if out is None else [f"out={str(out)!r}"]
    raise InputError(
        name,
        got=", ".join(f"{PREFIX}{bare} ({kind})" for kind, bare in sorted(absent))
        + ", your own Python code, which no file holds",
        expected=f"{names} in this process",
        repair=f"call it where they are defined: ravine.{name}(recipe, {', '.join(given)}); or on the "
        f"command line with --with FILE.py, where @ravine.technique(KIND) is written above them",
    )


def fields_of_texts(texts: Any) -> dict[str, list[Any]]:
    """Fields and their values in texts such as ``"loss=cross_entropy,own:mine"``; of other options
    none."""
    if not isinstance(texts, list | tuple):
        return {}
    parted = [text.partition("=") for text in texts if isinstance(text, str) and "=" in text]
    return {path.strip(): split_values(listed) for path, _, listed in parted}


def _named(kind: str, value: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of each own part in a value."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _named(kind if name == "kind" else kind_at(str(name)), inner)
    elif isinstance(value, str):
        if value.startswith(PREFIX) and kind in FILES:
            yield kind, value.removeprefix(PREFIX).partition(":")[0]
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _named(kind, inner)


def _is_here(kind: str, bare: str) -> bool:
    return getattr(find(kind, PREFIX + bare), "own", None) is not None


def _as_python(value: Any) -> str:
    """A value as a person writes it, own parts by their names."""
    if isinstance(value, Mapping):
        kind = value.get("kind")
        if isinstance(kind, str) and kind.startswith(PREFIX):
            return kind.removeprefix(PREFIX)
        return "{" + ", ".join(f"{n!r}: {_as_python(v)}" for n, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_as_python, value)) + "]"
    if isinstance(value, str) and value.startswith(PREFIX):
        return value.removeprefix(PREFIX)
    return repr(value)
