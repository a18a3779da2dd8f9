"""Steps and epochs, with accumulated and with growing batches."""

from __future__ import annotations

import pytest
import torch

import ravine
from ravine import Recipe
from ravine.data.pipeline import Pipeline
from ravine.engine.loop.calendar import Calendar

X, Y = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), torch.arange(100) % 2
PARTS = {"validation": 0.0, "test": 0.0}


def calendar(accumulate=1, **data):
    recipe = Recipe(
        data={"source": "arrays", **PARTS, **data},
        optimizer={"kind": "sgd", "accumulate": accumulate},
        stop={"after": "4ep"},
    )
    return Calendar(recipe, Pipeline(recipe.data, arrays=(X, Y)))


CASES = {
    "plain": ({"batch": 30}, [30, 30, 30, 10]),
    "accumulated": ({"batch": 10, "accumulate": 4}, [40, 40, 20]),
    "dropped": ({"batch": 30, "last_batch": "drop"}, [30, 30, 30]),
    "full": ({"batch": "full"}, [100]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_epoch_sees_each_sample_once(case):
    said, sizes = CASES[case]
    days = calendar(**said)
    steps = [sum(len(batch.y) for batch in micro) for micro in days.batches(0, 2 * len(sizes))]
    assert steps == sizes * 2
    assert [days.is_end(step) for step in range(1, len(sizes) + 1)] == [False] * (
        len(sizes) - 1
    ) + [True]


def test_a_growing_batch_shortens_the_epochs():
    days = calendar(batch=10, grow={"milestones": ["25%", "2ep"], "factor": 2.0})
    assert [days.start(epoch) for epoch in range(6)] == [0, 10, 15, 18, 21, 24]
    assert [days.place(step) for step in (0, 9, 10, 15, 20, 21)] == [
        (0, 0),
        (0, 9),
        (1, 0),
        (2, 0),
        (3, 2),
        (4, 0),
    ]
    assert days.steps("3ep") == 18
    assert days.steps("1.5ep") == 13
    assert [days.end(step) for step in (0, 9, 10, 18)] == [10, 10, 15, 21]
    seen = [
        sorted(i for batch in micro for i in batch.index.tolist()) for micro in days.batches(15, 18)
    ]
    assert sorted(i for step in seen for i in step) == list(range(100))
    assert [len(s) for s in seen] == [40, 40, 20]


def test_a_growing_batch_trains_and_resumes(tmp_path):
    said = {
        "data": "blobs",
        "batch": 20,
        "grow": {"milestones": ["1ep"], "factor": 4.0},
        "quiet": True,
        "lr": 0.01,
    }
    whole = ravine.train(epochs=4, out=tmp_path / "whole", **said)
    assert list(whole.metrics["epoch"]) == [1, 2, 3, 4]
    steps = list(whole.metrics["step"])
    assert steps[0] > steps[1] - steps[0]
    assert whole.result["stopped"] == "finished"
    again = ravine.train(epochs=4, out=tmp_path / "again", **said)
    assert torch.equal(whole.slots["theta"], again.slots["theta"])


def test_growth_is_counted_in_epochs(tmp_path):
    with pytest.raises(ravine.InputError, match=r"stop\.after: got '50it'"):
        ravine.train(
            data="blobs", steps=50, grow={"milestones": ["1ep"]}, quiet=True, out=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
