"""What a loss of one's own is given: targets in the shape in which it compares each with its own output,
and outputs of any structure."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(60, 6, generator=DRAWS)
Z = X @ torch.tensor([1.0, 2.0, 0.0, 0.0, -1.0, 0.0])


def net(outputs):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))


def train(tmp_path, name="run", **given):
    given = {"data": (X, Z), "epochs": 2, "batch": 16, "quiet": True, "doctor": False} | given
    return ravine.train(**given, out=tmp_path / name)


def squeezed(output, target):
    return ((output.squeeze(1) - target) ** 2).mean()


def as_column(output, target):
    return ((output - target[:, None]) ** 2).mean()


def columns(output, target):
    return ((output - target) ** 2).mean()


def each(output, target):
    return (output.flatten() - target.flatten()) ** 2


@pytest.mark.parametrize("loss", [squeezed, as_column, columns, each])
def test_numbers_reach_a_loss_so_that_each_is_compared_with_its_own_output(loss, tmp_path):
    """Targets [N], outputs [N, 1]: however a function brings the two together, it is the squared error."""
    run = train(tmp_path, model=lambda: net(1), loss=loss)
    plain = train(tmp_path, "plain", model=lambda: net(1), loss=nn.MSELoss())
    np.testing.assert_allclose(run.losses, plain.losses, rtol=1e-5)


def quantiles(output, target):
    gap = target[:, None] - output
    share = torch.tensor([0.1, 0.5, 0.9])
    return torch.maximum(share * gap, (share - 1) * gap).sum(1)


def of_rows(output, target):
    return quantiles(output, target.reshape(-1))


def test_several_outputs_for_one_number_each(tmp_path):
    run = train(tmp_path, model=lambda: net(3), loss=quantiles)
    plain = train(tmp_path, "plain", model=lambda: net(3), loss=of_rows)
    np.testing.assert_allclose(run.losses, plain.losses, rtol=1e-5)


class Spread(nn.Module):
    def __init__(self, by_name):
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.spread, self.by_name = nn.Linear(6, 1), nn.Linear(6, 1), by_name

    def forward(self, x):
        mean, spread = self.mean(x).squeeze(1), self.spread(x).squeeze(1)
        return {"mean": mean, "spread": spread} if self.by_name else (mean, spread)


def gaussian(output, target):
    mean, spread = output.values() if isinstance(output, dict) else output
    return 0.5 * (spread + (target - mean) ** 2 * torch.exp(-spread))


def gaussian_of_columns(output, target):
    mean, spread = output
    return 0.5 * (
        spread[:, None] + (target.reshape(-1, 1) - mean[:, None]) ** 2 * (-spread[:, None]).exp()
    )


def test_mean_and_spread_as_two_outputs(tmp_path):
    """Outputs without a name that says which is the answer have no metrics but the loss."""
    columns = train(tmp_path, "c", model=lambda: Spread(False), loss=gaussian_of_columns)
    for by_name in (False, True):
        run = train(tmp_path, str(by_name), model=functools.partial(Spread, by_name), loss=gaussian)
        np.testing.assert_allclose(run.losses, columns.losses, rtol=1e-5)
    assert "val_rmse" not in run.metrics


def own_error(output, target):
    return (output.squeeze(1) - target).abs().mean()


def own_r2(output, target):
    return 1 - ((output[:, 0] - target) ** 2).mean() / target.var(correction=0)


def test_own_metrics_compare_each_output_with_its_own_target(tmp_path):
    metrics = [own_error, own_r2, "mae", "r2"]
    run = train(tmp_path, model=lambda: net(1), loss="squared", metrics=metrics, epochs=3)
    for own, known in (("own_error", "mae"), ("own_r2", "r2")):
        np.testing.assert_allclose(
            run.metrics[f"val_{own}"], run.metrics[f"val_{known}"], rtol=1e-4
        )


# --- targets of several kinds ---------------------------------------------------------------------


class Heads(nn.Module):
    """A class and a number from one body."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.kind, self.size = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, x):
        hidden = torch.relu(self.body(x))
        return {"kind": self.kind(hidden), "size": self.size(hidden).squeeze(1)}


KIND = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
BOTH = {"kind": KIND, "size": Z}


def both(output, target):
    assert target["kind"].dtype == torch.int64
    kinds = F.cross_entropy(output["kind"], target["kind"])
    return kinds + F.mse_loss(output["size"], target["size"])


def in_order(output, target):
    return both(output, dict(zip(("kind", "size"), target, strict=True)))


def of_columns(output, target):
    return in_order(output, (target[:, 0].long(), target[:, 1]))


def of_step(model, batch):
    x, target = batch
    return {
        "loss": both(model(x), target),
        "right": (model(x)["kind"].argmax(1) == target["kind"]).float().mean(),
    }


class Named(torch.utils.data.Dataset):
    def __init__(self, ordered=False):
        self.ordered = ordered

    def __len__(self):
        return len(X)

    def __getitem__(self, place):
        found = {"kind": KIND[place], "size": Z[place]}
        return X[place], tuple(found.values()) if self.ordered else found


def loaded(ordered):
    loader = torch.utils.data.DataLoader
    return loader(Named(ordered), batch_size=16, shuffle=True)


MIXED = {
    "arrays by name": {"data": (X, BOTH), "loss": both},
    "arrays in order": {"data": (X, tuple(BOTH.values())), "loss": in_order},
    "a Dataset by name": {"data": Named(), "loss": both},
    "a Dataset in order": {"data": Named(True), "loss": in_order},
    "a loader by name": {"data": loaded(False), "loss": both},
    "a loader in order": {"data": loaded(True), "loss": in_order},
    "a step": {"data": (X, BOTH), "step": of_step},
}


@pytest.mark.parametrize("form", MIXED)
def test_a_class_and_a_number_as_one_target(form, tmp_path):
    columns = torch.stack([KIND.float(), Z], 1)
    plain = train(tmp_path, "plain", model=Heads, data=(X, columns), loss=of_columns)
    run = train(tmp_path, model=Heads, **MIXED[form])
    np.testing.assert_allclose(run.losses, plain.losses, rtol=1e-5)
    assert "val_rmse" not in run.metrics
    if form == "a step":
        assert "val_right" in run.metrics


def test_a_run_with_targets_of_several_kinds_goes_on_and_is_evaluated(tmp_path):
    given = {"model": Heads, "data": (X, BOTH), "loss": both}
    whole = train(tmp_path, "whole", **given, epochs=4)
    train(tmp_path, "part", **given, epochs=2)
    (again,) = ravine.resume(
        tmp_path / "part", after="4ep", model=Heads, data=(X, BOTH), own=[both], quiet=True
    )
    assert np.array_equal(again.losses, whole.losses)
    loss = whole.evaluate(data=(X, BOTH))["loss"]
    assert loss == pytest.approx(float(both(whole.model(X), BOTH).detach()), rel=1e-5)
    found = ravine.diagnose(Heads(), (X, BOTH), both, torch.optim.Adam, lr=0.01)
    assert found.verdict == "healthy", found


def right(output, target):
    return float((output["kind"].argmax(1) == target["kind"]).float().mean())


def off(output, target):
    kind, size = target.values() if isinstance(target, dict) else target
    assert len(kind) == len(output["size"])
    return float((output["size"].reshape(-1) - size.reshape(-1)).square().mean())


off.better = "min"


@pytest.mark.parametrize("form", [name for name in MIXED if "by name" in name or name == "a step"])
def test_metrics_of_targets_of_several_kinds_are_given_what_the_loss_is(form, tmp_path):
    given = MIXED[form] | {"metrics": [right, off], "monitor": "val_off", "best": True}
    run = train(tmp_path, model=Heads, **given)
    found = run.evaluate(data=(X, BOTH))
    with torch.no_grad():
        output = run.model(X)
    assert found["right"] == pytest.approx(right(output, BOTH))
    assert found["off"] == pytest.approx(off(output, BOTH), rel=1e-5)
    assert run.result["val_off"] == pytest.approx(run.metrics["val_off"].min())
    recipes = [run.recipe, run.recipe.edit({"seed": 8})]
    both_runs = ravine.train_many(
        recipes, model=Heads, data=given["data"], quiet=True, out=tmp_path / "many"
    )
    assert both_runs[0].result["val_off"] == pytest.approx(run.result["val_off"], rel=1e-5)


def test_metrics_of_targets_in_order_and_those_by_name(tmp_path):
    run = train(tmp_path, model=Heads, **MIXED["a loader in order"], metrics=[off])
    assert run.result["val_off"] > 0
    with pytest.raises(ravine.InputError, match=r"metrics=\[f\]: f\(output, target\) is given"):
        train(tmp_path, "named", model=Heads, data=(X, BOTH), loss=both, metrics=["rmse"])

    def uncallable(model, batch):
        return model.body(batch.x).square().mean()

    class Parts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Linear(X.shape[1], 1)

    with pytest.raises(ravine.InputError, match=r"return the number from the step"):
        train(tmp_path, "parts", model=Parts, data=(X, BOTH), step=uncallable, metrics=[off])


# --- refusals -------------------------------------------------------------------------------------

CLASSES = (X[:, 0] > 0).long()
REFUSED = {
    "a loss that is no tensor": (
        {"loss": lambda output, target: float(output.mean())},
        r"got 'float'; .*return the loss alone",
    ),
    "a loss and a number": (
        {"loss": lambda output, target: (output.mean(), 1)},
        r"got 'tuple'; .*returned by a step",
    ),
    "a loss of each pair": (
        {"loss": lambda output, target: (output[None] - output[:, None]).square()[:2]},
        r"reduce it over all axes but the first",
    ),
    "a rate that is text": (
        {"schedule": lambda epoch, lr: "low"},
        r"got 'low'; expected a number >= 0; return the rate",
    ),
    "an augmentation without a result": (
        {"augment": lambda x: None},
        r"gives NoneType'.*return x",
    ),
    "an augmentation of pairs without a result": (
        {"augment": lambda x, y: None},
        r"gives NoneType'; expected inputs and targets; return x, y",
    ),
    "preprocessing without a result": (
        {"preprocess": lambda x: None},
        r"gives NoneType'.*return x",
    ),
    "targets of several kinds alone": (
        {"data": (X, {"kind": CLASSES, "size": Z})},
        r"expected a loss of your own for them; loss=lambda output, target",
    ),
    "callbacks": ({"callbacks": [print]}, r"on_epoch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_to_do_instead(name, tmp_path):
    given, text = REFUSED[name]
    with pytest.raises(ravine.InputError, match=text):
        train(tmp_path, **{"model": lambda: net(2), "data": (X, CLASSES)} | given)
    assert not (tmp_path / "run").exists()


def test_a_module_without_parameters_is_no_training():
    with pytest.raises(ravine.InputError, match="ReLU without parameters"):
        ravine.diagnose(nn.ReLU(), (X, CLASSES), nn.CrossEntropyLoss(), torch.optim.SGD)


# --- what own functions see -----------------------------------------------------------------------


class Normal(NamedTuple):
    mean: torch.Tensor
    scale: torch.Tensor


class Guess(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 2)

    def forward(self, x):
        mean, scale = self.layer(x).unbind(1)
        return Normal(mean, F.softplus(scale) + 0.1)


def likelihood(output, target):
    return -torch.distributions.Normal(output.mean, output.scale).log_prob(target)


def covered(output, target):
    return ((target - output.mean).abs() < 2 * output.scale).float().mean()


def distance(output, target):
    return float((output.reshape(-1) - target.reshape(-1)).abs().mean())


def test_own_metrics_take_all_outputs_or_the_answer(tmp_path):
    """As the loss does, over all batches of a part."""
    run = train(tmp_path, model=Guess, loss=likelihood, metrics=[covered, distance, "mae"])
    output = run.model(X)
    found = run.evaluate(data=(X, Z))
    assert found["covered"] == pytest.approx(float(covered(output, Z)))
    assert found["distance"] == pytest.approx(found["mae"], rel=1e-5)
    many = torch.cat([X] * 30), torch.cat([Z] * 30)  # several batches
    assert run.evaluate(data=many)["covered"] == pytest.approx(found["covered"], rel=1e-6)


def test_inputs_alone_have_no_metrics_of_answers(tmp_path):
    def alone(model, batch):
        return model(batch.x).square().mean()

    run = train(tmp_path, model=lambda: net(1), data=X, step=alone)
    assert not {"val_rmse", "val_r2"} & set(run.metrics)


def test_a_study_of_targets_of_several_kinds_is_judged_by_the_loss(tmp_path):
    run = train(tmp_path, model=Heads, data=(X, BOTH), loss=both, metrics=[right])
    given = {"model": Heads, "data": (X, BOTH), "quiet": True, "out": tmp_path / "study"}
    found = ravine.compare(run.recipe, ["optimizer.lr=0.01,0.1"], seeds=2, tune=None, **given)
    assert found["metric"] == "val_right"


def test_fields_of_a_step_are_keywords(tmp_path):
    def scaled(model, batch, factor=1.0):
        x, y = batch
        return factor * F.mse_loss(model(x)[:, 0], y)

    run = train(tmp_path, model=lambda: net(1), step=scaled, factor=3.0)
    assert run.recipe.step.factor == 3.0


def test_a_scheduler_of_any_argument_and_one_that_moves_the_momentum(tmp_path):
    rates = torch.optim.lr_scheduler
    given = {"model": lambda: net(1), "optimizer": "sgd", "epochs": None, "steps": 12}
    given["lr"] = 0.1
    run = train(tmp_path, **given, schedule=lambda o: rates.StepLR(o, 4, 0.1))
    assert run.recipe.schedule.values[:5] == pytest.approx((1, 1, 1, 1, 0.1))
    with pytest.warns(UserWarning, match=r"cycle_momentum=False"):
        train(tmp_path, "b", **given, schedule=lambda o: rates.OneCycleLR(o, 0.1, total_steps=12))

    def short(optimizer):
        return rates.OneCycleLR(optimizer, 0.1, total_steps=6, cycle_momentum=False)

    with pytest.raises(ravine.InputError, match="give it the length of the run"):
        train(tmp_path, "c", **given, schedule=short)


@ravine.technique("augment")
def fails_of_mine(batch, draw):
    return batch.nowhere


@ravine.technique("augment")
def gives_nothing_of_mine(batch, draw):
    batch.with_x(batch.x)


@ravine.technique("augment")
def draws_of_mine(batch, draw):
    return batch.with_x(batch.x + 0.1 * torch.randn(batch.x.shape))


def test_what_an_own_augmentation_raises_is_one_message_and_its_draws_are_those_of_the_step(
    tmp_path,
):
    given = {"model": lambda: net(1)}
    for name, text in (
        ("own:fails_of_mine", r"fails on a batch of \[\d+, 6\] and \[\d+, 1\] \(AttributeError"),
        ("own:gives_nothing_of_mine", r"gives NoneType.*return batch\.with_x\(x\)"),
    ):
        with pytest.raises(ravine.InputError, match=text):
            train(tmp_path, **given, augment=[name])
    with pytest.raises(ravine.InputError, match=r"data\.augment: .*fails on a batch of"):
        train(tmp_path, **given, augment=lambda x: x.nowhere)
    with pytest.raises(ravine.InputError, match=r"data\.preprocess: .*fails on a batch of"):
        train(tmp_path, **given, preprocess=lambda x: x @ torch.zeros(2, 2))
    runs = [train(tmp_path, name, **given, augment=["own:draws_of_mine"]) for name in "ab"]
    assert np.array_equal(runs[0].losses, runs[1].losses)
