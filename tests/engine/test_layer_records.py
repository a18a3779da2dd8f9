"""What is recorded of layers over training: at which steps, that it is right, and that it changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import ravine
from ravine.engine.loop import layer_records
from ravine.engine.loop.layer_records import MOST, LayerRecords, places
from ravine.rundir import RunDir

X = np.random.default_rng(0).normal(size=(300, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")


def records(path, member=0):
    with RunDir.open(path) as run:
        return [e for e in run.events("layers") if e["member"] == member]


class Own(nn.Module):
    """Draws from the global generator, counts its calls, and uses activations that are no modules."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 16), nn.Linear(16, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        noise = 0.01 * torch.randn(x.shape) * (self.calls % 3)
        return self.head(torch.relu(self.first(x + noise)))


def train(path, **how):
    how = {"model": Own(), "data": (X, Y), "epochs": 6, "batch": 50, **how}
    torch.manual_seed(0)
    return ravine.train(out=path, quiet=True, doctor=False, threads=1, lr=0.05, **how)


def test_full_batches_are_counted_as_samples(tmp_path):
    train(tmp_path / "run", epochs=2, batch="full")
    assert records(tmp_path / "run")


def test_what_is_recorded_is_what_the_step_did(tmp_path):
    """The last step of a run of plain gradient descent, computed here from the weights before it."""
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    run = train(tmp_path / "run", model=module, optimizer="sgd", precision="float64", momentum=0.0)
    (*_, last) = records(tmp_path / "run")
    assert last["step"] == run.result["steps"]
    assert last["data"]["epoch"] == 6
    for name, one in zip(("0", "2"), last["data"]["layers"], strict=True):
        weight = dict(run.model.named_parameters())[f"{name}.weight"].detach()
        assert one["name"] == name
        assert sum(one["weights"]["counts"]) == weight.numel()
        assert one["weights"]["low"] == pytest.approx(float(weight.min()), rel=1e-3)
        assert one["gradient_norm"] > 0
        # the step was lr times the gradient
        moved = 0.05 * one["gradient_norm"]
        before = weight.norm()
        assert one["update_ratio"] == pytest.approx(float(moved / before), rel=0.05)
    hidden = last["data"]["layers"][0]["activations"]  # after tanh, of 64 samples
    assert sum(hidden["counts"]) == 64 * 8
    assert -1 < hidden["low"] < hidden["high"] < 1


def test_no_number_changes(tmp_path, monkeypatch):
    """A module that draws and counts in its forward pass trains to the same bits without records."""
    with_them = train(tmp_path / "with")
    monkeypatch.setattr(LayerRecords, "ends", lambda *given: [])
    monkeypatch.setattr(LayerRecords, "before", lambda *given: None)
    without = train(tmp_path / "without")
    assert records(tmp_path / "with")
    assert not records(tmp_path / "without")
    np.testing.assert_array_equal(with_them.losses, without.losses)
    for name, tensor in with_them.model.state_dict().items():
        assert torch.equal(tensor, without.model.state_dict()[name]), name


def test_of_many_members_the_first_is_looked_at(tmp_path):
    recipe = ravine.Recipe(
        model="softmax", data={"source": "blobs"}, stop={"after": "3ep"}, threads=1
    )
    few = [recipe.edit({"seed": seed}) for seed in range(3)]
    ravine.train_many(few, out=tmp_path / "few", quiet=True)
    many = [recipe.edit({"seed": seed}) for seed in range(9)]
    ravine.train_many(many, out=tmp_path / "many", quiet=True)
    assert all(records(tmp_path / "few", member) for member in range(3))
    assert records(tmp_path / "many", 0)
    assert not any(records(tmp_path / "many", member) for member in range(1, 9))


@pytest.mark.parametrize("ended", [[0, 1], [7, 8]])
def test_members_that_have_ended_change_nothing_in_a_resumed_run(ended, tmp_path):
    """Four of nine go on: among so few alone each would be looked at."""
    recipe = ravine.Recipe(
        model="softmax", data={"source": "blobs"}, stop={"after": "4ep"}, threads=1
    )
    early = {*ended, 2, 3, 4}
    members = [
        recipe.edit({"seed": n, "stop.after": "1ep" if n in early else "4ep"}) for n in range(9)
    ]
    ravine.train_many(members, out=tmp_path / "whole", quiet=True)

    def stop(progress):
        if progress.live < 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ravine.train_many(members, out=tmp_path / "cut", quiet=True, report=stop)
    ravine.resume(tmp_path / "cut", quiet=True)
    with RunDir.open(tmp_path / "whole") as a, RunDir.open(tmp_path / "cut") as b:
        for kind in ("layers", "samples"):
            assert a.events(kind) == b.events(kind)


@pytest.mark.parametrize("total", [1, 2, 7, 400, 10_000, 10**7])
@pytest.mark.parametrize("epoch", [1, 23, 10**6])
def test_places_are_few_and_end_with_the_run(total, epoch):
    found = places(total, epoch, 500)
    assert found[0] == 1
    assert found[-1] == total
    assert len(found) <= MOST + 1
    assert list(found) == sorted(set(found))
    if total > 100 * epoch:
        assert all(place % epoch == 0 for place in found[1:-1])


def test_of_deep_networks_some_layers_are_taken(tmp_path):
    deep = nn.Sequential(nn.Linear(6, 4), *(nn.Linear(4, 4) for _ in range(40)), nn.Linear(4, 2))
    train(tmp_path / "run", model=deep, epochs=1)
    layers = records(tmp_path / "run")[-1]["data"]["layers"]
    assert len(layers) == layer_records.DEPTHS
    assert (layers[0]["name"], layers[-1]["name"]) == ("0", "41")
    assert all("activations" in one for one in layers)
    assert all(math.isfinite(one["gradient_norm"]) for one in layers)
