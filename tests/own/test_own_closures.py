"""Optimisers whose step takes the loss and its gradient at several points, as that of LBFGS: against plain
loops of PyTorch in float64, to the bit after an interruption."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine
from ravine.data.order import Order
from ravine.engine.rows.torch_rows import _exactly

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(48, 4, generator=DRAWS, dtype=torch.float64)
Y = (X[:, :2].sum(1) > 0).long()
GIVEN = {"data": (X, Y, X[:8], Y[:8]), "precision": "float64", "order": "fixed", "quiet": True}
GIVEN |= {"doctor": False, "batch": 24, "epochs": 3, "seed": 5}


class Net(nn.Module):
    def __init__(self, drop=0.0, norm=False):
        super().__init__()
        middle = [nn.BatchNorm1d(6)] if norm else []
        self.layers = nn.Sequential(
            nn.Linear(4, 6), *middle, nn.Tanh(), nn.Dropout(drop), nn.Linear(6, 2)
        )

    def forward(self, x):
        return self.layers(x)


class Sharp(torch.optim.Optimizer):
    """Sharpness-aware minimisation (Foret et al., 2021), as it is often written."""

    def __init__(self, params, base=torch.optim.SGD, rho=0.05, **numbers):
        super().__init__(params, {"rho": rho, **numbers})
        self.base = base(self.param_groups, **numbers)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "needs a closure"
        closure = torch.enable_grad()(closure)
        every = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in every]).norm()
        for p in every:
            self.state[p]["old"] = p.data.clone()
            p.add_(p.grad * (self.param_groups[0]["rho"] / (norm + 1e-12)))
        self.zero_grad()
        closure()
        for p in every:
            p.data = self.state[p]["old"]  # another tensor in its place
        self.base.step()


class Slow(torch.optim.Optimizer):
    """Lookahead (Zhang et al., 2019), which keeps its count as an attribute."""

    def __init__(self, params, lr=0.01):
        self.base, self.count = torch.optim.Adam(params, lr=lr), 0
        super().__init__(self.base.param_groups, {"lr": lr})
        self.base.param_groups = self.param_groups

    @torch.no_grad()
    def step(self):
        every = [p for group in self.param_groups for p in group["params"]]
        for p in every:
            self.state[p].setdefault("slow", p.clone())
        self.base.step()
        self.count += 1
        for p in every if self.count % 3 == 0 else ():
            self.state[p]["slow"].lerp_(p, 0.5)
            p.copy_(self.state[p]["slow"])


class Replacing(torch.optim.Optimizer):
    """Puts new tensors in place of the old ones, as older code does."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data - group["lr"] * p.grad


def strong(parameters, lr=0.5):
    return torch.optim.LBFGS(parameters, lr=lr, max_iter=5, line_search_fn="strong_wolfe")


OPTIMIZERS = {
    "LBFGS": functools.partial(torch.optim.LBFGS, lr=0.3, max_iter=4),
    "strong Wolfe": strong,
    "SAM": functools.partial(Sharp, lr=0.1),
    "SAM of Adam": functools.partial(Sharp, base=torch.optim.Adam, lr=0.01),
    "replacing": Replacing,
    "Lookahead": Slow,
}


def made(norm=False):
    torch.manual_seed(1)
    return Net(norm=norm).double()


def by_hand(make, model, epochs=3, penalty=0.0):
    """The loop that a person writes; the loss at the beginning of each step."""
    optimizer, losses = make(model.parameters()), []
    order = Order(48, 24, "fixed", "keep", 0)
    for step in range(2 * epochs):
        x, y = X[order.rows(step)], Y[order.rows(step)]

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            if penalty:
                weights = [p for p in model.parameters() if p.dim() > 1]
                loss = loss + penalty * sum(p.square().sum() for p in weights)
            loss.backward()
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            losses.append(optimizer.step(closure).item())
        else:
            losses.append(closure().item())
            optimizer.step(*(() if isinstance(optimizer, Replacing | Slow) else (closure,)))
    return np.array(losses)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_run_is_the_plain_loop(kind, norm, tmp_path):
    model = made(norm)
    expected = by_hand(OPTIMIZERS[kind], copied := copy.deepcopy(model))
    run = ravine.train(model=model, optimizer=OPTIMIZERS[kind], out=tmp_path / "run", **GIVEN)
    np.testing.assert_allclose(run.losses, expected, rtol=1e-9)
    for name, value in copied.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value, rtol=1e-7, atol=1e-9)


def step(model, batch):
    x, y = batch
    loss = F.cross_entropy(model(x + 0.1 * torch.randn(x.shape, dtype=x.dtype)), y)
    return {"loss": loss, "twice": 2 * loss}


@pytest.mark.parametrize("kind", ["strong Wolfe", "SAM of Adam", "Lookahead"])
@pytest.mark.parametrize("own", [None, step], ids=["dropout", "step"])
def test_resumed_to_the_bit_with_the_same_draws(own, kind, tmp_path):
    """Two seeds at once beside a formula, each as it is alone; dropout and a step that draws."""
    given = {**GIVEN, "epochs": 4} | ({"step": own} if own else {})
    net = functools.partial(Net, 0.0 if own else 0.3)
    whole = ravine.train(model=net, optimizer=OPTIMIZERS[kind], out=tmp_path / "a", **given)
    ravine.train(model=net, optimizer=OPTIMIZERS[kind], out=tmp_path / "b", **given | {"epochs": 2})
    (again,) = ravine.resume(
        tmp_path / "b", model=net, data=GIVEN["data"], after="4ep", quiet=True,
        own=[each for each in (own, OPTIMIZERS[kind]) if each],
    )  # fmt: skip
    assert np.array_equal(again.losses, whole.losses)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    if own:
        assert np.allclose(whole.metrics["train_twice"], 2 * whole.metrics["train_loss"])
    recipes = [
        whole.recipe.edit({"seed": 6}),
        whole.recipe,
        whole.recipe.edit({"optimizer": "adam"}),
    ]
    more = {"model": net, "data": GIVEN["data"], "quiet": True, "doctor": False}
    runs = ravine.train_many(recipes, out=tmp_path / "many", **more)
    np.testing.assert_allclose(runs[1].losses, whole.losses, rtol=1e-9)
    alone = ravine.train_many(recipes[2:], out=tmp_path / "one", **more)
    np.testing.assert_allclose(runs[2].losses, alone[0].losses, rtol=1e-9)


def test_penalties_belong_to_the_loss_that_is_searched(tmp_path):
    model = made()
    expected = by_hand(strong, copied := copy.deepcopy(model), penalty=0.05)
    run = ravine.train(model=model, optimizer=strong, l2=0.05, out=tmp_path / "run", **GIVEN)
    torch.testing.assert_close(run.model.state_dict(), copied.state_dict(), rtol=1e-7, atol=1e-9)
    assert (run.losses < expected).all()


def test_parts_of_batches_are_one_batch(tmp_path):
    whole = {**GIVEN, "model": lambda: made(), "optimizer": strong, "batch": 48}
    run = ravine.train(out=tmp_path / "a", **whole)
    parts = ravine.train(out=tmp_path / "b", **whole | {"batch": 24, "accumulate": 2})
    np.testing.assert_allclose(run.losses, parts.losses, rtol=1e-9)


def test_fields_whose_default_is_none_can_be_given(tmp_path):
    given = {**GIVEN, "model": lambda: made(), "optimizer": torch.optim.LBFGS, "lr": 0.5}
    run = ravine.train(line_search_fn="strong_wolfe", max_iter=5, out=tmp_path / "a", **given)
    same = ravine.train(out=tmp_path / "b", **given | {"optimizer": strong})
    assert np.array_equal(run.losses, same.losses)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)


def parts(model, batch):
    yield "a", model.a(batch.x).square().mean()


def test_a_step_in_parts_refuses_it(tmp_path):
    given = {
        **GIVEN,
        "model": Two,
        "step": parts,
        "optimizer": torch.optim.LBFGS,
        "precision": "auto",
    }
    with pytest.raises(ravine.InputError, match="without yield"):
        ravine.train(out=tmp_path / "run", **given)


def test_what_an_optimizer_holds_in_another_precision_comes_back_in_it():
    """PyTorch itself casts it to that of the parameter."""
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    adam = torch.optim.Adam([weight])
    adam.step()
    state = adam.state_dict()
    thirds = state["state"][0]["exp_avg"] = torch.ones(3, dtype=torch.float64) / 3
    adam.load_state_dict(copy.deepcopy(state))
    assert adam.state[weight]["exp_avg"].dtype == torch.float32
    _exactly(adam, state)
    assert torch.equal(adam.state[weight]["exp_avg"], thirds)
