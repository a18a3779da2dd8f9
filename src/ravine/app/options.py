"""What commands share: their options, the recipe that these make, and what they print."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.errors import InputError
from ravine.files import to_json

RecipeArgument = Annotated[
    Path | None,
    typer.Argument(help="A recipe file. Default: the built-in recipe for handwritten digits."),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any field: --set optimizer.lr=0.01"),
]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write; never overwritten.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The seed of the run.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar, no summary.")]
Json = Annotated[
    bool, typer.Option("--json", help="The last line on standard output is one JSON object.")
]
Member = Annotated[int, typer.Option("--member", help="Which member of the run directory.")]

_STARTERS = {
    "images": ("mnist", "cifar10", "characters", "folder", "idx"),
    "table": ("csv", "npz", "blobs", "circles", "spirals"),
    "text": ("text", "shakespeare"),
}


def recipe_from(
    path: Path | None, changes: list[str] | None, seed: int | None, *, blank: bool = False
) -> Any:
    """The recipe of a file, or the embedded one for the source, with ``--set`` and ``--seed``."""
    from ravine.recipe import Recipe

    edits = edits_of(changes)
    recipe = Recipe() if blank else Recipe.load(path) if path else _embedded(edits)
    if seed is not None:
        edits["seed"] = seed
    return recipe.edit(edits) if edits else recipe


def _embedded(edits: dict[str, Any]) -> Any:
    """The recipe to start from where no file names one: the digits', or that for the kind of data
    that was set."""
    from ravine.recipe import Recipe

    here = Path(__file__).parent.parent
    of_source = {path: value for path, value in edits.items() if path.startswith("data.source")}
    chosen = Recipe().edit(of_source)
    source = chosen.data.source
    kind = next((name for name, sources in _STARTERS.items() if source.kind in sources), "")
    if source.kind == "digits":
        return Recipe.load(here / "digits.toml")
    recipe = Recipe.load(here / "starters" / f"{kind}.toml") if kind else chosen
    recipe = recipe.edit(
        {"name": Path(source.arguments.get("path", source.kind)).stem or source.kind, **of_source}
    )
    if kind == "table" and "data.preprocess" not in edits and _is_regression(recipe):
        of_targets = [{"kind": kind, "of": "targets"} for kind in ("yeo_johnson", "standardize")]
        recipe = recipe.edit(
            {"data.preprocess": [*recipe.to_dict()["data"]["preprocess"], *of_targets]}
        )
    return recipe


def _is_regression(recipe: Any) -> bool:
    from ravine.data.pipeline import task_of

    return task_of(recipe.data) == "regression"


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
