"""Lottery tickets: iterative magnitude pruning with rewinding, beside its controls, all of them
members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from ravine.catalogue import Count, Duration
from ravine.data.pipeline import Pipeline
from ravine.engine import snapshot
from ravine.engine.points import initial_rows
from ravine.engine.programs import StartRows
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.layout import Layout
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.study import measuring
from ravine.study.declare import Conclusion, OfRecipe, study
from ravine.study.directory import Study
from ravine.study.live import LiveTable
from ravine.study.lottery import pruning
from ravine.study.lottery.figures import page_of
from ravine.study.signature import Fraction, Trained

OTHER = 5000  # from a member's seed to that of its random re-initialisation
TICKET, REINIT, RANDOM, ONE_SHOT, DENSE = (
    "winning ticket",
    "random re-initialisation",
    "random mask",
    "one-shot",
    "dense",
)


@dataclass(frozen=True)
class Base:
    """Where every ticket comes from."""

    recipes: list[Recipe]
    layout: Layout
    origin: Tensor  # [seeds, D]: the weights to which tickets are rewound
    fresh: Tensor  # [seeds, D]: other initialisations, for the control
    trained: Tensor  # [seeds, D]: the dense networks at their end


@study
def lottery(
    study: Study,
    recipe: Recipe,
    *,
    rounds: Trained = 10,
    rate: Fraction = 0.2,
    scope: Literal["global", "layer"] = "global",
    rewind: Duration = "0it",
    seeds: Trained = 3,
    one_shot: bool = True,
    controls_every: Count = 1,
    **common: Unpack[OfRecipe],
) -> Conclusion:
    """Lottery tickets: iterative magnitude pruning with rewinding, beside its controls.

    Each round prunes the smallest weights, rewinds the others and trains again. The controls of a
    round are the same mask with other initial weights, and the same initial weights with a random
    mask of the same sparsity. Every round is one population.

    Args:
        rounds: Rounds of pruning.
        rate: The part of the remaining weights that is pruned in a round.
        scope: Prune the smallest of all weights together, or in each layer.
        rewind: Rewind to this step: 0it is the initialisation.
        seeds: Seeds of each arm.
        one_shot: Also prune the dense network to every sparsity at once.
        controls_every: Train the controls in every so many rounds.

    Source: Frankle and Carbin, "The lottery ticket hypothesis", 2019; Frankle et al. (rewinding),
    2020.
    """
    rows: list[dict[str, Any]] = []
    with LiveTable(
        f"lottery tickets of {recipe.name}", "val_loss", rounds + 1 + one_shot, quiet=study.quiet
    ) as live:
        base = _dense(study, live, rows)
        mask = pruning.full_mask(base.origin)
        weights, masks = base.trained, []
        for round_ in range(1, rounds + 1):
            mask = pruning.pruned(weights, mask, base.layout, rate, scope)
            masks.append(mask)
            weights = _round(study, base, mask, round_, live, rows)
        if one_shot:
            _one_shot(study, base, masks, live, rows)
    return _conclude(study, rows)


def _dense(study: Study, live: LiveTable, rows: list[dict[str, Any]]) -> Base:
    """Train the dense networks, and keep the weights to which tickets are rewound."""
    recipes = [
        study.recipe.edit({"seed": study.recipe.seed + i}) for i in range(study.options["seeds"])
    ]
    others = [recipe.edit({"seed": recipe.seed + OTHER}) for recipe in recipes]
    runs = study.train(
        "dense",
        recipes,
        trace=[study.options["rewind"]],
        test=True,
        report=live.stage("dense", recipes, _labels(recipes)),
    )
    module = study.model if callable(study.model) else None
    origin = _traced(runs, study.options["rewind"])
    pipeline = measuring.pipeline_of(recipes[0], study.data)
    fresh = study.arrays("fresh", lambda: {"theta": initial_rows(others, pipeline, module)})[
        "theta"
    ]
    rows += _measured(DENSE, runs, [1.0] * len(runs), 0)
    return Base(recipes, runs[0].layout, origin, fresh, finals(runs))


def _traced(runs: Sequence[Run], rewind: str) -> Tensor:
    """The weights [seeds, D] of the dense networks at the step of ``rewind``."""
    found: dict[int, Tensor] = {}
    with RunDir.open(runs[0].directory) as rundir:
        for program in range(len(rundir.facts["programs"])):
            for place in rundir.trace_snapshots(program)[:1]:
                arrays, facts = snapshot.read(place)
                found |= dict(zip(facts["members"], arrays["theta"], strict=True))
    if len(found) < len(runs):
        expected = "a step of the run: its schedule ends before"
        raise InputError("--rewind", got=rewind, expected=expected)
    return torch.stack([found[run.member] for run in runs])


def _round(
    study: Study, base: Base, mask: Tensor, round_: int, live: LiveTable, rows: list[dict[str, Any]]
) -> Tensor:
    """One population of tickets and controls; gives the tickets' final weights."""
    n = len(base.recipes)
    others = [recipe.edit({"seed": recipe.seed + OTHER}) for recipe in base.recipes]
    arms = [(TICKET, base.recipes, base.origin, mask)]
    if round_ % study.options["controls_every"] == 0 or round_ == study.options["rounds"]:
        random = pruning.shuffled(mask, base.layout, [recipe.seed for recipe in base.recipes])
        arms += [(REINIT, others, base.fresh, mask), (RANDOM, base.recipes, base.origin, random)]
    recipes = [recipe for _, own, _, _ in arms for recipe in own]
    start = StartRows(
        torch.cat([theta for _, _, theta, _ in arms]), torch.cat([m for _, _, _, m in arms])
    )
    labels = [{"arm": name, "seed": recipe.seed} for name, own, _, _ in arms for recipe in own]
    stage = f"round-{round_:02d}"
    runs = study.train(
        stage, recipes, rows=start, test=True, report=live.stage(stage, recipes, labels)
    )
    for i, (name, _, _, m) in enumerate(arms):
        rows += _measured(
            name, runs[i * n : (i + 1) * n], pruning.left(m, base.layout).tolist(), round_
        )
    return finals(runs[:n])


def _one_shot(
    study: Study, base: Base, masks: Sequence[Tensor], live: LiveTable, rows: list[dict[str, Any]]
) -> None:
    """The dense networks pruned at once to each round's sparsity, rewound and trained: all rounds
    in one population."""
    recipes, starts, kept = [], [], []
    for round_ in range(1, len(masks) + 1):
        rate = 1 - float(pruning.left(masks[round_ - 1], base.layout).mean())
        mask = pruning.pruned(
            base.trained,
            pruning.full_mask(base.trained),
            base.layout,
            rate,
            study.options["scope"],
        )
        recipes += base.recipes
        starts.append(base.origin)
        kept.append(mask)
    labels = [{"arm": ONE_SHOT, "round": i // len(base.recipes) + 1} for i in range(len(recipes))]
    start = StartRows(torch.cat(starts), torch.cat(kept))
    runs = study.train(
        "one-shot", recipes, rows=start, test=True, report=live.stage("one-shot", recipes, labels)
    )
    n = len(base.recipes)
    for i, mask in enumerate(kept):
        rows += _measured(
            ONE_SHOT, runs[i * n : (i + 1) * n], pruning.left(mask, base.layout).tolist(), i + 1
        )


def finals(runs: Sequence[Run]) -> Tensor:
    """The weights [P, D] with which runs ended."""
    return torch.stack([run.theta for run in runs])


def _labels(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    return [{"arm": DENSE, "seed": recipe.seed} for recipe in recipes]


def _measured(
    arm: str, runs: Sequence[Run], parts: Sequence[float], round_: int
) -> list[dict[str, Any]]:
    """One row for each member: how it ended, and the step at which its validation loss was least
    (early stopping)."""
    found = []
    for run, part in zip(runs, parts, strict=True):
        course = run.metrics
        best = (
            course.loc[course["val_loss"].idxmin()]
            if "val_loss" in course and course["val_loss"].notna().any()
            else None
        )
        names = [name for name in run.result if name.startswith(("val_", "test_"))]
        found.append(
            {
                "arm": arm,
                "round": round_,
                "left": part,
                "seed": run.recipe.seed,
                **{n: run.result[n] for n in names},
                "early stop": None if best is None else int(best["step"]),
                "run": str(run.directory),
                "member": run.member,
            }
        )
    return found


def _conclude(study: Study, rows: list[dict[str, Any]]) -> Conclusion:
    task = Pipeline(study.recipe.data, arrays=study.data).task
    metric = next(
        (
            m
            for m in ("test_accuracy", "test_rmse", "val_accuracy", "test_loss", "val_loss")
            if m in rows[0]
        ),
        "val_loss",
    )
    table = []
    for arm, round_ in dict.fromkeys((row["arm"], row["round"]) for row in rows):
        own = [row for row in rows if (row["arm"], row["round"]) == (arm, round_)]
        table.append(
            {
                "arm": arm,
                "round": round_,
                "weights left in %": round(100 * sum(r["left"] for r in own) / len(own), 3),
                metric: measuring.mean_sd([r[metric] for r in own]),
                "early stop": measuring.mean_sd([r["early stop"] for r in own]),
            }
        )
    best = [row for row in table if row["arm"] == TICKET]
    summary = {
        "metric": metric,
        "task": task,
        "table": table,
        "rows": rows,
        "smallest": best[-1],
        "dense": table[0],
        "scope": study.options["scope"],
        "rewind": study.options["rewind"],
        "seconds": study.seconds,
    }
    return summary, page_of(study, summary)
