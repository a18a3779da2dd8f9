"""Taking trained networks elsewhere, on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.app.options import Json, Member, Quiet, RunArgument, print_json, size_of
from ravine.terminal import say


def export(
    run: RunArgument,
    member: Member = 0,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="safetensors, torch (torch.export) or onnx; a file's ending says it.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A new directory or file; default: RUN/export.")
    ] = None,
    preprocess: Annotated[
        bool,
        typer.Option("--preprocess/--no-preprocess", help="Take raw inputs, and prepare them."),
    ] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Export a trained network: weights and recipe, a torch.export program, or ONNX."""
    from ravine.interop.export import export as write

    found = write(run, member=member, form=form, out=out, preprocess=preprocess)
    if not quiet:
        place = Path(found["path"])
        inside = ", ".join(sorted(each.name for each in place.iterdir())) if place.is_dir() else ""
        what = f": {inside}, {size_of(place)}" if inside else f": {size_of(place)}"
        say(f"wrote {place}{what}")
    print_json(json_, found)


def tensorboard(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="A new log directory; default: RUN/tensorboard.")
    ] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Write a run's measurements as TensorBoard logs (extra: tensorboard)."""
    from ravine.interop.tensorboard import write_logs

    found = write_logs(run, out)
    if not quiet:
        typer.echo(f"wrote {found['path']}; tensorboard --logdir {found['path']}", err=True)
    print_json(json_, found)


ALL: tuple[Callable[..., Any], ...] = (export, tensorboard)
