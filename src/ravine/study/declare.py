"""``@study``: from a function's signature follow its call in Python, its command, what
``study.json`` holds, and how it is resumed.

The contract, in four lines. The function receives the ``Study`` (its directory, and what was given
in Python), its subjects and its checked options; it trains stages by ``study.train`` and computes
pieces by ``study.once``, so that it may be called again after a kill; nothing is written before the
first of these, so bad input raises before. It returns its summary, which is plain data, and its
page. ``summary["failure"]``, if there is one, makes the command end with exit code 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypedDict, get_type_hints

from ravine.catalogue import Count
from ravine.engine.run import Run
from ravine.errors import InputError, unknown
from ravine.recipe import Recipe, from_keywords
from ravine.rundir.contents import of_sound
from ravine.rundir.mark import check_trust
from ravine.rundir.rundir import fresh_path
from ravine.starters.frames import source_of
from ravine.starters.start import start_with
from ravine.storage.claims import Claim
from ravine.study.asked import Asked
from ravine.study.directory import Study, read_request
from ravine.study.own_values import require_values
from ravine.study.page import Findings, Page, print_page, write_page
from ravine.study.signature import Option, StudySignature, declaration_of, declarations
from ravine.study.workers.joined import join
from ravine.terminal import say

P = ParamSpec("P")
Conclusion = tuple[dict[str, Any], Page]


class Common(TypedDict, total=False):
    """The arguments that every study takes besides its own options."""

    model: Any  # a module, or a function that makes one, as for ``ravine.train``
    data: Any  # (x, y), a Dataset, …, as for ``ravine.train``
    out: str | Path | None  # the study directory; the same call continues an interrupted study
    quiet: bool  # no progress, no closing lines
    command: str  # how the study was called, for its report
    workers: str | None  # who trains: "here", "join", "ray" or "ray:ADDRESS"
    group: int | None  # at most so many recipes of a program train together


class OfRecipe(Common, total=False):
    """What a study of a recipe takes besides, as ``ravine.train`` does, unless it has an option of that
    name: fields of the recipe."""

    target: (
        str | float | None
    )  # a text is the column to predict, also where a study has a number to reach
    epochs: float | None
    steps: int | None
    lr: float | None
    batch: int | Literal["full"] | None
    minutes: float | None  # of each run
    seed: int | None


def study(function: Callable[Concatenate[Study, P], Conclusion]) -> Callable[P, dict[str, Any]]:
    """Make a study of a function; what is called does not take the ``Study`` and gives the
    summary."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        return _conduct(function, args, kwargs)

    call.__signature__ = _public(function)  # type: ignore[attr-defined]
    # doctest passes over wrapped functions
    examples = function.__globals__.setdefault("__test__", {})
    examples[function.__name__] = function.__doc__ or ""
    return call


@of_sound
def resume_study(
    directory: str | Path,
    *,
    model: Any = None,
    data: Any = None,
    quiet: bool = False,
    workers: str | None = None,
) -> dict[str, Any]:
    """Continue a study by what its directory says: what is finished is read, the rest is done.

    ``workers``: who trains, unless as before; "join": together with every other process that calls
    this on the same directory.
    """
    request = read_request(Path(directory))
    known = declarations()
    if request["kind"] not in known:
        raise unknown("study", request["kind"], known)
    if data is None:
        check_trust(Path(directory), request["made_here"], Recipe(**request["recipe"]))
    subjects: dict[str, Any] = {
        name: [_run(one, model) for one in found] if _several(found) else _run(found, model)
        for name, found in request["runs"].items()
    }
    if not subjects:
        recipe = next(s.name for s in known[request["kind"]].subjects if not s.is_run)
        subjects[recipe] = Recipe(**request["recipe"])
    common = {"model": model, "data": data, "out": directory, "quiet": quiet}
    common |= {"workers": workers or request.get("workers"), "group": request.get("group")}
    return known[request["kind"]].function()(**subjects, **request["options"], **common)


def _given(
    declaration: StudySignature,
    signature: inspect.Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """What a call gives, by name, with the defaults."""
    where = f"{declaration.name}(…)"
    for name in kwargs:
        if name not in signature.parameters:
            raise unknown(where, name, signature.parameters)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        first = declaration.subjects[0]
        made = "run" if first.is_run else "ravine.Recipe(optimizer='adam')"
        expected = f"{first.name} first, then options by name"
        repair = f"call ravine.{declaration.name}({made}, …)"
        raise InputError(where, got=str(error), expected=expected, repair=repair) from None
    bound.apply_defaults()
    return dict(bound.arguments)


def _conduct(
    function: Callable[..., Conclusion], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    declaration = declaration_of(function)
    given = _given(declaration, _public(function), args, kwargs)
    common: Any = {name: given.pop(name) for name in Common.__annotations__}
    fields = _fields(given, declaration)
    options = {
        name: option.checked(given.pop(name)) for name, option in declaration.options.items()
    }
    if not declaration.of_runs and isinstance(common["model"], str | dict):
        fields["model"], common["model"] = common["model"], None  # a name is a field, too
    subjects, asked = {}, None
    for subject in declaration.subjects:
        found = given[subject.name]
        if subject.is_run:
            found = _run_of(found, options, common["model"])
        else:
            wanted = _asked_for(found, fields, options.get("minutes"), common["quiet"])
            found, asked = wanted.recipe(declaration.name, common["out"]), wanted.words
        subjects[subject.name] = found
    _check_group(common["group"])
    first = next(iter(subjects.values()))
    recipe = first if isinstance(first, Recipe) else first.recipe
    if first is recipe:
        require_values(declaration.name, recipe, options, common["out"])
    runs = {name: found for name, found in subjects.items() if not isinstance(found, Recipe | None)}
    if common["data"] is None:
        for found in runs.values():
            for run in found if isinstance(found, list | tuple) else [found]:
                run.check_trust()

    def whole(claim: Claim | None = None) -> dict[str, Any]:
        places = {name: _place(found) for name, found in runs.items()}
        name = declaration.name
        opened = Study(name, recipe, options, runs=places, claim=claim, asked=asked, **common)
        try:
            summary, page = function(opened, **subjects, **options)
            opened.begin()
            write_page(opened, page)
            summary = Findings(opened.write_summary(summary), page)
        finally:
            opened.release()
        if not opened.quiet:
            print_page(page, opened.path)
        return summary

    if common["workers"] != "join":
        return whole()
    common["out"] = Path(common["out"] or fresh_path(f"{declaration.name}-{recipe.name}"))
    given = {name: common[name] for name in ("model", "data", "quiet")}
    return join(common["out"], whole, **given)


def _check_group(group: Any) -> None:
    Option("group", "--group", Count | None, None, "").checked(group)


def _fields(given: dict[str, Any], declaration: StudySignature) -> dict[str, Any]:
    """The fields of the recipe that a call gives; they are taken out of ``given``."""
    if declaration.of_runs:
        return {}
    known = [name for name in OfRecipe.__annotations__ if name not in declaration.options]
    fields = {name: given.pop(name) for name in known if name not in Common.__annotations__}
    if isinstance(given.get("target"), str):
        fields["target"], given["target"] = given["target"], None
    return {name: value for name, value in fields.items() if value is not None}


def _public(function: Callable[..., Any]) -> inspect.Signature:
    """The signature without the ``Study``, and with what every study takes."""
    own = list(inspect.signature(function).parameters.values())[1:]
    named = [p for p in own if p.kind is not p.VAR_KEYWORD]
    defaults: dict[str, Any] = {"quiet": False, "command": ""}
    of_recipe = named[0].annotation in ("Recipe", Recipe)
    more = get_type_hints(OfRecipe if of_recipe else Common)
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=kind
        )
        for name, kind in more.items()
        if name not in {p.name for p in named}
    ]
    return inspect.Signature([*named, *common], return_annotation=dict[str, Any])


# --- subjects -------------------------------------------------------------------------------------


def _asked_for(given: Any, fields: dict[str, Any], minutes: float | None, quiet: bool) -> Asked:
    """A recipe, its file, or data, with fields; ``minutes`` are those of the whole study."""
    if isinstance(given, Asked):
        return given
    subject = given if isinstance(given, Recipe | str | Path) else str(source_of(given))
    wanted = dict(fields)
    return Asked(subject, wanted, minutes, lambda: _recipe_of(given, fields, minutes, quiet))


def _recipe_of(given: Any, fields: dict[str, Any], minutes: float | None, quiet: bool) -> Recipe:
    """A recipe, from a recipe, its file, or data; ``minutes`` are those of the whole study."""
    if isinstance(given, Recipe):
        return from_keywords(given, fields)
    begun, rest = start_with(given, fields.pop("model", None), fields, minutes)
    if begun.found and not quiet:
        say(begun.found)
    return from_keywords(begun.recipe, rest)


def _run_of(given: Any, options: dict[str, Any], model: Any) -> Any:
    """A run, or several, from runs or their directories."""
    if given is None:
        return None
    if isinstance(given, list | tuple):
        return [one if isinstance(one, Run) else Run(one) for one in given]
    if isinstance(given, Run):
        if "member" in options:
            options["member"] = given.member
        return given
    return Run(given, options.get("member", 0), module=model)


def _place(found: Any) -> list[Any]:
    """Where runs lie, as it is stored: directory and member."""
    if isinstance(found, Run):
        return [str(found.directory), found.member]
    return [_place(one) for one in found]


def _several(found: list[Any]) -> bool:
    return all(isinstance(one, list) for one in found)


def _run(place: Sequence[Any], model: Any) -> Run:
    return Run(place[0], place[1], module=model)


__all__ = ["Common", "Conclusion", "Study", "StudySignature", "resume_study", "study"]
