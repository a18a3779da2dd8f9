"""The studies on the command line: each command a few lines; what needs torch is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.terminal import Json, Quiet, RecipeArgument, Seed, Set, print_json, recipe_from, said

Metric = Annotated[str | None, typer.Option(help="The validation metric that chooses; default: the task's own.")]
Resumable = Annotated[
    Path | None, typer.Option("--out", help="The study directory; an interrupted one is continued by the same command.")
]


def search(
    recipe: RecipeArgument = None,
    vary: Annotated[list[str] | None, typer.Option(metavar="PATH=DISTRIBUTION", help="What varies: optimizer.lr=loguniform:1e-5:1 (uniform, integer, choice, normal), with 'if optimizer.kind=sgd'.")] = None,
    method: Annotated[str, typer.Option(help="random, sobol, halton, grid, asha, optuna:TPESampler; several by commas.")] = "random",
    members: Annotated[int, typer.Option(help="Configurations in a round.")] = 25,
    rounds: Annotated[int, typer.Option(help="Rounds; each is drawn around the best so far.")] = 2,
    keep: Annotated[int, typer.Option(help="How many of the best the next round is drawn around.")] = 3,
    finals: Annotated[int, typer.Option(help="Fresh seeds on which the best are run again.")] = 5,
    points: Annotated[int, typer.Option(help="Grid: values of each field.")] = 5,
    first: Annotated[str, typer.Option(help="ASHA: when losers are dropped for the first time.")] = "1ep",
    eta: Annotated[int, typer.Option(help="ASHA: one of this many stays.")] = 3,
    metric: Metric = None, set_: Set = None, out: Resumable = None, seed: Seed = None, quiet: Quiet = False, json_: Json = False,
) -> None:  # fmt: skip
    """Search for better hyper-parameters: populations, each tightened around the best."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.search import search as run

    print_json(json_, run(
        chosen, vary or [], method=method, members=members, rounds=rounds, keep=keep, finals=finals, points=points,
        first=first, eta=eta, metric=metric, out=out, quiet=quiet or json_, command=said(),
    ))  # fmt: skip


ALL: tuple[Callable[..., Any], ...] = (search,)
