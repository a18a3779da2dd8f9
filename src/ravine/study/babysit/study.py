"""First checks: the first loss, one batch overfitted, the loss against the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Unpack

import numpy as np
import torch
from pydantic import Field

from ravine.data.pipeline import Pipeline
from ravine.doctor.measure.baseline import baseline
from ravine.engine.points import Points
from ravine.optim.penalties import penalty
from ravine.recipe import Recipe, fields
from ravine.study import measuring
from ravine.study.babysit.figures import overfit_figure
from ravine.study.declare import Conclusion, OfRecipe, study
from ravine.study.directory import Study
from ravine.study.live import LiveTable
from ravine.study.lr.figures import final_figure
from ravine.study.lr.study import judge
from ravine.study.page import Page, PageTable
from ravine.study.signature import Several

FACTORS = (0.1, 1.0, 10.0)  # of the recipe's own rate, at which one batch is overfitted
OVERFITTED = 0.02  # of the constant predictor's loss
NEAR = 0.25  # the first loss may differ by this part from the constant predictor's
REACH = 3.0  # a rate may lie this factor outside of the range that learns best
OFF = {
    "data.augment": [],
    "data.bootstrap": False,
    "schedule": "constant",
    "average": {},
    "regularize": {},
    "loss.l1": 0.0,
    "loss.l2": 0.0,
    "loss.lp": 0.0,
}


@study
def babysit(  # type: ignore[misc] # an option of its own hides that of OfRecipe
    study: Study,
    recipe: Recipe,
    *,
    samples: Several = 20,
    steps: Annotated[int, Field(strict=True, ge=10)] = 300,
    rates: Annotated[int, Field(strict=True, ge=3)] = 12,
    **common: Unpack[OfRecipe],
) -> Conclusion:
    """First checks before a long run: the first loss, one batch overfitted, the loss against the
    rate.

    1. The first loss, without penalties, against that of a predictor that knows nothing (ln K for K
    classes). Where the recipe has penalties on the weights, the loss with them must be larger.
    2. A few training samples, without any regularisation, must be overfitted at one of three
    learning rates. 3. The recipe's rate must lie near those that train, of many side by side.

    Args:
        samples: Samples to be overfitted.
        steps: Steps for that.
        rates: Learning rates side by side.
    """
    pipeline = measuring.pipeline_of(recipe, study.data)
    first = study.once("first", lambda: first_loss(recipe, pipeline, study.model))
    constant = _unsmoothed(recipe, pipeline, study.model) or first["constant predictor"]
    with LiveTable(f"first checks of {recipe.name}", "train_loss", 2, quiet=study.quiet) as live:
        overfit = _overfit(study, pipeline, constant, live)
        ladder = _ladder(study, live)
    return _conclude(study, first, overfit, ladder)


def first_loss(
    recipe: Recipe, pipeline: Pipeline, model: Any = None, samples: int = 1024
) -> dict[str, Any]:
    """The loss at step 0 with and without penalties, and what the best constant predictor has on
    the same targets."""
    points = Points(recipe, pipeline, model if callable(model) else None, width=1)
    batches = list(pipeline.split("train", limit=samples))
    theta = points.population.theta[:1].detach().clone()
    loss = float(points.measure(theta, batches)["loss"][0])
    strengths = [
        torch.tensor([getattr(recipe.loss, name)], dtype=torch.float64)
        for name in ("l1", "l2", "lp", "p")
    ]
    total = loss + float(penalty(theta.double(), points.population.layout, *strengths)[0])
    felt = total > loss and math.isfinite(total) if any(map(float, strengths[:3])) else None
    y = torch.cat([batch.y for batch in batches])
    loss_function = points.population.objectives[0].loss
    known = baseline(loss_function, y, pipeline.outputs, pipeline.task)
    expected = known.uninformed
    near = abs(loss - expected) <= NEAR * max(expected, 1e-12)
    label = (
        f"ln {pipeline.outputs}"
        if pipeline.task in ("classification", "sequence")
        and math.isclose(expected, math.log(max(pipeline.outputs, 2)), rel_tol=1e-3)
        else ""
    )
    return {
        "first loss": loss,
        "expected": expected,
        "expected is": label,
        "constant predictor": known.loss,
        "with penalties": total,
        "penalties passed": felt,
        "passed": bool(near),
    }


def _unsmoothed(recipe: Recipe, pipeline: Pipeline, model: Any) -> float | None:
    """The constant predictor's loss on labels that are not smoothed; None where none are."""
    plain = recipe.edit(_without_smoothing(recipe))
    if plain == recipe:
        return None
    return float(first_loss(plain, pipeline, model)["constant predictor"])


def _overfit(study: Study, pipeline: Pipeline, constant: float, live: LiveTable) -> dict[str, Any]:
    """The same few samples again and again."""
    steps = study.options["steps"]
    x, y = few_samples(pipeline, study.options["samples"])
    own = study.recipe.edit(
        {
            **OFF,
            "data.preprocess": [],
            "data.validation": 0.0,
            "data.test": 0.0,
            "data.batch": "full",
            "data.order": "fixed",
            "stop": {"after": f"{steps}it"},
            **_without_dropout(study.recipe),
            **_without_smoothing(study.recipe),
        }
    )
    rates = [own.optimizer.lr * factor for factor in FACTORS]
    recipes = [own.edit({"optimizer.lr": rate, "data.source": "arrays"}) for rate in rates]
    runs = study.train(
        "one-batch",
        recipes,
        data=(x.cpu(), y.cpu()),
        report=live.stage("one-batch", recipes, [{"optimizer.lr": r} for r in rates]),
    )
    courses = [run.losses for run in runs]
    finals = [
        float(course[-5:].mean()) if np.isfinite(course[-5:]).all() else math.inf
        for course in courses
    ]
    goal = OVERFITTED * constant
    best = int(np.argmin(finals))
    return {
        "rates": rates,
        "final": finals,
        "goal": goal,
        "best rate": rates[best],
        "passed": finals[best] < goal,
        "courses": [course[:: max(1, len(course) // 300)] for course in courses],
    }


def few_samples(pipeline: Pipeline, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first training samples, as the network sees them; of classes, at least one of each."""
    batches = list(pipeline.split("train"))
    x, y = torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches])
    chosen = list(range(min(count, len(x))))
    if pipeline.task == "classification":
        first = [int((y == c).nonzero()[0]) for c in y.unique()]
        chosen = sorted(
            set(first) | set([i for i in chosen if i not in first][: max(0, count - len(first))])
        )
    return x[chosen], y[chosen]


def _without_dropout(recipe: Recipe) -> dict[str, Any]:
    rates = [
        path
        for path, value, _ in fields(recipe)
        if path.startswith("model.") and path.endswith(("dropout", "rate")) and value
    ]
    return dict.fromkeys(rates, 0.0)


def _without_smoothing(recipe: Recipe) -> dict[str, Any]:
    """Smoothed labels hold the loss above a floor that no network passes."""
    smoothed = recipe.loss.arguments.get("label_smoothing")
    return {"loss.label_smoothing": 0.0} if smoothed else {}


def _ladder(study: Study, live: LiveTable) -> dict[str, Any]:
    values = [float(f"{rate:.4g}") for rate in np.geomspace(1e-6, 10, study.options["rates"])]
    base = study.recipe.edit({"schedule": "constant", "stop": {"after": "100it"}})
    recipes = [base.edit({"optimizer.lr": value}) for value in values]
    runs = study.train(
        "rates", recipes, report=live.stage("rates", recipes, [{"optimizer.lr": v} for v in values])
    )
    found = judge(values, [run.losses for run in runs], [run.result["stopped"] for run in runs])
    own = study.recipe.optimizer.lr
    inside = (
        found["range"] is not None and found["range"][0] / REACH <= own <= found["range"][1] * REACH
    )
    return {**found, "own": own, "passed": bool(inside)}


def _conclude(
    study: Study, first: dict[str, Any], overfit: dict[str, Any], ladder: dict[str, Any]
) -> Conclusion:
    checks = _checks(first, overfit, ladder)
    failed = [check["check"] for check in checks if not check["passed"]]
    verdict = (
        f"Not passed: {', '.join(failed)}." if failed else f"All {len(checks)} checks are passed."
    )
    summary = {
        "passed": not failed,
        "checks": checks,
        "first": first,
        "one_batch": {k: v for k, v in overfit.items() if k != "courses"},
        "rates": ladder,
        "seconds": study.seconds,
    }
    courses = [np.array(course) for course in overfit["courses"]]
    rates = [row["optimizer.lr"] for row in ladder["table"]]
    page = Page(
        title=f"First checks of {study.recipe.name}",
        sentences=[verdict, *_advice(first, overfit, ladder)],
        figures={
            "overfit": (
                "One batch, trained again and again",
                overfit_figure(courses, overfit["rates"], overfit["goal"]),
            ),
            "rates": ("Loss after 100 steps against the rate", final_figure(rates, ladder)),
        },
        tables=[
            PageTable("Checks", checks, best=None),
            PageTable("Learning rates", ladder["table"], best=None),
        ],
        reading=[
            "A first loss far above ln K: scores start too large. Far below: the loss or the targets are not what you think.",
            "A network that cannot overfit twenty samples has a fault in model, loss or data; more data will not help.",
        ],
    )
    return summary, page


def _checks(
    first: dict[str, Any], overfit: dict[str, Any], ladder: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row a check: what was seen, what was expected."""
    expected = (
        f"{first['expected is']} = {first['expected']:.3f}"
        if first["expected is"]
        else f"{first['expected']:.3g}"
    )
    return [
        {
            "check": "first loss",
            "passed": first["passed"],
            "seen": f"{first['first loss']:.4g}",
            "expected": f"near {expected}",
        },
        *_penalty_check(first),
        {
            "check": "one batch overfitted",
            "passed": overfit["passed"],
            "seen": f"{min(overfit['final']):.3g} at lr {overfit['best rate']:.3g}",
            "expected": f"under {overfit['goal']:.3g}",
        },
        {
            "check": "learning rate",
            "passed": ladder["passed"],
            "seen": f"{ladder['own']:.3g}",
            "expected": _range(ladder["range"]),
        },
    ]


def _penalty_check(first: dict[str, Any]) -> list[dict[str, Any]]:
    """The row of the penalties; none where the recipe has no penalty."""
    if first["penalties passed"] is None:
        return []
    return [
        {
            "check": "loss with penalties",
            "passed": first["penalties passed"],
            "seen": f"{first['with penalties']:.6g}",
            "expected": f"more than {first['first loss']:.6g}",
        }
    ]


def _range(found: Sequence[float] | None) -> str:
    return f"{found[0] / REACH:.2g} to {found[1] * REACH:.2g}" if found else "a rate that learns"


def _advice(first: dict[str, Any], overfit: dict[str, Any], ladder: dict[str, Any]) -> list[str]:
    found = []
    if not first["passed"]:
        way = "above" if first["first loss"] > first["expected"] else "below"
        found.append(
            f"The first loss lies {way} chance level: look at the initialisation, the inputs' scale and the loss."
        )
    if first["penalties passed"] is False:
        found.append(
            "The penalties do not raise the loss: the weights are zero or not finite, or no weight is penalised."
        )
    if not overfit["passed"]:
        found.append(
            "One small batch was not overfitted: ravine gradcheck and ravine doctor look for the fault."
        )
    if not ladder["passed"] and ladder["suggested"]:
        found.append(
            f"Try a learning rate near {ladder['suggested']:.2g} instead of {ladder['own']:.2g}."
        )
    return found
