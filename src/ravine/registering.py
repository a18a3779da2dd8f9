"""Python of a person's own: how it enters the catalogue of this process, and what a recipe that names
it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from ravine.catalogue import FILES, OwnTechnique, enter
from ravine.errors import InputError, unknown
from ravine.own import PREFIX, describe, missing, name_of
from ravine.part import Part


def technique(
    kind: str, name: str | None = None, *, better: Literal["min", "max"] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function or class of your own as a technique of a kind.

    It is written as the package's own are: what its kind receives, then keyword-only fields with
    annotations of ``ravine.catalogue``. Recipes name it ``own:NAME``. ``better``: the direction in
    which a metric improves.

    >>> from ravine.catalogue import Count, make
    >>> @technique("schedule")
    ... def halves(t, total, epoch, *, every: Count = 10):
    ...     "Half the rate, every so many epochs."
    ...     return 0.5 ** (t // (every * epoch))
    >>> make("schedule", "own:halves").every
    10

    Errors: an unknown kind; a function that cannot be one of that kind.
    """
    if kind not in FILES:
        raise unknown("@ravine.technique", kind, FILES)

    def register(target: Callable[..., Any]) -> Callable[..., Any]:
        try:
            enter(describe(kind, target, name=name, contract=True, better=better))
        except InputError as error:
            raise error.under(f"@ravine.technique {kind}") from None
        return target

    return register


def bring(objects: Any, recipes: Iterable[Part]) -> None:
    """Let ``objects``, a list or a dict by name, be the own parts that recipes name and this process
    does not hold yet."""
    if isinstance(objects, Mapping):
        named = {str(name): each for name, each in objects.items()}
    else:
        listed = objects if isinstance(objects, list | tuple | set) else [objects]
        named = {name_of(each): each for each in listed}
    wanted = {(part.technique.kind, part.kind) for recipe in recipes for part in own_parts(recipe)}
    names = {name.removeprefix(PREFIX) for _, name in wanted}
    for name in named:
        if name not in names:
            raise unknown("own", name, names)
    for kind, name in wanted:
        bare = name.removeprefix(PREFIX)
        if bare in named:
            enter(describe(kind, named[bare], name=bare))


def own_parts(part: Any) -> Iterator[Part]:
    """Every part of a recipe, at any depth, that is a person's own."""
    if isinstance(part, Part):
        if isinstance(part.technique, OwnTechnique):
            yield part
        for name in type(part).model_fields:
            yield from own_parts(getattr(part, name))
    elif isinstance(part, tuple | list):
        for item in part:
            yield from own_parts(item)


def require(parts: Iterable[Any], call: str = "ravine.resume(run, own=[{}])") -> None:
    """Every own part of these is in this process; ``call`` is the line that brings what is not."""
    for part in own_parts(list(parts)):
        if part.technique.own is None:
            raise missing(part.technique.kind, part.kind, call)


def differences(recipes: Iterable[Part]) -> list[str]:
    """Which own parts of stored recipes have another source here than when they were stored."""
    found = {
        f"the source of {part.kind} ({part.technique.kind}) differs from that of the stored run"
        for part in own_parts(list(recipes))
        if part.technique.own is not None and part.code not in (None, part.technique.own.code)
    }
    return sorted(found)
