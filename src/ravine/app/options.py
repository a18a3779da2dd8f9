"""What commands share: their options, the recipe that these make, and what they print."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.engine.ranks import launcher
from ravine.errors import InputError, unknown
from ravine.storage.files import to_json
from ravine.terminal import visible

RecipeArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RECIPE|DATA]",
        help="A recipe file, or your data: a table (.csv), a text (.txt), arrays (.npz), a folder "
        "of images or texts by class; none: handwritten digits.",
    ),
]
Target = Annotated[str | None, typer.Option("--target", help="Of a table: what to predict.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="How long to train.")]
Rate = Annotated[float | None, typer.Option("--lr", help="The learning rate.")]
BatchSize = Annotated[int | None, typer.Option("--batch", min=1, help="Samples in a batch.")]
Minutes = Annotated[
    float | None, typer.Option("--minutes", help="Of your data: how long training may take.")
]
ModelName = Annotated[str | None, typer.Option("--model", help="A model of the catalogue.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any field: --set optimizer.lr=0.01"),
]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write; never overwritten.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The seed of the run.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar, no summary.")]
Open = Annotated[bool, typer.Option("--open", help="Open the report in a browser at the end.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Say how the run was computed, too.")]
Json = Annotated[
    bool, typer.Option("--json", help="The last line on standard output is one JSON object.")
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="FILE.py|PACKAGE",
        help="Techniques of your own: a file with @ravine.technique, or a package that has them.",
    ),
]
RanksOption = Annotated[
    int | None,
    typer.Option("--ranks", min=1, help="Processes that train together on this machine."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Read the files named by a run that was not made here by this user."
    ),
]
NewData = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DATA]", help="New data with their targets, in the form of the training data."
    ),
]
NewInput = Annotated[
    Path | None,
    typer.Argument(metavar="[INPUT]", help="A file or folder in the form of the training data."),
]
Split = Annotated[
    str | None,
    typer.Option(help="train, validation or test, of the run's own data", show_default="test"),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track", metavar="TRACKER", help="tensorboard, mlflow or wandb, while it trains."
    ),
]
Augment = Annotated[
    int,
    typer.Option(
        min=0, help="Average over so many copies of each input too, augmented as the recipe says."
    ),
]
Prompt = Annotated[
    str, typer.Option(help="The text that the sample continues.", show_default="a new line")
]
Temperature = Annotated[
    float,
    typer.Option(
        min=0,
        help="Sampling temperature; below 1 likely characters are preferred, at 0 the likeliest is taken.",
    ),
]
Member = Annotated[int, typer.Option("--member", help="Which member of the run directory.")]


SHORTCUTS: dict[str, tuple[Any, str]] = {  # options that set a field of the recipe
    "target": (Target, "data.source.target"),
    "epochs": (Epochs, "stop.after"),
    "lr": (Rate, "optimizer.lr"),
    "batch": (BatchSize, "data.batch"),
    "model": (ModelName, "model"),
    "minutes": (Minutes, "stop.minutes"),  # and a starter's plan
    "seed": (Seed, "seed"),
    "set_": (Set, ""),
}


def starter_from(
    path: Path | None, given: dict[str, Any], study_minutes: float | None = None
) -> Any:
    """The recipe that a command's argument and its options make, with the reasons of what a starter
    has chosen; the ``SHORTCUTS`` among the options are taken out of ``given``. With
    ``study_minutes``, one for the runs of a study of that time."""
    from ravine.starters.start import start, start_of_study

    minutes = given.pop("minutes", None)
    edits = edits_from(given)
    found = (
        start_of_study(path, edits, study_minutes) if study_minutes else start(path, edits, minutes)
    )
    if found.found and launcher.first_to_say(found.found):
        typer.echo(visible(found.found), err=True)
    return found


def trackers(names: Collection[str] | None) -> list[Any]:
    """Trackers by name, with their default settings."""
    if not names:
        return []
    from importlib import import_module

    known = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "WandB"}
    for name in names:
        if name not in known:
            raise unknown("--track", name, known)
    return [getattr(import_module(f"ravine.interop.{name}"), known[name])() for name in names]


def edits_from(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that ``SHORTCUTS`` set, by path; these are taken out of ``given``."""
    own = {name: given.pop(name, None) for name in SHORTCUTS}
    if own["epochs"] is not None:
        own["epochs"] = f"{own['epochs']}ep"
    fields = {name: field for name, (_, field) in SHORTCUTS.items() if field}
    chosen = {field: own[name] for name, field in fields.items() if own[name] is not None}
    if own["model"] is not None and (Path(own["model"]) / "recipe.json").is_file():
        raise InputError(
            "--model",
            got=own["model"],
            expected="the name of a model, not a run",
            repair=f"to go on from its weights: --set start.weights={own['model']}",
        )
    return edits_of(own["set_"]) | chosen


def with_shortcuts(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose ``**given`` are the ``SHORTCUTS``, after its first parameter."""
    first, *others = inspect.signature(function, eval_str=True).parameters.values()
    own = [p for p in others if p.kind is not p.VAR_KEYWORD]
    named = [first, *shortcuts({p.name for p in own}), *own]

    @wraps(function)
    def call(**given: Any) -> None:
        function(**given)

    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=p.KEYWORD_ONLY) for p in named]
    )
    call.__annotations__ = {p.name: p.annotation for p in named}
    return call


def shortcuts(taken: Collection[str] = ()) -> list[inspect.Parameter]:
    """The parameters of the ``SHORTCUTS``, without those that a command has for itself."""
    return [keyword(name, kind, None) for name, (kind, _) in SHORTCUTS.items() if name not in taken]


def keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A parameter as Typer reads it."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def edits_of(changes: list[str] | None) -> dict[str, Any]:
    """``["optimizer.lr=0.01"]`` as what ``Recipe.edit`` takes."""
    from ravine.recipe import parse_value

    edits: dict[str, Any] = {}
    for change in changes or []:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(
                "--set",
                got=change,
                expected="KEY=VALUE",
                repair="for example --set optimizer.lr=0.01",
            )
        edits[key.strip()] = parse_value(value)
    return edits


def print_json(wanted: bool, result: dict[str, Any]) -> None:
    """The one line on standard output that ``--json`` promises."""
    if wanted:
        sys.stdout.write(to_json(result) + "\n")


def size_of(path: Path) -> str:
    """How large a file or a folder is, for people.

    >>> size_of(tmp) if not list(tmp.iterdir()) else "0 kB"
    '0 kB'
    """
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    size = sum(each.stat().st_size for each in files)
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["ravine", *sys.argv[1:]])


def cell(value: Any) -> str:
    """A value as text in a table of the terminal.

    >>> cell(0.123456), cell(12345), cell((3, 32, 32)), cell(["a", "b"]), cell(None), cell(True)
    ('0.1235', '12,345', '3 x 32 x 32', 'a, b', '', 'True')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        if value and len(value) <= 4 and all(isinstance(item, int) for item in value):
            return " x ".join(map(str, value))
        return ", ".join(map(str, value[:12])) + ("…" if len(value) > 12 else "")
    return "" if value is None else str(value)
