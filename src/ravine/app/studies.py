"""The studies on the command line: each command a few lines; what needs torch is imported when it
runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ravine.app.options import (
    Json,
    Member,
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

Metric = Annotated[
    str | None, typer.Option(help="The validation metric to choose by. Default: the task's own.")
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH=DISTRIBUTION",
        help="What varies: optimizer.lr=loguniform:1e-5:1 (uniform, integer, choice, normal), with 'if optimizer.kind=sgd'. "
        "Default: learning rate, weight decay, dropout and label smoothing around the recipe's own.",
    ),
]
Resumable = Annotated[
    Path | None,
    typer.Option(
        "--out", help="The study directory; an interrupted one is continued by the same command."
    ),
]


def search(
    recipe: RecipeArgument = None,
    vary: Vary = None,
    method: Annotated[
        str, typer.Option(help="random, sobol, halton, grid, asha, optuna:TPESampler; or several.")
    ] = "random",
    members: Annotated[int, typer.Option(help="Configurations in a round.")] = 25,
    rounds: Annotated[int, typer.Option(help="Rounds; each is drawn around the best so far.")] = 2,
    keep: Annotated[
        int,
        typer.Option(help="How many of the best configurations the next round is drawn around."),
    ] = 3,
    finals: Annotated[
        int, typer.Option(help="New seeds on which the best configurations are trained again.")
    ] = 3,
    points: Annotated[int, typer.Option(help="Grid: values of each field.")] = 5,
    first: Annotated[
        str, typer.Option(help="ASHA: when members are dropped for the first time.")
    ] = "1ep",
    eta: Annotated[
        int, typer.Option(help="Keep one in this many wherever members are dropped.")
    ] = 3,
    drop: Annotated[
        bool, typer.Option(help="Drop hopeless members at a fifteenth and a fifth of the run.")
    ] = True,
    metric: Metric = None,
    set_: Set = None,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Search for better hyper-parameters: populations, each tightened around the best."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.search.study import search as run

    print_json(
        json_,
        run(
            chosen,
            vary or [],
            method=method,
            members=members,
            rounds=rounds,
            keep=keep,
            finals=finals,
            points=points,
            first=first,
            eta=eta,
            drop=drop,
            metric=metric,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def compare(
    recipe: RecipeArgument = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=VALUE,VALUE",
            help="The field that differs, and its values; several are combined.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each variant.")] = 10,
    tune: Annotated[
        str | None, typer.Option(help="Tune this field of each variant first, e.g. lr.")
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(help="Values for --tune by commas; default: 1e-5 to 3, two a decade."),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="Measure how soon the metric reaches this value. Default: the median final value."
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add scikit-learn's models on the same split.")
    ] = False,
    resample: Annotated[
        bool, typer.Option("--resample", help="Every seed also splits and orders the data anew.")
    ] = False,
    metric: Metric = None,
    set_: Set = None,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Compare variants over seeds: curves with bands, a final table, paired significance."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.compare.study import RATES
    from ravine.study.compare.study import compare as run
    from ravine.study.search.space import split_values

    print_json(
        json_,
        run(
            chosen,
            over or [],
            seeds=seeds,
            tune=tune,
            rates=RATES if rates is None else split_values(rates),
            target=target,
            baselines=baselines,
            resample=resample,
            metric=metric,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def lr(
    recipe: RecipeArgument = None,
    low: Annotated[float, typer.Option(help="The lowest rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="The highest rate.")] = 10.0,
    rates: Annotated[int, typer.Option(help="How many.")] = 24,
    after: Annotated[str, typer.Option(help="How long each trains, e.g. 200it or 3ep.")] = "200it",
    set_: Set = None,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """The learning-rate panel: 24 rates at once, a suggested range, the edge of divergence."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.lr.study import lr as run

    print_json(
        json_,
        run(
            chosen,
            low=low,
            high=high,
            rates=rates,
            after=after,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def ensemble(
    recipe: RecipeArgument = None,
    members: Annotated[int, typer.Option(help="How many networks.")] = 10,
    method: Annotated[
        str,
        typer.Option(help="seed, bagging (bootstrap weights) or snapshot (the cycles of one run)."),
    ] = "seed",
    combine: Annotated[str, typer.Option(help="mean of the probabilities, or vote.")] = "mean",
    set_: Set = None,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Train an ensemble as one population; it saves, loads and predicts as one model."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.ensemble.study import ensemble as run

    print_json(
        json_,
        run(
            chosen,
            members=members,
            method=method,
            combine=combine,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def lottery(
    recipe: RecipeArgument = None,
    rounds: Annotated[int, typer.Option(help="Rounds of pruning.")] = 10,
    rate: Annotated[
        float, typer.Option(help="The part of the remaining weights pruned in a round.")
    ] = 0.2,
    scope: Annotated[
        str, typer.Option(help="global: the smallest of all weights; layer: in each tensor.")
    ] = "global",
    rewind: Annotated[
        str, typer.Option(help="Rewind to this step: 0it is the initialisation.")
    ] = "0it",
    seeds: Annotated[int, typer.Option(help="Seeds of each arm.")] = 3,
    one_shot: Annotated[bool, typer.Option(help="Also prune to every sparsity at once.")] = True,
    controls_every: Annotated[int, typer.Option(help="Controls in every so many rounds.")] = 1,
    set_: Set = None,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Lottery tickets: iterative magnitude pruning with rewinding, beside its controls."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.lottery.study import lottery as run

    print_json(
        json_,
        run(
            chosen,
            rounds=rounds,
            rate=rate,
            scope=scope,
            rewind=rewind,
            seeds=seeds,
            one_shot=one_shot,
            controls_every=controls_every,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def landscape(
    run: RunArgument,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER]", help="A second run: beside the first, or other end."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            help="plane, line (random directions), between (two runs), path (of training)."
        ),
    ] = "plane",
    points: Annotated[int, typer.Option(help="Points along each direction.")] = 25,
    reach: Annotated[float, typer.Option(help="How far, in sizes of the filters.")] = 1.0,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    samples: Annotated[int, typer.Option(help="Samples on which the loss is measured.")] = 1000,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
    set_: Set = None,
) -> None:
    """The loss around one or two trained networks: lines, planes, interpolation, the training
    path."""
    _no_set(set_)
    from ravine.study.landscape.study import landscape as draw

    print_json(
        json_,
        draw(
            run,
            other,
            kind=kind,
            points=points,
            reach=reach,
            split=split,
            samples=samples,
            seed=seed or 0,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def signals(
    recipe: RecipeArgument = None,
    init: Annotated[
        str | None, typer.Option(help="Initialisers by commas: he_normal,normal:0.01.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Activations by commas: relu,tanh.")
    ] = None,
    depth: Annotated[int, typer.Option(help="Dense layers; 0: the recipe's own model.")] = 10,
    width: Annotated[int, typer.Option(help="Units of each.")] = 256,
    samples: Annotated[int, typer.Option(help="Samples of the batch.")] = 256,
    set_: Set = None,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Before training: activations and gradients by depth for initialisers and activations, theory
    beside."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.signals.study import ACTIVATIONS, INITIALIZERS
    from ravine.study.signals.study import signals as run

    print_json(
        json_,
        run(
            chosen,
            initializers=_names(init) or INITIALIZERS,
            activations=_names(activation) or ACTIVATIONS,
            depth=depth or None,
            width=width,
            samples=samples,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def gradcheck(
    recipe: RecipeArgument = None,
    coordinates: Annotated[int, typer.Option(help="Derivatives compared in each tensor.")] = 20,
    samples: Annotated[int, typer.Option(help="Samples of the batch.")] = 32,
    trained: Annotated[
        int, typer.Option(help="Check again after this many training steps; 0: do not.")
    ] = 30,
    set_: Set = None,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Gradients against central differences in float64, tensor by tensor."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.gradcheck.study import gradcheck as run

    found = run(
        chosen,
        coordinates=coordinates,
        samples=samples,
        trained=trained,
        seed=seed or 0,
        out=out,
        quiet=quiet or json_,
        command=command_line(),
    )
    print_json(json_, found)
    if found["verdict"] == "wrong":
        from ravine.study.gradcheck.study import THRESHOLDS

        where = f"{found['tensor']}, with a relative error of {found['relative error']:.1e}"
        raise RavineError(
            f"the gradient is wrong, most of all in {where}. {THRESHOLDS} See {found['report']}"
        )


def babysit(
    recipe: RecipeArgument = None,
    samples: Annotated[int, typer.Option(help="Samples of the batch to overfit.")] = 20,
    steps: Annotated[int, typer.Option(help="Training steps on that batch.")] = 300,
    rates: Annotated[int, typer.Option(help="Learning rates side by side.")] = 12,
    set_: Set = None,
    out: Resumable = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """The checks of the first minutes: initial loss, overfitting one batch, loss against the learning rate."""
    chosen = recipe_from(recipe, set_, seed)
    from ravine.study.babysit.study import babysit as run

    print_json(
        json_,
        run(
            chosen,
            samples=samples,
            steps=steps,
            rates=rates,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def features(
    run: RunArgument,
    layer: Annotated[
        str | None, typer.Option(help="Whose units; default: the last convolution.")
    ] = None,
    units: Annotated[int, typer.Option(help="How many units.")] = 8,
    patches: Annotated[int, typer.Option(help="Patches of each.")] = 8,
    samples: Annotated[int, typer.Option(help="Samples that are looked through.")] = 2000,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    member: Member = 0,
    out: Resumable = None,
    quiet: Quiet = False,
    json_: Json = False,
    set_: Set = None,
    seed: Seed = None,
) -> None:
    """First-layer filters, the patches that excite units most, saliency."""
    _no_set(set_, seed)
    from ravine.study.features.study import features as draw

    print_json(
        json_,
        draw(
            run,
            layer=layer,
            units=units,
            patches=patches,
            samples=samples,
            split=split,
            member=member,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def advise(
    run: RunArgument,
    others: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[OTHER]...", help="Further runs on the same data."),
    ] = None,
    human: Annotated[float | None, typer.Option(help="Human-level error: 0.02 is 2 %.")] = None,
    target: Annotated[
        float | None, typer.Option(help="The error to reach, where the human level is not known.")
    ] = None,
    train_dev: Annotated[
        str | None, typer.Option(help="A source drawn like the training data, not trained on.")
    ] = None,
    member: Member = 0,
    out: Resumable = None,
    quiet: Quiet = False,
    json_: Json = False,
    set_: Set = None,
    seed: Seed = None,
) -> None:
    """Bias or variance? Which error is large, what to do next, and the worst mistakes."""
    _no_set(set_, seed)
    from ravine.study.advise.study import advise as run_

    print_json(
        json_,
        run_(
            run,
            others=others or (),
            human=human,
            target=target,
            train_dev=train_dev,
            member=member,
            out=out,
            quiet=quiet or json_,
            command=command_line(),
        ),
    )


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _no_set(changes: list[str] | None, seed: int | None = None) -> None:
    """A trained run keeps its recipe; options that would change it are an error."""
    if changes or seed is not None:
        raise InputError(
            "--set" if changes else "--seed",
            got=changes or seed,
            expected="no change: a trained run keeps its recipe",
        )


ALL: tuple[Callable[..., Any], ...] = (
    search,
    compare,
    lr,
    ensemble,
    lottery,
    landscape,
    signals,
    gradcheck,
    babysit,
    features,
    advise,
)
