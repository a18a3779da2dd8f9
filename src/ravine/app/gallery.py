"""``ravine gallery`` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.app.options import Json, print_json
from ravine.errors import RavineError
from ravine.storage.files import own_directory
from ravine.terminal import console


def gallery(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Items by name or number; none: all."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="The same claims at smaller sizes; those that need the full size keep it.",
        ),
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Say what there is; run nothing.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Where figures and results.json go.")] = Path(
        "gallery"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the run directories of all networks too.")
    ] = False,
    json_: Json = False,
) -> None:
    """What lectures say of training, checked by live runs: a figure and a claim for each item.

    Exit code 1 if a claim is false on this machine; its line says what was measured.
    """
    from ravine.gallery.collection import chosen, run_all

    items = chosen(names or ())
    if list_:
        for item in items:
            typer.echo(f"{item.number:2d}  {item.name:22s} {item.title}", err=json_)
        print_json(
            json_,
            {"items": [{"number": i.number, "name": i.name, "claim": i.claim} for i in items]},
        )
        return
    own_directory(out, "results.json", "items")
    results = []
    for found in run_all(names or (), out, quick=quick, keep=keep):
        aside = ", at full size" if quick and not found["quick"] else ""
        typer.echo(_line(found, aside), err=True)
        results.append(found)
    _table(results)
    typer.echo(f"wrote {out}: results.json, figures", err=True)
    print_json(json_, {"quick": quick, "out": str(out), "items": results})
    false = [found["name"] for found in results if not found["true"]]
    if false:
        raise RavineError(f"not true here: {', '.join(false)}; the lines above say what was seen")


def _line(found: dict[str, Any], aside: str) -> str:
    """One item as it ends; of a false one, what is wrong."""
    answer = "true" if found["true"] else "FALSE"
    head = f"{found['number']:2d} {found['name']:22s} {answer:5s}{found['seconds']:6.1f} s{aside}"
    wrong = [
        n["text"] + f": {n['mean']:.4g} [{n['low']:.4g}, {n['high']:.4g}], not {n['rule']}"
        for n in found["numbers"]
        if n["judged"] and not n["true"]
    ]
    return "\n   ".join([head, *wrong, *([found["error"]] if "error" in found else [])])


def _table(results: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("", "item", show_lines=True)
    table.add_column("claim", ratio=2, overflow="fold")
    table.add_column("numbers", ratio=3, overflow="fold")
    table.add_column("true")
    table.add_column("seconds", justify="right")
    for found in results:
        table.add_row(
            str(found["number"]),
            found["name"],
            found["claim"],
            "\n".join(found["shown"]),
            "true" if found["true"] else "FALSE",
            f"{found['seconds']:.1f}",
        )
    console().print(table)


ALL = [gallery]
