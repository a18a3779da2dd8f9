"""The studies on the command line: each command follows from the study's own signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.app.options import (
    Json,
    Open,
    Quiet,
    RecipeArgument,
    RunArgument,
    command_line,
    edits_from,
    keyword,
    print_json,
    shortcuts,
    starter_from,
)
from ravine.errors import RavineError
from ravine.storage.bounded import exists
from ravine.study.signature import Option, StudySignature, Subject, declarations
from ravine.terminal import browse, console

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="The study directory; an interrupted one is continued by the same command."
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="here|join|ray|ray:ADDRESS",
        help="Who trains: this process; every process that joins the study; a Ray cluster.",
    ),
]
Group = Annotated[
    int | None,
    typer.Option(
        "--group",
        help="At most so many recipes of a program train together, so that workers can share one; "
        "changes last digits.",
    ),
]
COMMON: dict[str, tuple[Any, Any]] = {
    "out": (Out, None),
    "workers": (Workers, None),
    "group": (Group, None),
    "quiet": (Quiet, False),
    "json_": (Json, False),
    "open_": (Open, False),
}


def commands() -> list[Callable[..., None]]:
    """One command for every study, for Typer."""
    return [_command(declaration) for declaration in declarations().values()]


def resume_command(
    directory: Path, workers: str | None, quiet: bool, json_: bool, open_: bool
) -> None:
    """Continue a study by what its directory says."""
    from ravine.study.declare import resume_study

    if exists(directory / "summary.json") and not (quiet or json_):
        console().print(f"{directory} is finished: nothing was trained", soft_wrap=True)
    _finish(resume_study(directory, workers=workers, quiet=quiet or json_), json_, open_)


def _command(declaration: StudySignature) -> Callable[..., None]:
    of_recipe = [] if declaration.of_runs else shortcuts(declaration.options)

    def command(**given: Any) -> None:
        common = {name: given.pop(name) for name in COMMON}
        changes = {parameter.name: given.pop(parameter.name) for parameter in of_recipe}
        subjects: dict[str, Any] = {
            s.name: given.pop(s.name) or (() if s.many else None) for s in declaration.subjects
        }
        if not declaration.of_runs:
            changes |= _column(given)
            ((name, path),) = subjects.items()
            of_study = None if "minutes" in changes else given.get("minutes")
            subjects[name] = _asked(path, changes, of_study)
        options = {
            name: None if given.get(f"no_{name}") else given[name]
            for name, option in declaration.options.items()
            if not (given[name] is None and option.default == ())
        }
        found = declaration.function()(
            **subjects,
            **options,
            out=common["out"],
            workers=common["workers"],
            group=common["group"],
            quiet=common["quiet"] or common["json_"],
            command=command_line(),
        )
        _finish(found, common["json_"], common["open_"])

    parameters = [_argument(subject) for subject in declaration.subjects]
    own = list(declaration.options.values())
    parameters += [keyword(option.name, *_typed(option, declaration.of_runs)) for option in own]
    parameters += [_off(option) for option in own if option.can_be_off]
    parameters += of_recipe
    parameters += [keyword(name, kind, default) for name, (kind, default) in COMMON.items()]
    command.__name__ = declaration.name
    command.__doc__ = declaration.summary
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _column(given: dict[str, Any]) -> dict[str, Any]:
    """A study's own ``--target`` is a number to reach; a text is the column to predict, as in
    ``ravine train``, and is no option of the study."""
    target = given.get("target")
    if not isinstance(target, str):
        return {}
    try:
        given["target"] = float(target)
    except ValueError:
        given["target"] = None
        return {"target": target}
    return {}


def _asked(path: Path | None, changes: dict[str, Any], of_study: float | None) -> Any:
    """What the argument and the options ask for; the recipe is made where the study has none yet."""
    from ravine.study.asked import Asked

    edits = edits_from(dict(changes))
    minutes = of_study or changes.get("minutes")
    return Asked(path, edits, minutes, lambda: starter_from(path, changes, of_study).recipe)


def _finish(found: dict[str, Any], json_: bool, open_: bool) -> None:
    print_json(json_, found)
    if open_:
        browse(Path(found["report"]))
    if found.get("failure"):
        raise RavineError(f"{found['failure']} See {found['report']}")


# --- parameters -----------------------------------------------------------------------------------


def _argument(subject: Subject) -> inspect.Parameter:
    if not subject.is_run:
        return keyword(subject.name, RecipeArgument, None)
    if subject.required:
        return keyword(subject.name, RunArgument, inspect.Parameter.empty)
    label = f"[{subject.name.upper()}]" + ("..." if subject.many else "")
    kind: Any = list[Path] | None if subject.many else Path | None
    help_ = "Further runs." if subject.many else "A second run."
    return keyword(subject.name, Annotated[kind, typer.Argument(metavar=label, help=help_)], None)


def _typed(option: Option, of_runs: bool) -> tuple[Any, Any]:
    """The annotation that Typer reads, and the default. What a value must be is checked by the
    study itself."""
    flags = [option.flag]
    if option.base is bool and option.default:
        flags = [f"{option.flag}/--no-{option.flag[2:]}"]
    kind: Any = str if option.by_commas else list[str] if option.base is list else option.base
    help_ = option.help
    if option.name == "target" and not of_runs:  # see _column
        kind, help_ = str, f"{option.help} A text: the column of a table to predict."
    default = option.default
    if option.by_commas and default is not None:
        default = ",".join(map(str, default))
    if default is None or default == ():
        kind, default = kind | None, None
    shown: Any = default.replace(",", ", ") if isinstance(default, str) else True  # may be wrapped
    option_ = typer.Option(*flags, metavar=_metavar(option), help=help_, show_default=shown)
    return Annotated[kind, option_], default


def _off(option: Option) -> inspect.Parameter:
    """The flag that turns an option off: ``--no-tune`` beside ``--tune lr``."""
    flag = typer.Option(f"--no-{option.flag[2:]}", help=f"Turn off {option.flag}.")
    return keyword(f"no_{option.name}", Annotated[bool, flag], False)


def _metavar(option: Option) -> str | None:
    return "|".join(map(str, option.choices)) if option.choices else None
