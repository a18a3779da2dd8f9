"""The command line: each command a few lines over the library, torch imported only by those that
need it."""

from __future__ import annotations

import inspect
import io
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine import measures
from ravine.app import bench as benches
from ravine.app import gallery as galleries
from ravine.app import guard as guard
from ravine.app import interop as interop
from ravine.app import live as live
from ravine.app import studies as studies
from ravine.app.options import (
    Augment,
    Json,
    Member,
    NewData,
    NewInput,
    Open,
    Out,
    Prompt,
    Quiet,
    RanksOption,
    RecipeArgument,
    RunArgument,
    Split,
    Temperature,
    Track,
    Trust,
    Verbose,
    With,
    edits_from,
    keyword,
    print_json,
    size_of,
    starter_from,
    trackers,
    with_shortcuts,
)
from ravine.engine.ranks import launcher
from ravine.errors import InputError, RavineError
from ravine.stop_signals import raised
from ravine.terminal import browse, console, say, visible
from ravine.version import VERSION

app = typer.Typer(
    name="ravine",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train deep networks, see what is wrong with a run, and prove the cure.",
)


STUDIES = "Study many runs"
GROUPS = {  # the help lists commands by what they are for; a study that is in none is a study
    "Train": ("train", "resume", "set"),
    "Use a trained network": ("evaluate", "predict", "export"),
    "Look": ("data", "show", "summary", "catalogue", "report", "serve", "ui", "tensorboard"),
    "Find what is wrong": ("doctor", "advise", "babysit", "gradcheck", "signals"),
    STUDIES: (),
    "Measure Ravine": tuple(each.__name__ for each in (*galleries.ALL, *benches.ALL)),
}


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"ravine {VERSION}")
        raise typer.Exit


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a command whose errors are one clear message and an exit code: 1 the run failed, 2
    the input was wrong. A warning is shown once, however often it is given."""

    @wraps(function)
    def guarded(*args: Any, with_: list[str] | None, trust: bool, **kwargs: Any) -> None:
        about = kwargs.get("run") or kwargs.get("subject")
        with guard.guarded(trust, about), warnings.catch_warnings():
            warnings.showwarning = _once()
            if with_:
                from ravine.registering import load

                for place in with_:
                    load(place)
            if function.__name__ not in ("train", "resume"):
                launcher.refuse_ranks(function.__name__)
            function(*args, **kwargs)

    signature = inspect.signature(function, eval_str=True)
    parameters = [*signature.parameters.values(), keyword("with_", With, None)]
    parameters.append(keyword("trust", Trust, False))
    guarded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    guarded.__annotations__ = {each.name: each.annotation for each in parameters}
    guarded.__doc__ = " ".join((function.__doc__ or "").split())  # wrapped by the terminal's width
    name = function.__name__.rstrip("_").replace("_", "-")
    group = next((g for g, names in GROUPS.items() if name in names), STUDIES)
    return app.command(name, cls=guard.Command, rich_help_panel=group)(guarded)


@command
@with_shortcuts
def train(
    recipe: RecipeArgument = None,
    out: Out = None,
    quiet: Quiet = False,
    json_: Json = False,
    seeds: Annotated[
        int,
        typer.Option("--seeds", min=1, max=10_000, help="Train this many seeds as one population."),
    ] = 1,
    doctor: Annotated[
        bool,
        typer.Option(
            "--doctor/--no-doctor", help="Examine the recipe before, and the run at its end."
        ),
    ] = True,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines/--no-baselines",
            help="Of a table: say what a linear model and gradient boosting reach.",
        ),
    ] = True,
    serve: live.Serve = False,
    open_: Open = False,
    verbose: Verbose = False,
    ranks: RanksOption = None,
    track: Track = None,
    **given: Any,
) -> None:
    """Train a recipe, or your own data by a recipe that fits them; without either, a small network
    on handwritten digits."""
    _as_ranks(ranks)
    start = starter_from(recipe, given)
    from ravine.training.train import train_many

    first = start.recipe
    recipes = [first.edit({"seed": first.seed + i}) for i in range(seeds)] if seeds > 1 else [first]
    options: dict[str, Any] = {"doctor": doctor, "written": start.to_toml()}
    with live.beside(out, serve):
        runs = train_many(recipes, out=out, quiet=quiet or json_, track=trackers(track), **options)
    _finish(runs, quiet, json_, baselines=baselines, verbose=verbose)
    if open_:
        runs[0].open()


@command
def resume(
    run: RunArgument,
    quiet: Quiet = False,
    json_: Json = False,
    after: Annotated[
        str | None, typer.Option("--after", help="Extend a finished run to this end, e.g. 40ep.")
    ] = None,
    join: Annotated[
        bool,
        typer.Option("--join", help="Of a study: share the work with all who join, anywhere."),
    ] = False,
    workers: studies.Workers = None,
    open_: Open = False,
    verbose: Verbose = False,
    ranks: RanksOption = None,
    track: Track = None,
) -> None:
    """Continue an interrupted run or study (the result is bit for bit that of one that was not
    interrupted), or extend a finished run."""
    if (run / "study.json").is_file():
        studies.resume_command(run, "join" if join else workers, quiet, json_, open_)
        return
    if join or workers:
        option = "--join" if join else "--workers"
        raise InputError(option, got=f"{run}, no study", expected="the directory of a study")
    _as_ranks(ranks)
    from ravine.training.train import resume as resume_

    runs = resume_(run, after=after, quiet=quiet or json_, track=trackers(track))
    _finish(runs, quiet, json_, verbose=verbose)
    if open_:
        runs[0].open()


@command
@with_shortcuts
def doctor(
    subject: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECIPE|DATA|RUN]",
            help="A recipe file, your data, or a run directory; none: handwritten digits.",
        ),
    ] = None,
    prove: Annotated[
        bool,
        typer.Option("--prove", help="Search for a cure by experiment and verify it on new seeds."),
    ] = False,
    budget: Annotated[
        float,
        typer.Option(
            min=5,
            help="Limit of --prove: training steps of all its members, in units of the original run.",
        ),
    ] = 20.0,
    member: Member = 0,
    out: Out = None,
    quiet: Quiet = False,
    json_: Json = False,
    **given: Any,
) -> None:
    """Name what is wrong with a recipe or a run, with numbers; --prove finds and verifies a
    cure."""
    from ravine.app.doctor import consult

    print_json(
        json_,
        consult(
            subject,
            given,
            member=member,
            cure=prove,
            budget=budget,
            out=out,
            quiet=quiet or json_,
        ),
    )


@command
def evaluate(
    run: RunArgument,
    data: NewData = None,
    member: Member = 0,
    json_: Json = False,
    split: Split = None,
) -> None:
    """Loss and metrics of a run on a split of its data, or on new data with their targets."""
    from ravine.app.predict import evaluated

    named, found = evaluated(_opened(run, member), data, split)
    _table(f"{run} on {data or split or 'test'}", found)
    print_json(json_, {"run": str(run), "member": member, **named, **found})


@command
def predict(
    run: RunArgument,
    input_: NewInput = None,
    out: Annotated[Path, typer.Option("--out", help="The CSV (or text) file to write.")] = Path(
        "predictions.csv"
    ),
    member: Member = 0,
    seed: Annotated[int, typer.Option(help="Of the text that is sampled.")] = 0,
    json_: Json = False,
    length: Annotated[
        int, typer.Option(min=1, help="Characters to sample from a text model.")
    ] = 500,
    prompt: Prompt = "",
    temperature: Temperature = 0.8,
    augment: Augment = 0,
    costs: Annotated[
        str | None,
        typer.Option(
            help="Answer with the class of least expected cost: a row for each true class, "
            'a column for each answer, e.g. "0,1;5,0".'
        ),
    ] = None,
) -> None:
    """Predict a file or a folder of inputs; a text model writes sampled text, which goes on from the file's."""
    from ravine.app.predict import predict_file, prompt_of, sample_file

    opened = _opened(run, member)
    if opened.pipeline.data.source.kind in ("text", "shakespeare"):
        prompt = prompt if input_ is None else prompt_of(input_)
        count = sample_file(
            opened, out, length=length, prompt=prompt, temperature=temperature, seed=seed
        )
        what = "characters"
    else:
        count = predict_file(opened, input_, out, augment, costs)
        what = "prediction" if count == 1 else "predictions, a row each"
    typer.echo(visible(f"wrote {out}: {count:,} {what}"), err=json_)
    print_json(json_, {"run": str(run), "out": str(out), "count": count})


@command
@with_shortcuts
def data(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Your data, mnist, csv:PATH, folder:PATH, … or a recipe file."
        ),
    ],
    out: Out = None,
    json_: Json = False,
    **given: Any,
) -> None:
    """What is in the data: counts, ranges, constant features, class balance and samples, before
    anything is trained."""
    from ravine.app.data import show_data
    from ravine.starters.start import named_data

    print_json(json_, show_data(named_data(source, edits_from(given)), out))


@command
@with_shortcuts
def show(recipe: RecipeArgument = None, out: Out = None, json_: Json = False, **given: Any) -> None:
    """Draw a sheet of augmented samples: each original beside several draws, as training sees
    them."""
    from ravine.app.data import show_augmented

    print_json(json_, show_augmented(starter_from(recipe, given).recipe, out))


@command
@with_shortcuts
def summary(recipe: RecipeArgument = None, json_: Json = False, **given: Any) -> None:
    """The network's layers: shapes, parameters, FLOPs, receptive field."""
    from ravine.app.inspect import show_summary

    print_json(json_, show_summary(starter_from(recipe, given).recipe))


@command
def catalogue(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A kind (optimizer, layer, …), a technique (adam), or recipe."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Every technique: formula, fields, defaults, source. `ravine catalogue recipe --json` gives
    the JSON schema."""
    from ravine.app.inspect import show_catalogue

    print_json(json_, show_catalogue(name))


@command
def report(run: RunArgument, json_: Json = False, open_: Open = False) -> None:
    """Write a run's report anew."""
    from ravine.report.run_page import write_report
    from ravine.rundir import RunDir

    path = write_report(RunDir.open(run))
    typer.echo(visible(f"wrote {path}: the report of {run}, {size_of(path)}"), err=json_)
    print_json(json_, {"run": str(run), "report": str(path)})
    if open_:
        browse(path)


for function in (*live.ALL, *studies.commands(), *interop.ALL, *galleries.ALL, *benches.ALL):
    command(function)


# --- pieces ---------------------------------------------------------------------------------------


def _as_ranks(wanted: int | None) -> None:
    """Run the command as so many ranks instead, where this process is not one of them already."""
    if launcher.launched():
        launcher.check_ranks(wanted)
    elif wanted is not None:
        sys.exit(launcher.launch(sys.argv[1:], wanted))


def _opened(path: Path, member: int) -> Any:
    """A run's member, or an ensemble, which is used in the same way; torch is loaded here."""
    from ravine.study.ensemble.study import opened

    return opened(path, member)


def _finish(
    runs: list[Any],
    quiet: bool,
    as_json: bool,
    *,
    baselines: bool = False,
    verbose: bool = False,
) -> None:
    from ravine.training.outcome import outcome, print_outcome

    if launcher.silent():
        return
    scores, last = [], ""
    if baselines and not quiet and runs[0].recipe.data.source.kind == "csv":
        from ravine.training.classical import beside, sentence  # they bring scikit-learn

        scores = beside(runs[0].recipe)
        last = sentence(scores)
    if not quiet and not as_json:
        print_outcome(runs, last, verbose=verbose)
    more = {"baselines": [vars(score) for score in scores]} if scores else {}
    print_json(as_json, outcome(runs) | more)
    if all(run.result["stopped"] == "diverged" for run in runs):
        raise RavineError(f"every member diverged; see {runs[0].directory / 'report.html'}")


def _table(title: str, rows: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in rows.items():
        number = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(name, f"{100 * value:.2f} %" if measures.is_percent(name) else number)
    say(title)
    console().print(table)


def _once() -> Callable[..., None]:
    """What shows a warning, the same text once."""
    seen: set[str] = set()

    def warn(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in seen:
            seen.add(str(message))
            typer.echo(visible(f"ravine: warning: {message}"), err=True)

    return warn


def main() -> None:
    """Run the command line. Ctrl-C and SIGTERM end every command with one line; a second one ends it
    at once."""
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what is no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with raised():
        app()
