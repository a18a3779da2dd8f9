"""Comparison over recipe fields: every variant on the same seeds, paired, each at its tuned
learning rate or a given one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from ravine import measures
from ravine.errors import InputError
from ravine.measures import better_is
from ravine.recipe import Recipe, keyword_path
from ravine.report.overview import show_value
from ravine.study import measuring
from ravine.study.compare.baselines import baselines as classical_models
from ravine.study.compare.figures import page_of
from ravine.study.compare.significance import paired_tests
from ravine.study.declare import Conclusion, OfRecipe, study
from ravine.study.directory import Study
from ravine.study.live import LiveTable
from ravine.study.signature import Numbers, Trained, split_values
from ravine.study.training_time import seconds_per_epoch

FRESH = 1000  # from the seed that tunes to the first that compares
RATES = tuple(float(f"{10**e:.4g}") for e in np.linspace(-5, 0.5, 12))


@dataclass(frozen=True)
class Variant:
    """One combination of values, with what tuning gave it."""

    label: str
    values: dict[str, Any]
    recipe: Recipe


@study
def compare(  # type: ignore[misc] # an option of its own hides that of OfRecipe
    study: Study,
    recipe: Recipe,
    over: Sequence[str] = (),  # in Python also {PATH: [value, value]}
    *,
    seeds: Trained = 10,
    tune: str | None = "lr",
    rates: Numbers | None = None,
    target: float | None = None,
    metric: str | None = None,
    baselines: bool = False,
    resample: bool = False,
    **common: Unpack[OfRecipe],
) -> Conclusion:
    """Compare variants over seeds: each at its tuned rate, curves with bands, paired significance.

    ``over``: ``"optimizer.kind=sgd,adam"``, any field and its values; in Python also
    ``{"loss": ["cross_entropy", my_loss]}``, functions and classes among them. Several fields give every
    combination. Each variant first gets its best learning rate (or other field, ``tune``) among
    ``rates``, chosen on validation data with a seed that is not used again; where every variant
    names its rate itself, these rates are used. All pairs are tested by paired t-tests with Holm's
    correction; where no pair differs significantly, the number of seeds that would show it is estimated. Without
    tuning no variant is called the best. All variants that share a program train as one population.

    Args:
        over: What differs: optimizer.kind=sgd,adam; several fields combine.
        seeds: Seeds of each variant.
        tune: The field that each variant is tuned in first.
        rates: Values tried in tuning, by commas; none: 1e-5 to 3, two a decade.
        target: How soon is the metric this good? None: what the median variant reaches in the end.
        metric: The validation metric that chooses; none: the task's own.
        baselines: Add scikit-learn's models on the same split.
        resample: Every seed also splits and orders the data anew.

    >>> found = compare(Recipe(data={"source": "blobs"}, model="softmax", stop={"after": "2ep"}),
    ...     ["optimizer.kind=sgd,adam"], seeds=2, rates=[0.01, 0.1], quiet=True, out=tmp / "compare")
    >>> sorted(row["variant"] for row in found["table"])
    ['adam', 'sgd']
    """
    metric = measuring.judged_by(recipe, metric, study.data)
    _check(metric, target, tune, rates)
    path = None if tune is None else _tunable(recipe, tune)
    variants = variants_of(recipe, over)
    if path is not None and all(_names_rate(variant, path) for variant in variants):
        path = None
    tuning: list[dict[str, Any]] = []
    with LiveTable(
        f"comparison on {recipe.name}", metric, 1 + (path is not None), quiet=study.quiet
    ) as live:
        if path is not None:
            variants, tuning = _tuned(study, variants, path, list(rates or RATES), metric, live)
        groups = _on_seeds(study, variants, live)
    return _conclude(study, variants, groups, metric, path, tuning)


def _check(metric: str, target: float | None, tune: str | None, rates: Any) -> None:
    if target is not None and measures.is_percent(metric) and not 0 <= target <= 1:
        raise InputError(
            "--target",
            got=target,
            expected=f"{metric} as a fraction from 0 to 1",
            repair="95 % is 0.95",
        )
    if rates is not None and tune is None:
        raise InputError(
            "--rates", got=rates, expected="nothing without --tune", repair="add --tune lr"
        )


def _names_rate(variant: Variant, path: str) -> bool:
    """Whether a variant's own values hold the tuned field."""
    outer, _, last = path.rpartition(".")
    inside = variant.values.get(outer)
    return path in variant.values or (isinstance(inside, dict) and last in inside)


def _on_seeds(study: Study, variants: list[Variant], live: LiveTable) -> dict[str, list[Any]]:
    """The runs of every variant, on the same fresh seeds."""
    count, resample = study.options["seeds"], study.options["resample"]
    seeds = [study.recipe.seed + FRESH + i for i in range(count)]
    recipes = [_seeded(v.recipe, seed, resample) for v in variants for seed in seeds]
    labels = [{"variant": v.label, "seed": seed} for v in variants for seed in seeds]
    runs = study.train("seeds", recipes, report=live.stage("seeds", recipes, labels), test=True)
    return {v.label: runs[i * count : (i + 1) * count] for i, v in enumerate(variants)}


def variants_of(recipe: Recipe, over: Sequence[str]) -> list[Variant]:
    """Every combination of the values, named by them."""
    fields: dict[str, list[Any]] = {}
    for text in over:
        path, equals, listed = text.partition("=")
        fields[path.strip()] = split_values(listed)
        if not equals or not fields[path.strip()]:
            raise InputError(
                "--over",
                got=text,
                expected="PATH=VALUE,VALUE,…",
                repair="for example optimizer.kind=sgd,adam",
            )
    if not fields:
        raise InputError(
            "--over",
            expected="at least one field",
            repair="for example --over optimizer.kind=sgd,adam",
        )
    found = []
    for combination in itertools.product(*fields.values()):
        values = dict(zip(fields, combination, strict=True))
        label = ", ".join(_name(path, value, len(fields)) for path, value in values.items())
        found.append(Variant(label, values, recipe.edit(values)))
    if len({v.recipe.hash for v in found}) < len(found):
        raise InputError("--over", got=", ".join(over), expected="variants that all differ")
    labels = [variant.label for variant in found]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(
            "--over",
            got=f"several variants called {twice}",
            expected="a name for each",
            repair="give the functions different names, by def or by @ravine.technique",
        )
    return found


def _seeded(recipe: Recipe, seed: int, resample: bool) -> Recipe:
    return recipe.edit({"seed": seed, "data.seed": seed} if resample else {"seed": seed})


def _name(path: str, value: Any, fields: int) -> str:
    if path.endswith(".kind") and isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {show_value(inner)}" if key != "kind" else str(inner)
            for key, inner in value.items()
            if key != "code"  # of an own part: no name that anyone reads
        )
    return (
        show_value(value)
        if fields == 1 and isinstance(value, str)
        else f"{path.rpartition('.')[2]} {show_value(value)}"
    )


def _tunable(recipe: Recipe, tune: str) -> str:
    try:
        path = tune if "." in tune else keyword_path(tune, recipe)
        recipe.get(path)
    except InputError as error:
        raise InputError("--tune", got=tune, expected=error.expected, repair=error.repair) from None
    return path


def _tuned(
    study: Study,
    variants: list[Variant],
    path: str,
    rates: list[float],
    metric: str,
    live: LiveTable,
) -> tuple[list[Variant], list[dict[str, Any]]]:
    """Each variant with its best value of the field, and the table of all that was tried."""
    pairs = [(variant, rate) for variant in variants for rate in rates]
    recipes = [variant.recipe.edit({path: rate}) for variant, rate in pairs]
    labels = [{"variant": variant.label, path: rate} for variant, rate in pairs]
    runs = study.train("tune", recipes, report=live.stage("tune", recipes, labels))
    rows = [
        {
            **label,
            metric: run.result.get(metric),
            "val_loss": run.result.get("val_loss"),
            "stopped": run.result["stopped"],
        }
        for label, run in zip(labels, runs, strict=True)
    ]
    best = []
    for variant in variants:
        own = [row for row in rows if row["variant"] == variant.label]
        chosen = min(
            own, key=lambda row: (row["stopped"] == "diverged", measuring.score(row, metric))
        )[path]
        best.append(
            Variant(
                variant.label, {**variant.values, path: chosen}, variant.recipe.edit({path: chosen})
            )
        )
    return best, rows


# --- the end --------------------------------------------------------------------------------------


def _conclude(
    study: Study,
    variants: list[Variant],
    groups: dict[str, list[Any]],
    metric: str,
    path: str | None,
    tuning: list[dict[str, Any]],
) -> Conclusion:
    final = metric.replace("val_", "test_", 1)
    if all(final not in run.result for runs in groups.values() for run in runs):
        final = metric
    scores = {label: [_value(run, final) for run in runs] for label, runs in groups.items()}
    pairs = paired_tests(scores) if len(scores) > 1 else []
    target = study.options["target"]
    target = _middle(groups, metric) if target is None else target
    sign = 1 if better_is(final) == "min" else -1
    order = sorted(variants, key=lambda v: sign * _mean(scores[v.label]))
    table = _table(study, order, groups, pairs, (metric, final), target, path)
    rows = study.once("baselines", lambda: _baselines(study)) if study.options["baselines"] else []
    summary = {
        "metric": metric,
        "final": final,
        "target": target,
        "tuned": path,
        "rates": _rates(study, variants, path),
        "table": table,
        "pairs": pairs,
        "tuning": tuning,
        "baselines": rows,
        "seeds": study.options["seeds"],
        "runs": sum(map(len, groups.values())) + len(tuning),
        "programs": len({run.recipe.program for runs in groups.values() for run in runs}),
        "seconds": study.seconds,
    }
    return summary, page_of(study, summary, {v.label: groups[v.label] for v in order})


def _table(
    study: Study,
    order: list[Variant],
    groups: dict[str, list[Any]],
    pairs: list[dict[str, Any]],
    metrics: tuple[str, str],
    target: float,
    path: str | None,
) -> list[dict[str, Any]]:
    """One row a variant, in the order of finish."""
    metric, final = metrics
    alone = study.once(
        "seconds",
        lambda: {v.label: seconds_per_epoch(v.recipe, study.model, study.data) for v in order},
    )
    return [
        {
            "variant": v.label,
            **({path: v.values[path]} if path else {}),
            **{
                name: measuring.mean_sd([_value(run, name) for run in groups[v.label]])
                for name in dict.fromkeys((metric, final))
            },
            "p against the best": _p_of(pairs, order[0].label, v.label),
            **_soon(groups[v.label], metric, target, alone[v.label]),
            "diverged": sum(run.result["stopped"] == "diverged" for run in groups[v.label]),
        }
        for v in order
    ]


def _rates(study: Study, variants: list[Variant], path: str | None) -> str:
    """How the rates came about: ``tuned``, ``compared`` (they are what differs), ``not tuned``."""
    if path is not None:
        return "tuned"
    rate = _tunable(study.recipe, study.options["tune"] or "lr")
    return "compared" if all(rate in v.values for v in variants) else "not tuned"


def _value(run: Any, metric: str) -> float:
    value = run.result.get(metric)
    return math.nan if value is None or run.result["stopped"] == "diverged" else value


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if len(finite) == len(values) else math.inf


def _middle(groups: dict[str, list[Any]], metric: str) -> float:
    """What the median variant reaches in the end, on average."""
    return float(
        np.nanmedian(
            [
                np.nanmean([_value(run, metric) for run in runs] or [math.nan])
                for runs in groups.values()
            ]
        )
    )


def _soon(runs: Sequence[Any], metric: str, target: float, seconds: float) -> dict[str, Any]:
    """The median of the epochs at which runs first were as good as the target, and the seconds of
    one alone until then."""
    sign = 1 if better_is(metric) == "min" else -1
    epochs = []
    for run in runs:
        course = run.metrics
        reached = (
            course[sign * course[metric] <= sign * target + 1e-12]
            if metric in course
            else course[:0]
        )
        if len(reached):
            epochs.append(float(reached["epoch"].iloc[0]))
    enough = 2 * len(epochs) > len(runs)  # else the median run never was
    middle = (
        float(np.median([*epochs, *[math.inf] * (len(runs) - len(epochs))])) if enough else None
    )
    return {
        "reached": f"{len(epochs)} of {len(runs)}",
        "epochs to target": middle,
        "seconds to target": None if middle is None else middle * seconds,
    }


def _p_of(pairs: Sequence[dict[str, Any]], one: str, other: str) -> float | None:
    return next((row["p"] for row in pairs if {row["one"], row["other"]} == {one, other}), None)


def _baselines(study: Study) -> list[dict[str, Any]]:
    return classical_models(measuring.pipeline_of(study.recipe, study.data), study.recipe.seed)
