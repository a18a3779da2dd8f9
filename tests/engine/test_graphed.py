"""Steps as CUDA graphs, as far as a CPU shows: static buffers, the check before use, and the way
back."""

from __future__ import annotations

import pytest
import torch

import ravine
from ravine.engine.loop import loop as loops
from ravine.engine.rows.graphed import GraphedSteps
from ravine.recipe import Recipe


def network(activation):
    layers = [
        {"kind": "dense", "units": 12},
        activation,
        {"kind": "dropout", "rate": 0.3},
        {"kind": "dense", "units": 10},
    ]
    return {"layers": ["flatten", *layers]}


RECIPE = Recipe(
    model=network("relu"),
    data={"source": "digits", "batch": 100},
    optimizer={"kind": "adam", "lr": 1e-2},
    schedule={"kind": "cosine", "warmup": "10%"},
    stop={"after": "3ep"},
    average={"ema": 0.9},
)


def trained(tmp_path, monkeypatch, capture=None, recipe=RECIPE):
    """Weights and events of two members; with ``capture``, through graphs of that kind."""
    if capture is not None:
        before = loops.TrainingLoop.__init__

        def init(self, *args, **kwargs):
            before(self, *args, **kwargs)
            self.graphed = GraphedSteps(self.stepper, capture)

        monkeypatch.setattr(loops.TrainingLoop, "__init__", init)
    runs = ravine.train_many(
        [recipe, recipe.edit({"seed": 1})], out=tmp_path / "run", quiet=True, doctor=False
    )
    monkeypatch.undo()
    told = [event["text"] for run in runs for event in run.events if "CUDA graphs" in event["text"]]
    return torch.stack([run.slots["theta"] for run in runs]), told


CHANGES = {
    "written out": {},
    "mapped": {"model": network("gelu")},
    "momentum": {"schedule": {"kind": "one_cycle"}, "optimizer": {"kind": "momentum", "lr": 0.1}},
    "thawing": {"start.freeze": ["1.*"], "start.unfreeze": "10it"},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_replayed_steps_are_the_steps(changes, tmp_path, monkeypatch):
    """A replay reads its inputs from buffers that are filled anew; nothing else of a step may
    depend on Python."""
    recipe = RECIPE.edit(changes)
    calls = []

    def capture(step):
        calls.append(step)
        return step

    plain, _ = trained(tmp_path / "a", monkeypatch, recipe=recipe)
    graphed, told = trained(tmp_path / "b", monkeypatch, capture, recipe)
    assert not told
    assert torch.equal(plain, graphed)
    assert len(calls) == (
        3 if "start.freeze" in changes else 2
    )  # whole batches and the epoch's last; whole ones frozen


def test_a_replay_that_gives_other_numbers_is_not_used(tmp_path, monkeypatch):
    plain, _ = trained(tmp_path / "a", monkeypatch)
    found, told = trained(
        tmp_path / "b", monkeypatch, lambda step: lambda: (torch.zeros(2), torch.zeros(2))
    )
    assert any("other numbers" in text for text in told)
    assert torch.equal(plain, found)


def test_what_cannot_be_captured_goes_on_without(tmp_path, monkeypatch):
    def refuse(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    plain, _ = trained(tmp_path / "a", monkeypatch)
    found, told = trained(tmp_path / "b", monkeypatch, refuse)
    assert any("not permitted" in text for text in told)
    assert torch.equal(plain, found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(tmp_path):
    run = ravine.train(RECIPE.edit({"device": "cuda"}), out=tmp_path / "run", quiet=True)
    assert "steps as CUDA graphs" in run.events[0]["text"]
    assert not any("without CUDA graphs" in event["text"] for event in run.events)
    assert run.result["val_accuracy"] > 0.5
