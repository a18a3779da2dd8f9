"""Runs while they train, on the command line: to look at them, and to change their learning rate."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.app.options import Json, Member, RunArgument, edits_of, print_json
from ravine.terminal import visible

Serve = Annotated[bool, typer.Option("--serve", help="Show it on a live page while it trains.")]


def serve(
    directory: Annotated[
        Path, typer.Argument(help="A directory of runs; with --predict, a run.")
    ] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: a free one.")] = 8700,
    predict: Annotated[
        bool, typer.Option("--predict", help="A page and an HTTP endpoint for a run's predictions.")
    ] = False,
    member: Member = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Browse runs and studies with live curves, stop a run or change its learning rate; or answer
    with a run's predictions (extra: web)."""
    if predict:
        from ravine.interop.serving import serve as serve_run
        from ravine.study.ensemble.study import opened

        serve_run(opened(directory, member), port=port, open_=open_)
        return
    from ravine.report.server import serve as serve_

    serve_(directory, port=port, open_=open_)


def ui(
    directory: Annotated[Path, typer.Argument(help="A directory of runs.")] = Path("runs"),
) -> None:
    """The same as serve --open, at a free port."""
    from ravine.report.server import serve as serve_

    serve_(directory, port=0, open_=True)


@contextmanager
def beside(out: Path | None, wanted: bool) -> Iterator[None]:
    """Within it a process of its own serves the runs beside ``out``; its address is printed."""
    if not wanted:
        yield
        return
    folder = Path("runs") if out is None else out.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ravine", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            typer.echo(line.replace("(Ctrl-C ends)", "until training ends").rstrip(), err=True)
            yield
        finally:
            process.terminate()


def set_(
    run: RunArgument,
    change: Annotated[
        str, typer.Argument(metavar="FIELD=VALUE", help="For example optimizer.lr=0.001")
    ],
    json_: Json = False,
) -> None:
    """Change the learning rate of a run while it trains: from its next block of steps on, recorded
    as an event, repeated exactly by resume."""
    from ravine.rundir import RunDir
    from ravine.rundir.requests import answered, ask

    ((field, value),) = edits_of([change]).items()
    with RunDir.open(run) as found:
        request = ask(found, "set", field, value)
        running = found.state == "running"
        taken = running and answered(request)
        text = found.events("set")[-1]["text"] if taken and found.events("set") else ""
    if not taken:
        text = (
            "it takes effect at the next block of steps"
            if running
            else "it takes effect when the run is resumed"
        )
    typer.echo(visible(f"{run}: {text}"), err=json_)
    print_json(json_, {"run": str(run), "field": field, "value": value, "taken": taken})


ALL: tuple[Callable[..., Any], ...] = (serve, ui, set_)
