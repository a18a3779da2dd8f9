"""The studies on the command line: each command follows from the study's own signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.app.options import (
    Json,
    Quiet,
    RecipeArgument,
    RunArgument,
    Seed,
    Set,
    command_line,
    print_json,
    recipe_from,
)
from ravine.errors import InputError, RavineError
from ravine.study.options import Declaration, Option, Subject, declarations

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="The study directory; an interrupted one is continued by the same command."
    ),
]
COMMON: dict[str, tuple[Any, Any]] = {
    "set_": (Set, None),
    "out": (Out, None),
    "seed": (Seed, None),
    "quiet": (Quiet, False),
    "json_": (Json, False),
}


def commands() -> list[Callable[..., None]]:
    """One command for every study, for Typer."""
    return [_command(declaration) for declaration in declarations().values()]


def resume_command(directory: Path, quiet: bool, json_: bool) -> None:
    """Continue a study by what its directory says."""
    from ravine.study.declare import resume_study

    _finish(resume_study(directory, quiet=quiet or json_), json_)


def _command(declaration: Declaration) -> Callable[..., None]:
    def command(**given: Any) -> None:
        common = {name: given.pop(name) for name in COMMON}
        subjects = _subjects(declaration, given, common)
        options = {
            name: None if given.get(f"no_{name}") else given[name]
            for name, option in declaration.options.items()
            if name in given and not (given[name] is None and option.default == ())
        }
        if "seed" in declaration.options:
            options["seed"] = common["seed"] or 0
        found = declaration.function()(
            **subjects,
            **options,
            out=common["out"],
            quiet=common["quiet"] or common["json_"],
            command=command_line(),
        )
        _finish(found, common["json_"])

    parameters = [_argument(subject) for subject in declaration.subjects]
    own = [o for o in declaration.options.values() if o.name not in COMMON]  # --seed is common
    parameters += [_parameter(option.name, *_typed(option)) for option in own]
    parameters += [_off(option) for option in own if option.can_be_off]
    parameters += [_parameter(name, kind, default) for name, (kind, default) in COMMON.items()]
    command.__name__ = declaration.name
    command.__doc__ = declaration.summary
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _subjects(
    declaration: Declaration, given: dict[str, Any], common: dict[str, Any]
) -> dict[str, Any]:
    """The recipe that file, ``--set`` and ``--seed`` make; or the runs, whose recipes stand."""
    if not declaration.of_runs:
        (subject,) = declaration.subjects
        path = given.pop(subject.name)
        return {subject.name: recipe_from(path, common["set_"], common["seed"])}
    unused = None if "seed" in declaration.options else common["seed"]
    if common["set_"] or unused is not None:
        raise InputError(
            "--set" if common["set_"] else "--seed",
            got=common["set_"] or unused,
            expected="nothing: the run's recipe stands",
        )
    return {
        subject.name: (given.pop(subject.name) or ()) if subject.many else given.pop(subject.name)
        for subject in declaration.subjects
    }


def _finish(found: dict[str, Any], json_: bool) -> None:
    print_json(json_, found)
    if found.get("failure"):
        raise RavineError(f"{found['failure']} See {found['report']}")


# --- parameters -----------------------------------------------------------------------------------


def _argument(subject: Subject) -> inspect.Parameter:
    if not subject.is_run:
        return _parameter(subject.name, RecipeArgument, None)
    if subject.required:
        return _parameter(subject.name, RunArgument, inspect.Parameter.empty)
    label = f"[{subject.name.upper()}]" + ("..." if subject.many else "")
    kind: Any = list[Path] | None if subject.many else Path | None
    help_ = "Further runs." if subject.many else "A second run."
    return _parameter(
        subject.name, Annotated[kind, typer.Argument(metavar=label, help=help_)], None
    )


def _typed(option: Option) -> tuple[Any, Any]:
    """The annotation that Typer reads, and the default. What a value must be is checked by the
    study itself."""
    flags = [option.flag]
    if option.base is bool and option.default:
        flags = [f"{option.flag}/--no-{option.flag[2:]}"]
    kind: Any = str if option.by_commas else list[str] if option.base is list else option.base
    default = option.default
    if option.by_commas and default is not None:
        default = ",".join(map(str, default))
    if default is None or default == ():
        kind, default = kind | None, None
    return Annotated[
        kind, typer.Option(*flags, metavar=_metavar(option), help=option.help)
    ], default


def _off(option: Option) -> inspect.Parameter:
    """The flag that turns an option off: ``--no-tune`` beside ``--tune lr``."""
    flag = typer.Option(f"--no-{option.flag[2:]}", help=f"Turn off {option.flag}.")
    return _parameter(f"no_{option.name}", Annotated[bool, flag], False)


def _metavar(option: Option) -> str | None:
    return "|".join(map(str, option.choices)) if option.choices else None


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )
