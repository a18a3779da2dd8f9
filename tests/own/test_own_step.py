"""Steps of a person's own: what they compute, what they record, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine
from ravine.catalogue import NonNegative
from ravine.recipe import Recipe

BLOBS = {"data": "blobs", "model": "mlp", "epochs": 3, "quiet": True}


def plain(model, batch):
    return F.cross_entropy(model(batch.x), batch.y)


@ravine.technique("step")
def smoothed(model, batch, *, smoothing: NonNegative = 0.1):
    """Cross-entropy with smooth labels, and how sure the network is."""
    x, y = batch
    output = model(x)
    sure = output.softmax(1).max(1).values.mean()
    losses = F.cross_entropy(output, y, label_smoothing=smoothing, reduction="none")
    return {"loss": losses, "sure": sure}


def test_a_step_that_does_what_the_loop_does_gives_what_it_gives(tmp_path):
    own = ravine.train(step=plain, out=tmp_path / "own", **BLOBS)
    named = ravine.train(out=tmp_path / "named", doctor=False, **BLOBS)
    assert np.allclose(own.losses, named.losses, rtol=1e-5)
    assert own.result["test_accuracy"] == named.result["test_accuracy"]
    assert own.result["test_loss"] == pytest.approx(named.result["test_loss"], rel=1e-5)
    assert own.evaluate() == pytest.approx(
        {n.removeprefix("test_"): v for n, v in own.result.items() if n.startswith("test_")}
    )
    assert "by a step of one's own" in own.events_of("execution")[0]["text"]
    assert own.events_of("doctor") == []  # it was examined


def test_what_a_step_records_is_measured_and_may_be_monitored(tmp_path):
    recipe = Recipe(data={"source": "blobs"}, step="own:smoothed", stop={"after": "4ep"})
    recipes = [recipe.edit({"seed": seed, "stop.monitor": "val_sure"}) for seed in range(3)]
    runs = ravine.train_many(recipes, out=tmp_path / "run", quiet=True, width=2)
    for run in runs:
        assert {"train_sure", "val_sure", "val_loss", "val_accuracy"} <= set(run.metrics.columns)
        assert run.metrics["train_sure"].between(0, 1).all()
    assert recipe.edit({"step.smoothing": 0.2}).program != recipe.program


def test_derivatives_are_taken_in_evaluation_too(tmp_path):
    def flat(model, batch):
        x = batch.x.clone().requires_grad_()
        slope = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
        return {"loss": F.cross_entropy(model(x), batch.y), "slope": slope.square().mean()}

    run = ravine.train(step=flat, out=tmp_path / "run", **BLOBS)
    assert run.result["test_slope"] > 0


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(2, 1), nn.Linear(2, 1)


def turns(model, batch):
    yield "left", model.left(batch.x).square().mean()
    # the left part has stepped already
    yield "right", (model.right(batch.x) - model.left(batch.x).detach()).square().mean()


def test_parts_step_one_after_the_other_each_by_its_own_optimizer(tmp_path):
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    given = {"data": (x, torch.zeros(64)), "test": 0.0, "validation": 0.0, "batch": "full"}
    torch.manual_seed(0)
    model, by_hand = Two(), Two()
    by_hand.load_state_dict(model.state_dict())

    def optimizers(model, lr=0.1):
        return {"left": torch.optim.SGD(model.left.parameters(), lr),
                "right": torch.optim.Adam(model.right.parameters(), lr / 10)}  # fmt: skip

    run = ravine.train(model=model, step=turns, optimizer=optimizers, epochs=3, quiet=True,
                       order="fixed", out=tmp_path / "run", **given)  # fmt: skip
    own = optimizers(by_hand)
    for _ in range(3):
        for name, loss in turns(by_hand, ravine.engine.rows.own_step.StepBatch(_Batch(x))):
            own[name].zero_grad()
            loss.backward()
            own[name].step()
    for name, tensor in run.model.state_dict().items():
        assert torch.allclose(tensor, by_hand.state_dict()[name], rtol=1e-6), name
    assert {"train_left_loss", "train_right_loss"} <= set(run.metrics.columns)


class _Batch:
    def __init__(self, x):
        self.x, self.y, self.index = x, torch.zeros(len(x)), torch.arange(len(x))


def nobody(model, batch):
    yield "nobody", batch.x.sum()


def many_losses(model, batch):
    yield "left", model.left(batch.x)


def no_loss(model, batch):
    yield "left"


REFUSALS = [
    ({"step": lambda model, batch: 3.0}, "expected the loss .*return loss, or {'loss': loss"),
    ({"step": lambda model, batch: {"kl": model(batch.x)}}, "a dictionary with kl"),
    ({"step": lambda model, batch: model(batch.x)}, r"a loss of shape \(4, 3\) for 4 samples"),
    ({"step": lambda model, batch: {"loss": model(batch.x).sum(), "a": batch.x}}, "numbers beside"),
    ({"step": lambda model, batch: model(batch.z)}, "batch.x and batch.y are the samples"),
    ({"step": lambda batch: 3.0}, r"a function of \(model, batch\)"),
    ({"step": plain, "loss": F.mse_loss}, "mse_loss beside step=.*expected one of the two"),
    ({"step": plain, "hard_negatives": 0.5}, "do it in the step itself"),
    ({"step": plain, "class_weights": "balanced"}, "do it in the step itself"),
    ({"step": turns, "model": Two}, "optimizer=torch.optim.Adam"),
    *(
        ({"step": step, "model": Two, "optimizer": torch.optim.Adam}, "a name of left, right")
        for step in (nobody, many_losses, no_loss)
    ),
    (
        {"step": turns, "model": Two, "optimizer": torch.optim.Adam, "norm": 1.0},
        "clip_grad_norm_",
    ),
    ({"step": lambda m, b: m.left(b.x).sum(), "model": Two, "metrics": "f1"}, "from the step"),
]


@pytest.mark.parametrize(("given", "text"), REFUSALS, ids=[str(i) for i in range(len(REFUSALS))])
def test_a_refusal_says_what_to_do_instead(given, text, tmp_path):
    with pytest.raises(ravine.InputError, match=text):
        ravine.train(out=tmp_path / "run", **{**BLOBS, **given})
    assert not (tmp_path / "run").exists()
