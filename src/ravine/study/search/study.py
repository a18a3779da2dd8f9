"""Hyper-parameter search: rounds of populations, each tightened around the best so far; the final
choice on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import qmc

from ravine import durations
from ravine.engine.loop.halving import Halving, recently
from ravine.errors import InputError, unknown
from ravine.randomness import key
from ravine.recipe import Recipe
from ravine.study import measuring
from ravine.study.directory import Study
from ravine.study.live import LiveTable
from ravine.study.search.space import Space, usual

FINALISTS = 2  # of each method
FRESH = 1000  # from a recipe's own seed to the first fresh one
SAMPLED = ("random", "sobol", "halton")
OWN = (*SAMPLED, "grid", "asha")


@dataclass(frozen=True)
class Plan:
    """How a search goes."""

    methods: tuple[str, ...] = ("random",)
    members: int = 25
    rounds: int = 2
    keep: int = 3
    finals: int = 3
    points: int = 5
    first: str = "1ep"
    eta: int = 3
    drop: bool = True
    metric: str | None = None


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried."""

    method: str
    round: int
    values: dict[str, Any]
    recipe: Recipe
    result: dict[str, Any]
    recent: float  # the metric's mean over the second half of the epochs: tells equals apart


def search(
    recipe: Recipe,
    vary: Sequence[str] = (),
    *,
    method: str | Sequence[str] = "random",
    members: int = 25,
    rounds: int = 2,
    keep: int = 3,
    finals: int = 3,
    points: int = 5,
    first: str = "1ep",
    eta: int = 3,
    drop: bool = True,
    metric: str | None = None,
    model: Any = None,
    data: Any = None,
    out: str | Path | None = None,
    quiet: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Search for better values of some fields of a recipe; gives the study's summary.

    ``vary`` are fields and their distributions: ``"optimizer.lr=loguniform:1e-5:1"`` (also
    ``uniform``, ``integer``, ``choice``, ``normal``, or plain values), with ``if
    optimizer.kind=sgd`` for a field that only matters there. Without them: learning rate, weight
    decay, dropout and label smoothing around the recipe's own, as far as it has them. ``method``:
    ``random`` (default), ``sobol`` and ``halton`` train ``rounds`` populations of ``members``, each
    drawn from distributions tightened around the best ``keep`` so far; ``grid`` tries every
    combination of ``points`` values; ``asha`` drops losers at ``first``, ``first`` · ``eta``, … and
    refills their rows; ``optuna:TPESampler`` or any other sampler of Optuna (extra: optuna) is
    asked for a population and told its results, ``rounds`` times. With ``drop``, all of these but
    grid and asha drop hopeless members at a fifteenth and at a fifth of a run of twenty epochs or
    more, where one in ``eta`` stays; rounds before the last end there. Several methods are compared
    in one table. The best two of each method run again on ``finals`` fresh seeds, beside the recipe
    as it was; the best of these on average is the choice, and only it is measured on the test data,
    once. The directory ``out`` can be entered again after a kill.

    >>> found = search(Recipe(data={"source": "blobs"}, model="softmax", stop={"after": "2ep"}),
    ...     ["optimizer.lr=loguniform:1e-4:1"], members=4, rounds=1, finals=2, quiet=True, out=tmp / "search")
    >>> sorted(found["chosen"]["values"])
    ['optimizer.lr']

    Source: Bergstra and Bengio, "Random search for hyper-parameter optimization", 2012; Li et al.
    (ASHA), 2020.
    """
    methods = tuple(method.split(",")) if isinstance(method, str) else tuple(method)
    plan = Plan(methods, members, rounds, keep, finals, points, first, eta, drop, metric)
    _check(plan)
    if not vary:
        recipe, vary = usual(
            recipe, measuring.pipeline_of(recipe, data).task, own_model=model is not None
        )
    space = Space.parse(list(vary), recipe)
    metric = measuring.judged_by(recipe, metric, data)
    options = {
        "vary": list(vary),
        "method": list(methods),
        **{k: v for k, v in vars(plan).items() if k != "methods"},
        "metric": metric,
    }
    study = Study.enter(
        "search", recipe, options, out, model=model, data=data, quiet=quiet, command=command
    )
    stages = sum(1 if m in ("grid", "asha") else rounds for m in methods) + 1
    trials: list[Trial] = []
    spaces: dict[str, list[list[str]]] = {}
    with LiveTable(f"search of {recipe.name}", metric, stages, quiet=quiet) as live:
        for name in methods:
            found, spaces[name] = _run_method(name, study, space, plan, metric, live)
            trials += found
        finalists = _finalists(trials, metric)
        outcomes = _finals(study, finalists, plan, metric, live)
    return _conclude(study, plan, metric, trials, spaces, outcomes)


# --- the methods ----------------------------------------------------------------------------------


def _run_method(
    name: str, study: Study, space: Space, plan: Plan, metric: str, live: LiveTable
) -> tuple[list[Trial], list[list[str]]]:
    def train(round_: int, values: list[dict[str, Any]], **how: Any) -> list[Trial]:
        recipes = [space.recipe(study.recipe, row) for row in values]
        stage = f"{name.replace(':', '-')}-{round_ + 1}"
        runs = study.train(stage, recipes, report=live.stage(stage, recipes, values), **how)
        rows = zip(values, recipes, runs, strict=True)
        return [
            Trial(name, round_, value, recipe, run.result, _recent(run, metric))
            for value, recipe, run in rows
        ]

    if name == "grid":
        return train(0, space.grid(plan.points, study.recipe)), [space.say()]
    if name == "asha":
        count = plan.members * plan.rounds
        values = [
            space.values(p, study.recipe)
            for p in points_of("random", count, len(space.variables), study.recipe.seed, 0)
        ]
        halving = Halving(metric, plan.first, plan.eta)
        return train(0, values, width=plan.members, halving=halving), [space.say()]
    rule = _early(study.recipe, plan, metric)
    if name in SAMPLED:
        return _tightening(name, study.recipe, space, plan, metric, train, rule)
    return _asked(name, study.recipe, space, plan, metric, partial(train, halving=rule)), [
        space.say()
    ]


def _early(recipe: Recipe, plan: Plan, metric: str) -> Halving | None:
    """The rule by which hopeless members are dropped at a fifteenth and at a fifth of a run; none
    for short runs."""
    amount, unit = durations.parse(recipe.stop.after)
    if not plan.drop or (unit == "ep" and amount < 20):
        return None
    return Halving(metric, f"{float(amount / 15):.6g}{unit}", plan.eta)


def _tightening(
    name: str,
    recipe: Recipe,
    space: Space,
    plan: Plan,
    metric: str,
    train: Callable[..., list[Trial]],
    rule: Halving | None,
) -> tuple[list[Trial], list[list[str]]]:
    """The lectures' procedure: a population, the best few, distributions tightened around them, a
    population again.

    From coarse to fine: only members of the last round run to their end, for the others only tell
    where to look.
    """
    trials: list[Trial] = []
    said = []
    for round_ in range(plan.rounds):
        said.append(space.say())
        points = points_of(name, plan.members, len(space.variables), recipe.seed, round_)
        halving = rule and replace(rule, coarse=round_ + 1 < plan.rounds)
        trials += train(round_, [space.values(point, recipe) for point in points], halving=halving)
        best = sorted(trials, key=lambda trial: _place(trial, metric))[: plan.keep]
        space = space.tightened([trial.values for trial in best])
    return trials, said


def _asked(
    name: str,
    recipe: Recipe,
    space: Space,
    plan: Plan,
    metric: str,
    train: Callable[..., list[Trial]],
) -> list[Trial]:
    """A sampler of Optuna, asked for whole populations."""
    from ravine.study.search.optuna_sampler import Asker

    asker = Asker(name, space, recipe, metric, seed=key(recipe.seed, "search", name) % 2**31)
    trials: list[Trial] = []
    for round_ in range(plan.rounds):
        found = train(round_, asker.ask(plan.members))
        asker.tell([trial.result.get(metric, math.nan) for trial in found])
        trials += found
    return trials


def points_of(name: str, count: int, dimensions: int, seed: int, round_: int) -> np.ndarray:
    """Points of the unit cube [count, dimensions]: independent, or evenly spread (scrambled Sobol
    or Halton)."""
    draw = key(seed, "search", name, round_) % 2**32
    if name == "random":
        return np.random.default_rng(draw).random((count, dimensions))
    engine = {"sobol": qmc.Sobol, "halton": qmc.Halton}[name](dimensions, rng=draw)
    if name == "sobol":  # balanced in powers of two, of which the first are taken
        return engine.random_base2(max(1, math.ceil(math.log2(count))))[:count]
    return engine.random(count)


# --- the final choice -----------------------------------------------------------------------------


def _finalists(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """The best two of each method, and no configuration twice."""
    found: dict[str, Trial] = {}
    for name in dict.fromkeys(trial.method for trial in trials):
        own = sorted(
            (trial for trial in trials if trial.method == name),
            key=lambda trial: _place(trial, metric),
        )
        whole = {trial.recipe.hash: trial for trial in reversed(own) if _age(trial) == _age(own[0])}
        best = [trial for trial in own if whole.get(trial.recipe.hash) is trial]
        found |= {
            trial.recipe.hash: trial for trial in best[:FINALISTS] if trial.recipe.hash not in found
        }
    return list(found.values())


def _place(trial: Trial, metric: str) -> tuple[int, float, float]:
    """A key that sorts the best trial first: those that ran longest, by the metric, equals by its
    last epochs."""
    return _age(trial), *_ranked(trial.result.get(metric, math.nan), trial.recent, metric)


def _age(trial: Trial) -> int:
    """0 for a trial that ran to its end, then those of a coarse round, those that were dropped,
    those that diverged."""
    ends = ("end of the coarse stage", "dropped by halving", "diverged")
    return (
        1 + ends.index(first) if (first := str(trial.result["stopped"]).split()[0]) in ends else 0
    )


def _ranked(value: float, recent: float, metric: str) -> tuple[float, float]:
    return measuring.score({metric: value}, metric)[0], measuring.score({metric: recent}, metric)[0]


def _recent(run: Any, metric: str) -> float:
    return recently([float(value) for value in run.metrics.get(metric, ())])


@dataclass(frozen=True)
class Outcome:
    """A finalist (or the recipe as it was, where ``trial`` is None) on fresh seeds."""

    trial: Trial | None
    recipe: Recipe
    runs: list[Any]
    scores: list[float]


def _finals(
    study: Study, finalists: Sequence[Trial], plan: Plan, metric: str, live: LiveTable
) -> list[Outcome]:
    entries: list[tuple[Trial | None, Recipe]] = [
        *((t, t.recipe) for t in finalists),
        (None, study.recipe),
    ]
    seeds = [study.recipe.seed + FRESH + i for i in range(plan.finals)]
    recipes = [recipe.edit({"seed": seed}) for _, recipe in entries for seed in seeds]
    labels = [
        {**(trial.values if trial else {}), "seed": seed} for trial, _ in entries for seed in seeds
    ]
    runs = study.train("finals", recipes, report=live.stage("finals", recipes, labels))
    found = []
    for i, (trial, recipe) in enumerate(entries):
        own = runs[i * len(seeds) : (i + 1) * len(seeds)]
        scores = [
            run.result.get(metric, math.nan) if run.result["stopped"] != "diverged" else math.nan
            for run in own
        ]
        found.append(Outcome(trial, recipe, own, scores))
    return found


def _best(outcomes: Sequence[Outcome], metric: str) -> Outcome:
    def rank(outcome: Outcome) -> tuple[float, float]:
        recent = float(np.mean([_recent(run, metric) for run in outcome.runs]))
        return _ranked(
            float(np.mean(outcome.scores)), recent, metric
        )  # one that is not finite comes last

    return min(outcomes, key=rank)


def _conclude(
    study: Study,
    plan: Plan,
    metric: str,
    trials: list[Trial],
    spaces: dict[str, list[list[str]]],
    outcomes: list[Outcome],
) -> dict[str, Any]:
    from ravine.study.search.figures import page_of

    chosen = _best([outcome for outcome in outcomes if outcome.trial], metric)
    test = study.once("test", lambda: _tested(chosen, study.data))
    (study.path / "chosen.toml").write_text(chosen.recipe.to_toml(), encoding="utf-8")
    ranked = sorted(trials, key=lambda trial: _place(trial, metric))
    names = [metric, "val_loss", "epochs", "stopped"]
    base = next(outcome for outcome in outcomes if outcome.trial is None)
    assert chosen.trial is not None
    summary = {
        "metric": metric,
        "table": [
            {
                "method": t.method,
                "round": t.round + 1,
                **t.values,
                **{n: t.result.get(n) for n in names},
            }
            for t in ranked
        ],
        "methods": [_of_method(name, trials, outcomes, metric) for name in plan.methods],
        "spaces": spaces,
        "finals": [
            {
                "method": o.trial.method if o.trial else "recipe as it was",
                **(o.trial.values if o.trial else {}),
                metric: measuring.mean_sd(o.scores),
                "seeds": len(o.runs),
            }
            for o in outcomes
        ],
        "chosen": {
            "values": chosen.trial.values,
            "method": chosen.trial.method,
            metric: measuring.mean_sd(chosen.scores),
            **test,
            "recipe": str(study.path / "chosen.toml"),
        },
        "default": {metric: measuring.mean_sd(base.scores)},
        "runs": len(trials),
        "seconds": study.seconds,
    }
    return study.finish(summary, page_of(study, summary, trials, metric))


def _of_method(
    name: str, trials: Sequence[Trial], outcomes: Sequence[Outcome], metric: str
) -> dict[str, Any]:
    own = [trial for trial in trials if trial.method == name]
    best = min(own, key=lambda trial: _place(trial, metric))
    mine = [o for o in outcomes if o.trial and o.trial.method == name]
    again = measuring.mean_sd(_best(mine, metric).scores) if mine else None
    epochs = sum(trial.result["epochs"] for trial in own)
    return {
        "method": name,
        "runs": len(own),
        "epochs trained": round(epochs, 2),
        f"best {metric}": best.result.get(metric),
        f"on fresh seeds, {metric}": again,
    }


def _tested(chosen: Outcome, data: Any) -> dict[str, Any]:
    pipeline = measuring.pipeline_of(chosen.recipe, data)
    if not pipeline.has("test"):
        return {}
    found = measuring.measure(chosen.runs, "test", pipeline=pipeline)
    return {f"test_{name}": measuring.mean_sd(values) for name, values in found.items()}


def _check(plan: Plan) -> None:
    for name in plan.methods:
        if name not in OWN and not name.startswith("optuna:"):
            raise unknown("--method", name, [*OWN, "optuna:TPESampler"])
    for name in ("members", "rounds", "keep", "finals", "points"):
        if getattr(plan, name) < 1:
            raise InputError(
                f"--{name}", got=getattr(plan, name), expected="a whole number of at least 1"
            )
    try:
        Halving(first=plan.first, eta=plan.eta)
    except InputError as error:
        raise InputError(
            error.where.replace("halving.", "--") or "--first",
            got=error.got,
            expected=error.expected,
        ) from None
    if not durations.parse(plan.first)[0]:
        raise InputError("--first", got=plan.first, expected="a duration longer than 0")
