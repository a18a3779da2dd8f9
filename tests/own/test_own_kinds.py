"""A technique of a person's own of every kind, by the contract of the package's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine
from ravine.catalogue import FILES, Count, NonNegative, Positive, find, known
from ravine.data.preprocessing.transform import Affine, Transform
from ravine.recipe import Recipe, json_schema


@ravine.technique("source")
def own_source(root, *, count: Count = 200):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


@ravine.technique("preprocess")
def own_shift(x, *, by: NonNegative = 1.0) -> Transform:
    return Affine(shift=torch.tensor(by), scale=torch.tensor(2.0))


@ravine.technique("augment")
def own_noise(batch, draw, *, size: NonNegative = 0.1):
    x = batch.floats()
    return batch.with_x(x + size * draw.normal(*x.shape))


@ravine.technique("layer")
def own_layer(shape, *, units: Count = 8):
    return nn.Linear(shape[-1], units)


@ravine.technique("initializer")
def own_initializer(w, fans, generator, *, size: Positive = 0.1):
    w.uniform_(-size, size, generator=generator)


@ravine.technique("loss")
def own_factory(*, smoothing: NonNegative = 0.1):
    return nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")


@ravine.technique("metric", better="min")
def own_misses(output, target):
    return float((output.argmax(1) != target).float().mean())


@ravine.technique("model")
def own_model(shape, outputs, *, hidden: Count = 16):
    return nn.Sequential(nn.Linear(shape[0], hidden), nn.Tanh(), nn.Linear(hidden, outputs))


@ravine.technique("optimizer")
def own_signs(w, g, state, t, layout, *, lr: Positive = 0.01):
    w.sub_(lr * g.sign())


@ravine.technique("schedule")
def own_halves(t, total, epoch, *, every: Count = 1):
    return 0.5 ** (t // (every * epoch))


@ravine.technique("constraint")
def own_box(w, layout, *, size: Positive = 0.3):
    w.clamp_(-size, size)


@ravine.technique("step")
def own_step(model, batch):
    return nn.functional.cross_entropy(model(batch.x), batch.y)


EDITS = {
    "source": {"data.source": "own:own_source:150"},
    "preprocess": {"data.preprocess": ["own:own_shift"]},
    "augment": {"data.augment": ["own:own_noise"]},
    "layer": {"model": {"layers": ["own:own_layer", "relu", {"kind": "dense", "units": 3}]}},
    "initializer": {"model.init": "own:own_initializer"},
    "loss": {"loss": "own:own_factory"},
    "metric": {"metrics": ["own:own_misses"]},
    "model": {"model": "own:own_model"},
    "optimizer": {"optimizer": "own:own_signs"},
    "schedule": {"schedule": "own:own_halves"},
    "constraint": {"constraint": "own:own_box"},
    "step": {"step": "own:own_step"},
}
NAMES = {kind: next(n for n in known(kind) if n.startswith("own:own_")) for kind in FILES}


@pytest.mark.parametrize("kind", FILES)
def test_an_own_technique_of_this_kind_trains_and_comes_back(kind, tmp_path):
    recipe = Recipe(data={"source": "blobs"}, model="mlp", stop={"after": "2ep"}).edit(EDITS[kind])
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    run = ravine.train(recipe, quiet=True, out=tmp_path / "run", doctor=False)
    assert np.isfinite(run.result["test_loss"])
    again = ravine.Run(run.directory)
    assert again.evaluate()["accuracy"] == run.result["test_accuracy"]
    assert len(run.predict(torch.zeros(2, *run.pipeline.raw_shape))) == 2
    assert NAMES[kind] in known(kind)
    assert f"{kind}.{NAMES[kind]}" in json_schema()["$defs"]


def test_what_they_do_is_done(tmp_path):
    def trained(**edits):
        recipe = Recipe(data={"source": "blobs"}, model="mlp", stop={"after": "2ep"}).edit(edits)
        return ravine.train(
            recipe, quiet=True, doctor=False, out=tmp_path / str(len(edits)) / next(iter(edits))
        )

    assert (
        trained(constraint={"kind": "own:own_box", "size": 0.05}).theta.abs().max() <= 0.05 + 1e-7
    )
    assert trained(schedule="own:own_halves").metrics["lr"].tolist() == [1e-3, 5e-4]
    run = trained(**{"data.source": "own:own_source:150"})
    assert run.pipeline.raw_shape == (3,)
    shifted = trained(**{"data.preprocess": [{"kind": "own:own_shift", "by": 3.0}]})
    assert torch.allclose(shifted.pipeline.transform(torch.zeros(1, 2)), torch.tensor(-6.0))


def test_two_metrics_of_one_name_are_refused(tmp_path):
    given = [lambda output, target: 0.0, lambda output, target: 1.0]
    with pytest.raises(ravine.InputError, match=r"metrics: got 'lambda twice'; .*def"):
        ravine.train(data="blobs", metrics=given, quiet=True, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "function", "text"),
    [
        ("loss", lambda *, l1=0.0: None, "other names than those that every loss has"),
        ("metric", find("metric", "f1").function(), "expected a new name"),
        ("schedule", lambda t: 1.0, "tabulates lambda epoch"),
        ("lsos", lambda: None, "did you mean 'loss'"),
    ],
    ids=["field", "name", "signature", "kind"],
)
def test_a_registration_that_cannot_be_is_refused(kind, function, text):
    with pytest.raises(ravine.InputError, match=text):
        ravine.technique(kind)(function)


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        ((), nn.BCEWithLogitsLoss()),
        ((nn.Sigmoid(),), nn.BCELoss()),
        ((), F.binary_cross_entropy_with_logits),
        ((), "binary_cross_entropy"),
    ],
)
def test_zeros_and_ones_of_a_binary_cross_entropy_are_two_classes(head, loss, tmp_path):
    x = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).float()
    plan = {"loss": loss, "lr": 0.05, "epochs": 20, "batch": 20, "quiet": True, "doctor": False}
    run = ravine.train(
        model=nn.Sequential(nn.Linear(3, 1), *head), data=(x, y), out=tmp_path / "run", **plan
    )
    found = run.predict(x)
    assert found.tolist() == (run.model(x)[:, 0] > (0.5 if head else 0)).long().tolist()
    assert run.evaluate(data=(x, y))["accuracy"] == (found == y.numpy()).mean() > 0.9


def test_masks_under_a_binary_cross_entropy_are_answered_by_probabilities(tmp_path):
    x = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plan = {"loss": nn.BCEWithLogitsLoss(), "epochs": 2, "quiet": True, "doctor": False}
    run = ravine.train(
        model=nn.Conv2d(1, 1, 1), data=(x, (x > 0).float()), out=tmp_path / "run", **plan
    )
    with torch.no_grad():
        assert np.allclose(run.predict(x), run.model(x).sigmoid(), atol=1e-6)
