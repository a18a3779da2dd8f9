"""``stop.on_trouble``: a member that diverges stops, goes back with a smaller rate, or skips the
step; all of it recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ravine
from ravine.recipe import Recipe

BASE = Recipe(
    model={"kind": "mlp", "hidden": [16]},
    data={"source": "blobs", "batch": 32},
    optimizer={"kind": "momentum", "lr": 0.05},
    loss="squared",
    precision="float64",
    seed=3,
).edit({"stop.after": "8ep"})
WILD = BASE.edit({"optimizer.lr": 1e6})


def event_kinds(run):
    return [
        event["kind"] for event in run.events if event["kind"] in ("rollback", "report", "frozen")
    ]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_stop_ends_the_member():
    run = ravine.train(WILD)
    assert run.result["stopped"] == "diverged"
    assert "rollback" not in event_kinds(run)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "rmsprop", "lamb"])
def test_a_rate_that_no_float32_holds_is_a_run_that_diverges(kind):
    run = ravine.train(
        BASE.edit({"optimizer": {"kind": kind, "lr": 1e308}, "precision": "auto"}),
        quiet=True, doctor=False,
    )  # fmt: skip
    assert run.result["stopped"] == "diverged"


def test_rollback_divides_the_rate_until_it_learns():
    run = ravine.train(
        WILD.edit({"stop.on_trouble": "rollback", "stop.rollbacks": 20, "stop.after": "20ep"})
    )
    returns = [event for event in run.events if event["kind"] == "rollback"]
    assert run.result["stopped"] == "finished"
    assert run.result["val_loss"] < 0.5
    assert len(returns) >= 5
    assert run.metrics["lr"].iloc[-1] == pytest.approx(1e6 * 0.2 ** len(returns))
    assert "step 0" in returns[0]["text"]


def test_rollback_gives_up_after_its_number_of_returns():
    run = ravine.train(WILD.edit({"stop.on_trouble": "rollback", "stop.rollbacks": 2}))
    assert event_kinds(run).count("rollback") == 2
    assert run.result["stopped"] == "diverged"


def test_a_loss_that_rises_but_stays_finite_counts():
    """Plain descent on squared error with a rate just over the edge grows for long before it
    overflows."""
    changes = {
        "optimizer": {"kind": "sgd", "lr": 1.5},
        "stop.on_trouble": "rollback",
        "model": "linear",
        "stop.after": "12ep",
    }
    run = ravine.train(BASE.edit(changes))
    returns = [event for event in run.events if event["kind"] == "rollback"]
    assert "mean loss rose" in returns[0]["text"]
    assert run.result["val_loss"] < 0.5


def test_healthy_members_do_not_notice():
    recipes = [BASE.edit({"seed": seed}) for seed in range(3)]
    alone = ravine.train_many(recipes)
    beside = ravine.train_many([*recipes, WILD.edit({"stop.on_trouble": "rollback", "seed": 9})])
    watched = ravine.train_many(
        [recipe.edit({"stop.on_trouble": "rollback"}) for recipe in recipes]
    )
    for i in range(3):
        ours = torch.nn.utils.parameters_to_vector(alone[i].model.parameters())
        for other in (beside[i], watched[i]):
            theirs = torch.nn.utils.parameters_to_vector(other.model.parameters())
            assert float((ours - theirs).detach().norm() / ours.detach().norm()) < 1e-9
    assert "rollback" in event_kinds(beside[3])
    assert not any("rollback" in event_kinds(run) for run in watched)


def test_report_skips_the_steps_and_goes_on():
    """One sample whose squared error overflows: its batches give no finite gradient, the others
    train."""
    x, y = torch.randn(256, 4, dtype=torch.float64), torch.randn(256, 1, dtype=torch.float64)
    x[5] = 1e200
    y = x[:, :1].clamp(-3, 3) + 0.01 * y
    options = {
        "model": {"kind": "mlp", "hidden": [8]},
        "data": (x, y),
        "loss": "squared",
        "batch": 32,
        "optimizer": "sgd",
        "lr": 0.05,
        "epochs": 6,
        "precision": "float64",
        "preprocess": [],
        "validation": 0.0,
        "test": 0.0,
    }
    stopped = ravine.train(**options)
    assert stopped.result["stopped"] == "diverged"
    run = ravine.train(**options, on_trouble="report")
    reports = [event for event in run.events if event["kind"] == "report"]
    assert run.result["stopped"] == "finished"
    assert len(reports) == 6
    assert reports[0]["text"].startswith("1 of 8 steps")
    assert np.isfinite(run.losses).sum() == 6 * 7


def test_resumed_to_the_bit(tmp_path):
    """Interrupted while a member is on its way back: the same numbers as without the
    interruption."""
    wild = WILD.edit({"stop.on_trouble": "rollback", "stop.rollbacks": 12, "stop.after": "12ep"})
    recipes = [wild, BASE.edit({"stop.after": "12ep"})]
    whole = ravine.train_many(recipes, out=tmp_path / "whole")
    seen = []

    class Enough(Exception):
        pass

    def report(progress):
        seen.append(progress.step)
        if progress.step > 4 * progress.epoch_steps:
            raise Enough

    with pytest.raises(Enough):
        ravine.train_many(recipes, out=tmp_path / "cut", report=report)
    again = ravine.resume(tmp_path / "cut")
    for one, other in zip(whole, again, strict=True):
        for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)
        assert [e["text"] for e in one.events if e["kind"] == "rollback"] == [
            e["text"] for e in other.events if e["kind"] == "rollback"
        ]
