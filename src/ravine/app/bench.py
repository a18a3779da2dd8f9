"""``ravine bench`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ravine.app.options import Json, print_json
from ravine.errors import unknown
from ravine.storage.files import own_directory


def bench(
    works: Annotated[
        list[str] | None, typer.Argument(help="What is timed; none: everything. See docs/speed.md.")
    ] = None,
    peers: Annotated[
        str,
        typer.Option(help="Competitors by commas; default: all that are installed (extra: bench)."),
    ] = "",
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds in which all take turns, after one that warms up.")
    ] = 5,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of each competitor; 0: one for each core.")
    ] = 0,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Let the peers use mixed precision too.")
    ] = False,
    target: Annotated[
        bool, typer.Option("--target", help="Time to 99 % on MNIST instead, from process start.")
    ] = False,
    machine: Annotated[
        bool, typer.Option("--machine", help="Show what this machine is quick at instead.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where results go; default: by machine.")
    ] = None,
    json_: Json = False,
) -> None:
    """Time Ravine against its peers on this machine: interleaved, medians and ratios."""
    import torch

    if machine:
        shown_machine(json_)
        return
    from ravine.bench import report, time_to_target
    from ravine.bench.measure import measure
    from ravine.bench.peers import PEERS
    from ravine.bench.works import POPULATIONS, WORKS

    chosen = [name.strip() for name in peers.split(",") if name.strip()] or list(PEERS)
    for where, names, known in (
        ("works", works or [], {**WORKS, **POPULATIONS}),
        ("--peers", chosen, PEERS),
    ):
        for name in names:
            if name not in known:
                raise unknown(where, name, known)
    count = threads or torch.get_num_threads()
    mark, key = ("target.json", "rows") if target else ("results.json", "timings")
    out = own_directory(out, mark, key) if out else report.folder_of(count)
    shown = partial(typer.echo, err=True)
    if target:
        rows = time_to_target.race(chosen, rounds=rounds, threads=count, report=shown)
        found, files = report.write_race(rows, out, count), "target.json, target.md"
    else:
        works = works or [*WORKS, *POPULATIONS]
        timings = measure(works, chosen, rounds=rounds, threads=count, bf16=bf16, report=shown)
        found, files = report.write(timings, out, count), "results.json, speed.md, speed.svg"
    shown(f"wrote {out}: {files}")
    print_json(json_, found)


def shown_machine(as_json: bool) -> None:
    """The machine's profile: what the rules read, and every number behind it."""
    from ravine.engine.execution import profile
    from ravine.machine import machine as facts

    found = profile.profile(*profile.SECTIONS)
    assert found is not None
    about = facts()
    typer.echo(f"{about['cpu']}, {about['cores']} cores: {', '.join(about['instructions'])}")
    for line in found.lines():
        typer.echo(line)
    print_json(as_json, {"machine": about, "sections": found.sections})


ALL: tuple[Callable[..., None], ...] = (bench,)
