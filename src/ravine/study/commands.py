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


def compare(
    recipe: RecipeArgument = None,
    over: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE,VALUE", help="What differs; several give every combination.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each variant.")] = 10,
    tune: Annotated[str | None, typer.Option(help="Tune this field of each variant first, e.g. lr.")] = None,
    rates: Annotated[str | None, typer.Option(help="What is tried for --tune, by commas; default: 1e-5 to 3, two a decade.")] = None,
    target: Annotated[float | None, typer.Option(help="How soon is the metric this good? Default: what the median variant reaches.")] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Add scikit-learn's models on the same split.")] = False,
    metric: Metric = None, set_: Set = None, out: Resumable = None, seed: Seed = None, quiet: Quiet = False, json_: Json = False,
) -> None:  # fmt: skip
    """Compare variants over seeds: curves with bands, a final table, paired significance."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.compare import RATES
    from ravine.study.compare import compare as run
    from ravine.study.space import split_values

    print_json(json_, run(
        chosen, over or [], seeds=seeds, tune=tune, rates=RATES if rates is None else split_values(rates), target=target,
        baselines=baselines, metric=metric, out=out, quiet=quiet or json_, command=said(),
    ))  # fmt: skip


def lr(
    recipe: RecipeArgument = None,
    low: Annotated[float, typer.Option(help="The lowest rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="The highest rate.")] = 10.0,
    rates: Annotated[int, typer.Option(help="How many.")] = 24,
    after: Annotated[str, typer.Option(help="How long each trains, e.g. 200it or 3ep.")] = "200it",
    set_: Set = None, out: Resumable = None, seed: Seed = None, quiet: Quiet = False, json_: Json = False,
) -> None:  # fmt: skip
    """The learning-rate panel: 24 rates at once, a suggested range, the edge of divergence."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.rates import lr as run

    print_json(json_, run(chosen, low=low, high=high, rates=rates, after=after, out=out, quiet=quiet or json_, command=said()))


ALL: tuple[Callable[..., Any], ...] = (search, compare, lr)
