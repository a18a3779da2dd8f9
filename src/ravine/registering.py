"""Python of a person's own: how it enters the catalogue of this process, and what a recipe that names
it asks for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ravine.catalogue import FILES, OwnTechnique, enter
from ravine.catalogue.own import PREFIX, describe, missing, model_code, name_of
from ravine.catalogue.part import Part
from ravine.errors import InputError, first_line, unknown
from ravine.recipe import Recipe

GROUP = "ravine.techniques"  # of entry points
_FILES: list[ModuleType] = []  # that a person has named
_LOADED: list[str] = []  # what a person has named: other processes of a study load it too


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


def load(place: str) -> None:
    """Run a Python file, or load a package's entry points, so that the techniques which stand there
    are registered. A person names it; nothing that is read from a file does.

    A package lists its modules in its ``pyproject.toml``:
    ``[project.entry-points."ravine.techniques"]``.

    Errors: a file that is not there, or fails; a package without such entry points.
    """
    if place.endswith(".py"):
        _run_file(Path(place))
        _LOADED.append(str(Path(place).absolute()))
        return
    found = [
        point
        for point in importlib.metadata.entry_points(group=GROUP)
        if place in (point.name, point.dist.name if point.dist else "")
    ]
    if not found:
        raise InputError(
            "--with",
            got=place,
            expected=f"a file NAME.py, or an installed package with entry points {GROUP}",
        )
    for point in found:
        point.load()
    _LOADED.append(place)


def module_in_files(model: Part) -> Any:
    """The module that a recipe names, from the files that a person has named on the command line: a class
    of ``nn.Module``, or a function of the source that the recipe knows. No other function is called because
    a recipe names it. None where the recipe needs none, or no file has it."""
    if model.kind != "module":
        return None
    for file in reversed(_FILES):
        found = vars(file).get(str(getattr(model, "name", "")))
        bases = [(each.__module__, each.__name__) for each in getattr(found, "__mro__", ())]
        if ("torch.nn.modules.module", "Module") in bases:
            return found
        if callable(found) and getattr(model, "code", None) == model_code(found):
            return found
    return None


def loaded() -> list[str]:
    """The files and packages that were loaded, each once."""
    return list(dict.fromkeys(_LOADED))


def _run_file(path: Path) -> None:
    if not path.is_file():
        raise InputError("--with", got=str(path), expected="a Python file")
    name = path.stem if path.stem not in sys.modules else f"with_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _FILES.append(module)
    sys.modules[name] = module  # where the sources of its classes are looked for
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:  # a person's file may fail in any way
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise InputError(
            "--with",
            got=where,
            expected="Python that runs",
            repair=f"{type(error).__name__}: {first_line(error)}",
        ) from None


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
    absent = [part for part in own_parts(list(parts)) if part.technique.own is None]
    if absent:
        names = dict.fromkeys(part.kind.removeprefix(PREFIX) for part in absent)
        line = call.format(", ".join(names))
        raise missing(absent[0].technique.kind, absent[0].kind, line)


def differences(recipes: Iterable[Part]) -> list[str]:
    """Which own parts of stored recipes have another source here than when they were stored."""
    found = {
        f"the source of {part.kind} ({part.technique.kind}) differs from that of the stored run"
        for part in own_parts(list(recipes))
        if part.technique.own is not None and part.code not in (None, part.technique.own.code)
    }
    return sorted(found)


def renewed(recipe: Recipe) -> Recipe:
    """A recipe that is trained anew holds the hashes of the sources that it is trained with."""
    if not differences([recipe]):
        return recipe
    return type(recipe)(**_without_hashes(recipe.to_dict(explicit=True)))


def _without_hashes(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_without_hashes(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    own = str(plain.get("kind", "")).startswith(PREFIX)
    return {n: _without_hashes(v) for n, v in plain.items() if not (own and n == "code")}
