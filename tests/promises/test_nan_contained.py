"""What is not a number in one member of a population stays there: the others are bit-equal to those of a
population in which nothing happened."""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path

import pytest
import torch

import ravine
import trials
from ravine import Recipe
from ravine.engine.loop.evaluation import Evaluation
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.rows.step import Stepper

CONTAINED = "NaN is contained"
MEMBERS, STEP = 3, 2  # in the first epoch, which has 3 steps
MODELS = {
    "mlp": {"kind": "mlp", "hidden": [5], "dropout": 0.2},
    "norm": {"kind": "layers", "layers": [{"kind": "dense", "units": 5}, "batch_norm", "relu", {"kind": "dense", "units": 3}]},
    "softmax": {"kind": "softmax"},
}  # fmt: skip
TROUBLES = ("stop", "rollback", "report")
VALUES = (math.nan, math.inf)


def recipes(model: str, trouble: str) -> list[Recipe]:
    return [
        Recipe(
            seed=seed,
            data={"source": {"kind": "blobs", "samples": 400}, "batch": 100},
            model=MODELS[model],
            optimizer={"kind": "adam", "lr": 0.01 * (seed + 1)},
            average={"ema": 0.9},
            stop={"after": "3ep", "on_trouble": trouble, "best": True},
            threads=1,
        )
        for seed in range(MEMBERS)
    ]


def _at_step(patch, act) -> None:
    """Call act(stepper) before the step STEP."""
    one = Stepper.one

    def watched(self, micro, step, *given, **named):
        if step == STEP:
            act(self)
        return one(self, micro, step, *given, **named)

    patch.setattr(Stepper, "one", watched)


def batch(patch, row: int, value: float) -> None:
    """The loss of one member's batch, and with it its gradient."""
    gradient = Stepper._gradient

    def poisoned(self, batch, weight, step, accumulate):
        losses = gradient(self, batch, weight, step, accumulate)
        if step == STEP:
            losses = losses.clone()
            losses[row] = value
            self.population.grad[row] = value
        return losses

    patch.setattr(Stepper, "_gradient", poisoned)


def gradient(patch, row: int, value: float) -> None:
    own = Stepper._gradient

    def poisoned(self, batch, weight, step, accumulate):
        losses = own(self, batch, weight, step, accumulate)
        if step == STEP:
            self.population.grad[row, 0] = value
        return losses

    patch.setattr(Stepper, "_gradient", poisoned)


def weight(patch, row: int, value: float) -> None:
    _at_step(patch, lambda stepper: stepper.population.theta[row, :1].fill_(value))


def slot(patch, row: int, value: float) -> None:
    def act(stepper):
        for tensor in stepper.optimizer.state().values():
            tensor[row].fill_(value)

    _at_step(patch, act)


def average(patch, row: int, value: float) -> None:
    _at_step(patch, lambda stepper: stepper.average[row].fill_(value))


def metric(patch, row: int, value: float) -> None:
    epoch = Evaluation.epoch

    def poisoned(self, rows, places, rates):
        found = epoch(self, rows, places, rates)
        for place in found:
            if place["member"] == row:
                place["val_loss"] = value
        return found

    patch.setattr(Evaluation, "epoch", poisoned)


POISONS = {f.__name__: f for f in (batch, gradient, weight, slot, average, metric)}


def contained(folder: Path, poison: str, trouble: str, model: str, row: int, value: float) -> str:
    """Empty if the other members did not notice."""
    chosen = recipes(model, trouble)
    with pytest.MonkeyPatch.context() as patch:
        left = []
        ended = TrainingLoop._end_members
        patch.setattr(
            TrainingLoop, "_end_members", lambda self, rows: (left.append((self.step, len(rows))), ended(self, rows))[1]
        )  # fmt: skip
        POISONS[poison](patch, row, value)
        ravine.train_many(chosen, out=folder / "poisoned", quiet=True)
    if left and left[0][1] < MEMBERS:  # it left, so it leaves there too: widths change last digits
        chosen[row] = chosen[row].edit({"stop.after": f"{left[0][0]}it"})
    ravine.train_many(chosen, out=folder / "sound", quiet=True)
    found, sound = trials.numbers(folder / "poisoned"), trials.numbers(folder / "sound")
    if found[row] == sound[row]:
        return "nothing happened"
    names = [
        f"{name} of {member}"
        for member in range(MEMBERS)
        for name in sound[member]
        if member != row and found[member].get(name) != sound[member][name]
    ]
    return f"changed: {names}" if names else ""


def all_contained(folder: Path, cases) -> tuple[int, list[str]]:
    wrong, count = [], 0
    for count, case in enumerate(cases, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = contained(folder / str(count), *case)
        if text:
            wrong.append(f"{case}: {text}")
    return count, wrong


def test_each_poison_stays_in_its_member(tmp_path):
    cases = [(poison, "stop", "mlp", 1, math.nan) for poison in POISONS]
    _, wrong = all_contained(tmp_path, cases)
    assert not wrong


def test_a_slot_is_poisoned_where_it_lies(tmp_path):
    """The test's own poison reaches the optimiser, not a copy."""
    with pytest.MonkeyPatch.context() as patch:
        slot(patch, 0, math.nan)
        runs = ravine.train_many(recipes("mlp", "stop"), out=tmp_path / "run", quiet=True)
    assert runs[0].result["stopped"] == "diverged"
    assert all(torch.isfinite(run.slots["theta"]).all() for run in runs[1:])


@pytest.mark.slow
@pytest.mark.parametrize("poison", POISONS)
def test_every_poison_in_every_member(tmp_path, counted, poison):
    """NaN and infinity in the batch, gradient, weights, slots, average and metric of each member of a population
    of three, under every answer to trouble and three models: losses, metrics, results, weights and slots of the
    others are bit-equal to those without it.

    Broken: seen to fail where one row's check decides for all rows.
    """
    cases = itertools.product([poison], TROUBLES, MODELS, range(MEMBERS), VALUES)
    count, wrong = all_contained(tmp_path, cases)
    counted(CONTAINED, count, count - len(wrong), wrong)
