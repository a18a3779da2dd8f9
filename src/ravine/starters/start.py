"""What a person names, a recipe or data, as the recipe that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ravine.catalogue import table
from ravine.errors import InputError
from ravine.recipe import Data, Recipe, check_ends, keyword_edit, parse_value
from ravine.starters.frames import source_of
from ravine.starters.guess import guess, is_recipe
from ravine.starters.starter import starter
from ravine.starters.written import Starter

RUNS = 30  # whole runs of a search within a time: the least costs ten, and a machine has other work too
DIGITS = Path(__file__).parent.parent / "digits.toml"


def start(
    subject: Recipe | str | Path | None,
    edits: Mapping[str, Any] | None = None,
    minutes: float | None = None,
) -> Starter:
    """The recipe, with the reasons of what a starter has chosen.

    ``subject`` is a recipe, the path of a recipe file, or the path of data: a table, a text, arrays,
    a folder of images or of texts. None is the source that ``edits`` name, or else the handwritten
    digits. ``edits`` are fields by path, as ``--set`` has them; ``minutes`` is the time that
    command may take: a starter makes its plan for it, and its run stops in time for the report;
    training of a recipe stops at it.

    Errors: what ``guess`` refuses; an edit of no field.

    >>> place = tmp / "houses.csv"
    >>> _ = place.write_text("size,price\\n" + "\\n".join(f"{i},{3 * i}" for i in range(100)))
    >>> start(place, {"stop.after": "2ep"}).recipe.stop.after
    '2ep'
    """
    return _start(subject, dict(edits or {}), minutes)


def start_of_study(
    subject: str | Path | None, edits: Mapping[str, Any], minutes: float | None
) -> Starter:
    """The same for a study of so many ``minutes`` in all, None for a study without such a limit:
    RUNS whole runs fit into them, and no run is stopped."""
    return _start(subject, dict(edits), minutes, 1 if minutes is None else RUNS)


def _start(
    subject: Recipe | str | Path | None,
    edits: dict[str, Any],
    minutes: float | None,
    runs: int = 1,
) -> Starter:
    if not isinstance(subject, Recipe) and is_planned(subject, edits):
        if subject is None:
            return starter(_source(edits), edits, minutes, runs=runs)
        found = guess(Path(subject))
        edits = source_edits(found.source) | edits
        return starter(_source(edits), edits, minutes, f"{subject}: {found.words}", runs)
    if minutes is not None and runs == 1:
        edits["stop.minutes"] = minutes
    if isinstance(subject, Recipe):
        return Starter(subject.edit(edits), {}, subject.name)
    place = Path(subject or DIGITS)
    return Starter(Recipe.load(place).edit(edits), {}, f"{place.stem}, as it was trained")


def is_planned(subject: str | Path | None, edits: Mapping[str, Any]) -> bool:
    """Whether a recipe is made for what is named: for data, not for a recipe file or the digits."""
    if subject is None:
        return any(path.startswith("data.source") for path in edits)
    return not is_recipe(Path(subject))


def start_with(
    path: Any, model: Any, keywords: Mapping[str, Any], study_minutes: float | None = None
) -> tuple[Starter, dict[str, Any]]:
    """The start from a path or a DataFrame with ``train``'s keywords; those that are fields of the
    starter's own choices alone, or functions, are given back, to be applied to its recipe.
    ``study_minutes``: as for ``start_of_study``."""
    check_ends(keywords)
    source = source_of(path)
    if source is None and not isinstance(path, str | Path):
        raise InputError(
            "recipe",
            got=f"an object of type {type(path).__name__}",
            expected="a Recipe, the path of a recipe file, the path of data, or a DataFrame",
            repair="give arrays as data=(x, y), and a network as model=module",
        )
    edits: dict[str, Any] = {} if model is None else {"model": model}
    if source is not None:
        path, edits = None, edits | source_edits(source)
    elif not is_recipe(Path(path)):
        source = guess(Path(path)).source
    base = Recipe().edit(source_edits(source)) if source else Recipe()
    rest: dict[str, Any] = {}
    for name, value in keywords.items():
        if name == "minutes":
            continue  # it is more than a field: the plan is made for it
        try:
            found = {} if callable(value) else keyword_edit(name, value, base)
        except InputError:
            found = {}
        edits |= found
        if not found:
            rest[name] = value
    if study_minutes is not None:
        return start_of_study(path, edits, study_minutes), rest
    return start(path, edits, keywords.get("minutes")), rest


def named_data(subject: str, edits: Mapping[str, Any]) -> Data:
    """The data that a recipe file, a path or a source such as ``csv:houses.csv`` names."""
    if is_recipe(Path(subject)):
        return Recipe.load(subject).edit(edits).data
    if subject.startswith("{") or subject.partition(":")[0] in table("source"):
        return Recipe().edit({"data.source": parse_value(subject), **edits}).data
    return Recipe().edit(source_edits(guess(Path(subject)).source) | dict(edits)).data


def source_edits(source: Mapping[str, Any]) -> dict[str, Any]:
    """A source's fields by path."""
    return {f"data.source.{key}": value for key, value in source.items()}


def _source(edits: Mapping[str, Any]) -> dict[str, Any]:
    of_source = {path: value for path, value in edits.items() if path.startswith("data.source")}
    return dict(Recipe().edit(of_source).to_dict(explicit=True)["data"]["source"])
