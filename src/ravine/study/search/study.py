"""Hyper-parameter search: rounds of populations, each tightened around the best so far; the final
choice on fresh seeds.

``random``, ``sobol`` and ``halton`` train populations, each drawn from distributions tightened
around the best so far; ``grid`` tries every combination; ``asha`` drops losers at ``first``,
``first`` · ``eta``, … and refills their rows; samplers of Optuna are asked for a population and
given its results. With ``drop``, all but grid and asha drop hopeless members at a fifteenth and at
a fifth of a run of twenty epochs or more, where one in ``eta`` stays; rounds before the last end
there. The best two of each method run again on fresh seeds, beside the recipe as it was. An
architecture other than the recipe's is kept only if these confirm it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from scipy import stats

from ravine.catalogue import Count, Duration, Positive
from ravine.measures import better_is
from ravine.recipe import Recipe, fields
from ravine.storage.files import write_text
from ravine.study import measuring
from ravine.study.declare import Conclusion, OfRecipe, study
from ravine.study.directory import Study
from ravine.study.live import LiveTable
from ravine.study.search.budget import TimeBudget
from ravine.study.search.default_space import default_space
from ravine.study.search.figures import page_of
from ravine.study.search.methods import Search, check_methods
from ravine.study.search.space import Space
from ravine.study.search.trials import Outcome, Trial, best_of, finalists_of, rank
from ravine.study.signature import Names, Several, Trained
from ravine.study.training_time import seconds_of

FRESH = 1000  # from a recipe's own seed to the first fresh one
LARGER = 50  # runs of the recipe: what a round and the final seeds of a network twice as wide cost
CONFIRMED = 0.1  # a one-sided p-value under which fresh seeds confirm an architecture


@study
def search(  # type: ignore[misc] # an option of its own hides that of OfRecipe
    study: Study,
    recipe: Recipe,
    vary: Sequence[str] = (),
    *,
    method: Names = ("random",),
    minutes: Positive | None = None,
    members: Trained = 25,
    rounds: Trained = 2,
    keep: Count = 3,
    finals: Trained = 3,
    points: Trained = 5,
    first: Duration = "1ep",
    eta: Several = 3,
    drop: bool = True,
    metric: str | None = None,
    **common: Unpack[OfRecipe],
) -> Conclusion:
    """Search for better hyper-parameters: populations, each tightened around the best.

    The best of each method run again on fresh seeds; the best of these on average is the choice.
    Another architecture is kept only if it is better than the recipe as it was on the fresh seeds
    by a paired t-test at p < 0.1. Only the choice is measured on the test data, once.

    Args:
        vary: What varies: optimizer.lr=loguniform:1e-5:1 (uniform, integer, choice, normal), with
            'if optimizer.kind=sgd'. Default: rate, size and regularisation around the recipe's own.
        method: random, sobol, halton, grid, asha, optuna:TPESampler; or several by commas.
        minutes: Plan the rounds from the measured step time to use this time and keep within it.
        members: Configurations in a round.
        rounds: Rounds; each is drawn around the best so far.
        keep: How many of the best the next round is drawn around.
        finals: Fresh seeds on which the choice is run again; of minutes that are left, more of them.
        points: Grid: values of each field.
        first: ASHA: when losers are dropped for the first time.
        eta: Where members are dropped, one of this many stays.
        drop: Drop hopeless members at a fifteenth and a fifth of the run.
        metric: The validation metric that chooses; none: the task's own.

    Source: Bergstra and Bengio, "Random search for hyper-parameter optimization", 2012; Li et al.
    (ASHA), 2020.
    """
    check_methods(list(method), first, eta, minutes)
    space = _space(study, vary)
    recipe, metric = study.recipe, measuring.judged_by(recipe, metric, study.data)
    budget = TimeBudget(study, len(method)) if minutes is not None else None
    stages = sum(1 if m in ("grid", "asha") else rounds for m in method) + 1
    trials: list[Trial] = []
    spaces: dict[str, list[list[str]]] = {}
    with LiveTable(f"search of {recipe.name}", metric, stages, quiet=study.quiet) as live:
        for name in method:
            found, spaces[name] = Search(study, space, metric, live, budget).run(name)
            trials += found
        outcomes = _on_fresh_seeds(study, _candidates(trials, recipe, metric), metric, live, budget)
    return _conclude(study, metric, trials, spaces, outcomes)


def _space(study: Study, vary: Sequence[str]) -> Space:
    """What is varied; unless given, the default space around the recipe, whose loss is then
    named."""
    if not vary:
        task = measuring.pipeline_of(study.recipe, study.data).task
        own = study.model is not None
        larger = study.once("space", lambda: {"larger": _larger_fits(study)})["larger"]
        study.recipe, vary = default_space(study.recipe, task, own_model=own, larger=larger)
    return Space.parse(list(vary), study.recipe)


def _larger_fits(study: Study) -> bool:
    """Whether the search has time for networks larger than the recipe's."""
    minutes = study.options["minutes"]
    if minutes is None:
        return True
    return bool(60 * minutes >= LARGER * seconds_of([study.recipe], study.model, study.data))


# --- the final choice -----------------------------------------------------------------------------


def _candidates(trials: Sequence[Trial], recipe: Recipe, metric: str) -> list[Trial]:
    """The finalists; if all have another architecture, also the best with the recipe's own."""
    found = finalists_of(trials, metric)
    own = [trial for trial in trials if architecture(trial.recipe) == architecture(recipe)]
    if own and all(architecture(trial.recipe) != architecture(recipe) for trial in found):
        found.append(min(own, key=lambda trial: rank(trial, metric)))
    return found


def architecture(recipe: Recipe) -> dict[str, Any]:
    """The fields of a model that change its layers."""
    return {
        path: value
        for path, value, member in fields(recipe.model, "model.")
        if not member and ".init." not in path
    }


def _on_fresh_seeds(
    study: Study,
    finalists: Sequence[Trial],
    metric: str,
    live: LiveTable,
    budget: TimeBudget | None,
) -> list[Outcome]:
    """The finalists and the recipe as it was, all on the same seeds; on more of them where a search
    by minutes has time left."""
    entries: list[tuple[Trial | None, Recipe]] = [
        *((t, t.recipe) for t in finalists),
        (None, study.recipe),
    ]
    first, seeds = study.recipe.seed + FRESH, study.options["finals"]
    since = budget.spent if budget else 0.0
    runs = _trained(study, "finals", entries, range(first, first + seeds), live)
    if budget and (more := budget.further_seeds(seeds, since)):
        further = range(first + seeds, first + seeds + more)
        others = _trained(study, "further-seeds", entries, further, live)
        runs = [own + other for own, other in zip(runs, others, strict=True)]
    found = []
    for (trial, recipe), own in zip(entries, runs, strict=True):
        scores = [
            run.result.get(metric, math.nan) if run.result["stopped"] != "diverged" else math.nan
            for run in own
        ]
        found.append(Outcome(trial, recipe, own, scores))
    return found


def _trained(
    study: Study,
    stage: str,
    entries: Sequence[tuple[Trial | None, Recipe]],
    seeds: Sequence[int],
    live: LiveTable,
) -> list[list[Any]]:
    """The runs of each entry, one a seed."""
    recipes = [recipe.edit({"seed": seed}) for _, recipe in entries for seed in seeds]
    labels = [
        {**(trial.values if trial else {}), "seed": seed} for trial, _ in entries for seed in seeds
    ]
    runs = study.train(stage, recipes, report=live.stage(stage, recipes, labels))
    return [list(runs[i : i + len(seeds)]) for i in range(0, len(runs), len(seeds))]


def confirmation(found: Sequence[float], before: Sequence[float], metric: str) -> float:
    """The one-sided p-value of a paired t-test that ``found`` is better than ``before`` on the same
    seeds; 1 where it cannot be tested.

    >>> round(confirmation([0.95, 0.96, 0.97], [0.90, 0.92, 0.91], "val_accuracy"), 3)
    0.007
    >>> confirmation([0.9], [0.8], "val_accuracy")
    1.0
    """
    sign = -1.0 if better_is(metric) == "min" else 1.0
    gains = sign * (np.array(found, float) - np.array(before, float))
    if len(gains) < 2 or not np.isfinite(gains).all():
        return 1.0
    if np.ptp(gains) == 0:
        return 0.0 if gains[0] > 0 else 1.0
    return float(stats.ttest_1samp(gains, 0.0, alternative="greater").pvalue)


def _choice(outcomes: Sequence[Outcome], metric: str) -> tuple[Outcome, dict[str, Any] | None]:
    """The best finalist whose architecture is the recipe's own or is confirmed, else the recipe as
    it was; and the architecture that was not confirmed, if one would have been best."""
    base = next(outcome for outcome in outcomes if outcome.trial is None)
    left = [outcome for outcome in outcomes if outcome.trial is not None]
    rejected = None
    while left:
        best = best_of(left, metric)
        if architecture(best.recipe) == architecture(base.recipe):
            return best, rejected
        p = confirmation(best.scores, base.scores, metric)
        if p < CONFIRMED:
            return best, rejected
        assert best.trial is not None
        rejected = rejected or {
            "values": best.trial.values,
            metric: measuring.mean_sd(best.scores),
            "p": p,
        }
        left.remove(best)
    return base, rejected


# --- the end --------------------------------------------------------------------------------------


def _conclude(
    study: Study,
    metric: str,
    trials: list[Trial],
    spaces: dict[str, list[list[str]]],
    outcomes: list[Outcome],
) -> Conclusion:
    chosen, rejected = _choice(outcomes, metric)
    test = study.once("test", lambda: _tested(chosen, study.data))
    write_text(study.path / "chosen.toml", chosen.recipe.to_toml())
    base = next(outcome for outcome in outcomes if outcome.trial is None)
    changed = architecture(chosen.recipe) != architecture(study.recipe)
    summary = {
        "metric": metric,
        "table": _table(trials, metric),
        "methods": [_of_method(name, trials, outcomes, metric) for name in study.options["method"]],
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
            "values": chosen.trial.values if chosen.trial else {},
            "method": chosen.trial.method if chosen.trial else "recipe as it was",
            metric: measuring.mean_sd(chosen.scores),
            **test,
            "recipe": str(study.path / "chosen.toml"),
            "other architecture": changed,
        },
        "not confirmed": rejected,
        "default": {metric: measuring.mean_sd(base.scores)},
        "runs": len(trials),
        "minutes": study.options["minutes"],
        "seconds": study.seconds,
    }
    return summary, page_of(study, summary, trials, metric)


def _table(trials: Sequence[Trial], metric: str) -> list[dict[str, Any]]:
    names = [metric, "val_loss", "epochs", "stopped"]
    return [
        {
            "method": trial.method,
            "round": trial.round + 1,
            **trial.values,
            **{name: trial.result.get(name) for name in names},
        }
        for trial in sorted(trials, key=lambda trial: rank(trial, metric))
    ]


def _of_method(
    name: str, trials: Sequence[Trial], outcomes: Sequence[Outcome], metric: str
) -> dict[str, Any]:
    own = [trial for trial in trials if trial.method == name]
    best = min(own, key=lambda trial: rank(trial, metric))
    mine = [o for o in outcomes if o.trial and o.trial.method == name]
    again = measuring.mean_sd(best_of(mine, metric).scores) if mine else None
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
