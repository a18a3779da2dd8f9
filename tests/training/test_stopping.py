"""When a run ends, and with which weights: every criterion alone, on any metric, for each member by
its own."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from torch import nn

import ravine
from ravine import InputError, RavineError, Recipe
from ravine.engine.loop.stopping import Stopping
from ravine.recipe import Recipe as Said

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 6)).astype("float32")
Y = (X @ RNG.normal(size=(6, 3))).argmax(1)
BATCHES = 6  # steps of an epoch


def run(place, **said):
    defaults = {"model": "softmax", "data": (X, Y), "lr": 0.01, "batch": 16, "quiet": True}
    return ravine.train(out=place / "run", **defaults | said)


# --- the judge alone ------------------------------------------------------------------------------


class Week:
    """A calendar of ten steps an epoch."""

    epoch_steps = 10

    def steps(self, duration, total=None):
        return (
            int(duration.removesuffix("ep")) * 10
            if duration.endswith("ep")
            else int(duration.removesuffix("it"))
        )


def judged(losses, **stop):
    """After which epoch a member ends whose validation losses are these, why, and which epoch was
    the best."""
    judge = Stopping(Said(stop={"after": "100ep", **stop}), Week())
    for epoch, loss in enumerate(losses, 1):
        judge.observe(
            10 * epoch, {"val_loss": loss, "val_f1": loss, "train_loss": loss}, seconds=60.0 * epoch
        )
        if judge.reason:
            return epoch, judge.reason, judge.best_step // 10
    return None, None, judge.best_step // 10


@pytest.mark.parametrize(
    ("losses", "stop", "ends", "best"),
    [
        ([3, 2, 1, 1, 1, 1], {"patience": "2ep"}, 5, 3),
        ([3, 2, 1, 2, 0.5, 1, 1], {"patience": "2ep"}, 7, 5),
        (
            [3, 2.99, 2.98, 2.97],
            {"patience": "2ep", "min_delta": 0.1},
            3,
            3,
        ),  # the best, though by too little to count
        ([3, 2.5, 2.0, 1.5, 1.0], {"patience": "2ep", "min_delta": 0.1}, None, 5),
        (
            [3, 2.95, 2.85, 2.80],
            {"patience": "2ep", "min_delta": 0.1},
            None,
            4,
        ),  # small steps add up
        ([1, 2, 3, 3, 3], {"patience": "2ep", "mode": "max"}, 5, 3),
        (
            [1, 2, 3, 3, 3],
            {"patience": "2ep", "monitor": "val_f1"},
            5,
            3,
        ),  # more is better for what is not a loss
        ([3, 2, 1, 1, 0.5], {"patience": "0ep"}, 4, 3),  # the first check without improvement
        ([3, 2, 1, 0.5, 0.25], {"patience": "0ep"}, None, 5),
        ([3, 2, 1.95], {"patience": "0it", "min_delta": 0.1}, 3, 3),
        ([float("nan"), 2, float("nan"), float("inf"), 1], {"patience": "3ep"}, None, 5),
        ([float("nan")] * 3, {"patience": "2ep"}, 2, 0),
        ([3, 2, 1, 0.5], {"target": 1.0}, 3, 3),
        ([1, 2, 3, 4], {"target": 2.5, "monitor": "val_f1"}, 3, 3),
        ([3, 2, 1, 1], {"minutes": 2.5}, 3, 3),
        ([3, 2, 1, 1], {"after": "2ep"}, 2, 2),
        ([3, 2, 1, 1], {"after": "25it"}, 3, 3),
    ],
)
def test_the_judge(losses, stop, ends, best):
    assert judged(losses, **stop)[::2] == (ends, best)


def keras(values, patience, min_delta):
    """Keras's EarlyStopping, as its ``on_epoch_end`` is written: the epoch after which it ends."""
    best, wait = np.inf, 0
    for epoch, value in enumerate(values):
        wait += 1
        if value < best - min_delta:
            best, wait = value, 0
        elif wait >= patience and epoch > 0:
            return epoch + 1
    return None


@pytest.mark.parametrize("patience", range(4))
@pytest.mark.parametrize("min_delta", [0.0, 0.01, 0.1])
def test_patience_is_that_of_keras(patience, min_delta):
    rng = np.random.default_rng(patience)
    for _ in range(60):
        values = list(np.exp(-np.arange(25) / 9) + rng.normal(0, 0.1, 25))
        stop = {"patience": f"{patience}ep", "min_delta": min_delta}
        assert judged(values, **stop)[0] == keras(values, patience, min_delta)


def test_reasons_say_what_was_met():
    assert judged([3, 2, 2, 2], patience="2ep")[1] == "no better val_loss for 2ep"
    assert judged([1, 2, 3], monitor="val_f1", target=2.0)[1] == "target reached: val_f1 2"
    assert judged([1, 2, 3], minutes=0.5)[1] == "time limit of 0.5 min reached"


def test_patience_that_ran_out_begins_anew_when_a_run_is_extended():
    judge = Stopping(Said(stop={"after": "100ep", "patience": "2ep"}), Week())
    for epoch, loss in enumerate([1, 2, 2], 1):
        judge.observe(10 * epoch, {"val_loss": loss}, 0.0)
    assert judge.reason
    judge.extend(30)
    judge.observe(40, {"val_loss": 2.0}, 0.0)
    assert judge.reason is None
    judge.observe(50, {"val_loss": 2.0}, 0.0)
    assert judge.reason


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "steps"),
    [
        ({"epochs": 2}, 12),
        ({"steps": 7}, 7),
        ({"stop": {"after": "1.5ep"}}, 9),
        ({"steps": 1}, 1),
        ({"epochs": 9, "patience": "2ep", "min_delta": 100.0}, 18),
        ({"epochs": 9, "patience": "2ep", "monitor": "train_loss", "min_delta": 100.0}, 18),
        ({"epochs": 9, "patience": "2ep", "monitor": "grad_norm", "min_delta": 100.0}, 18),
        (
            {
                "epochs": 9,
                "patience": "1ep",
                "monitor": "val_f1",
                "metrics": ["f1"],
                "min_delta": 1.0,
            },
            12,
        ),
        ({"epochs": 9, "target": -1.0, "monitor": "val_accuracy"}, 6),
        ({"epochs": 9, "target": 100.0}, 6),
        ({"epochs": 2, "target": -1.0}, 12),  # never reached
        ({"epochs": 9, "gradient_norm": 1e9}, 6),
        (
            {"epochs": 9, "patience": "2ep", "validation": 0.0, "min_delta": 100.0},
            None,
        ),  # the training loss stands in
    ],
)
def test_runs_end_where_they_should(said, steps, tmp_path):
    ended = run(tmp_path, **said)
    assert ended.result["steps"] == len(ended.losses)
    assert ended.result["steps"] == (steps or 3 * ended.metrics["step"].iloc[0])
    assert ended.metrics["step"].iloc[-1] == ended.result["steps"]
    assert ended.result["stopped"]


def test_a_small_gradient_ends_a_run(tmp_path):
    ended = run(
        tmp_path,
        model=nn.Linear(6, 1),
        data=(X, X[:, 0]),
        lr=0.1,
        epochs=300,
        gradient_norm=0.05,
        batch="full",
    )
    assert ended.result["stopped"] == "gradient norm below 0.05"
    assert ended.metrics["grad_norm"].iloc[-1] < 0.05 <= ended.metrics["grad_norm"].iloc[-2]


@pytest.mark.parametrize(
    ("said", "keeps"),
    [
        ({"patience": "4ep"}, True),
        ({"best": True}, True),
        ({"patience": "4ep", "best": False}, False),
        ({}, False),
    ],
)
def test_best_weights(said, keeps, tmp_path):
    """A learning rate that is far too high: the validation loss jumps about."""
    ended = run(tmp_path, model={"kind": "mlp", "hidden": [32]}, lr=0.5, epochs=12, **said)
    seen = ended.metrics["val_loss"]
    assert seen.iloc[-1] > seen.min()
    assert ended.result["val_loss"] == pytest.approx(
        seen.min() if keeps else seen.iloc[-1], rel=1e-6
    )
    assert (
        ended.result["best_step"]
        == ended.metrics["step"][seen.idxmin() if keeps else len(seen) - 1]
    )


def test_each_member_ends_by_its_own(tmp_path):
    stops = [
        {"after": "3ep"},
        {"after": "5it"},
        {"after": "9ep", "patience": "1ep", "min_delta": 9.0},
        {"after": "9ep", "target": 9.0},
    ]
    recipes = [
        Recipe(seed=i, stop=stop, data={"batch": 16}, model="softmax")
        for i, stop in enumerate(stops)
    ]
    runs = ravine.train_many(recipes, data=(X, Y), out=tmp_path / "many", quiet=True)
    assert [run.result["steps"] for run in runs] == [18, 5, 12, 6]
    assert [run.result["stopped"] for run in runs][:2] == ["finished", "finished"]
    assert runs[2].result["stopped"].startswith("no better")
    assert runs[3].result["stopped"].startswith("target reached")


def test_a_member_that_ends_within_an_epoch_does_not_concern_the_others(tmp_path):
    recipes = [
        Recipe(stop={"after": after}, data={"batch": 16}, model="softmax")
        for after in ("3ep", "8it")
    ]
    long, short = ravine.train_many(recipes, data=(X, Y), out=tmp_path / "many", quiet=True)
    alone = ravine.train(recipes[0], data=(X, Y), out=tmp_path / "alone", quiet=True)
    assert list(long.metrics["step"]) == list(alone.metrics["step"]) == [6, 12, 18]
    assert list(short.metrics["step"]) == [6, 8]
    np.testing.assert_allclose(long.metrics["train_loss"], alone.metrics["train_loss"], rtol=1e-4)


def test_a_run_that_ran_out_of_patience_is_extended(tmp_path):
    ended = run(tmp_path, epochs=20, patience="2ep", min_delta=100.0)
    assert ended.result["steps"] == 3 * BATCHES
    longer = ravine.resume(ended.directory, data=(X, Y), after="30ep", quiet=True)[0]
    assert longer.result["steps"] == 5 * BATCHES


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ({"epochs": 2, "steps": 7}, "one of them"),
        ({"monitor": "test_loss"}, "val_loss"),
        (
            {"monitor": "val_confusion_matrix", "metrics": ["confusion_matrix"]},
            "val_confusion_matrix_0_0",
        ),
        ({"monitor": "val_accuracy", "validation": 0.0}, "train_loss"),
        ({"patience": 3}, "3ep"),
        ({"patience": "10%"}, "ep"),
        ({"min_delta": -1.0}, "at least 0"),
        ({"minutes": 0.0}, "greater than 0"),
        ({"mode": "best"}, "'auto', 'min' or 'max'"),
        ({"target": "high"}, "names a column"),  # text is the name of a column
        ({"gradient_norm": -1.0}, "at least 0"),
    ],
)
def test_bad_criteria(said, holds, tmp_path):
    with pytest.raises(InputError) as refused:
        run(tmp_path, **said)
    assert holds in str(refused.value)
    assert not (tmp_path / "run").exists()


def interrupted(place, **said):
    """A run that SIGTERM ended after its first block of steps."""
    recipe = Recipe(
        data={"batch": 2}, model="softmax", optimizer={"kind": "adam", "lr": 0.01}, **said
    )

    def stop(progress):
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(RavineError, match=r"ravine\.resume\('.*run', data=…\) continues it"):
        ravine.train_many([recipe], data=(X, Y), out=place / "run", report=stop)
    return place / "run", recipe


def test_sigterm_leaves_a_run_that_goes_on_to_the_same_bits(tmp_path):
    cut, recipe = interrupted(tmp_path, stop={"after": "2ep"})
    with pytest.raises(RavineError, match=r"has not ended; ravine\.resume"):
        _ = ravine.Run(cut).result
    resumed = ravine.resume(cut, data=(X, Y), quiet=True)[0]
    whole = ravine.train(recipe, data=(X, Y), out=tmp_path / "whole", quiet=True)
    assert torch.equal(resumed.slots["theta"], whole.slots["theta"])
    assert list(resumed.metrics["train_loss"]) == list(whole.metrics["train_loss"])
    np.testing.assert_array_equal(resumed.losses, whole.losses)


def test_an_interrupted_run_takes_a_new_end(tmp_path):
    cut, _ = interrupted(tmp_path, stop={"after": "2ep"})
    with pytest.raises(InputError, match="expected no earlier end than 2ep"):
        ravine.resume(cut, data=(X, Y), after="1it", quiet=True)
    ended = ravine.resume(cut, data=(X, Y), after="3ep", quiet=True)[0]
    assert ended.result["epochs"] == 3


def test_the_time_limit_ends_a_run_within_an_epoch(tmp_path):
    """An epoch of a long text is most of a run."""
    given = {"model": "softmax", "data": "blobs", "batch": 1, "epochs": 400}
    run = ravine.train(**given, minutes=1e-9, quiet=True, out=tmp_path / "run", doctor=False)
    assert run.result["stopped"].startswith("time limit")
    assert 1 <= run.result["steps"] <= 8
    assert run.metrics["step"].iloc[-1] == run.result["steps"]  # and it is judged there
