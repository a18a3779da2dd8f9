"""Penalties: their gradients are those of their values, by autograd, and spare biases and
normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from descents import LAYOUT
from ravine import Recipe
from ravine.data.pipeline import Pipeline
from ravine.engine.programs import populate
from ravine.engine.rows.members import Members
from ravine.engine.rows.step import Stepper
from ravine.optim.penalties import add_penalty_gradients, penalty, soft_threshold

P = 3
CASES = {
    "l1": ([0.1, 0.0, 2.0], None, None, None),
    "l2": (None, [0.1, 0.0, 2.0], None, None),
    "elastic net": ([0.1, 0.2, 0.0], [0.3, 0.0, 1.0], None, None),
    "lp": (None, None, [0.1, 0.0, 2.0], [1.5, 1.0, 3.0]),
    "all": ([0.1, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.3], [1.5, 1.5, 1.5]),
}


@pytest.mark.parametrize("strengths", CASES.values(), ids=CASES)
def test_gradients_are_those_of_the_value(strengths: tuple[list[float] | None, ...]) -> None:
    columns = [None if s is None else torch.tensor(s, dtype=torch.float64) for s in strengths]
    theta = torch.randn(
        P, LAYOUT.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    theta[:, 4] = 0.0  # where the penalties have a kink
    leaf = theta.clone().requires_grad_()
    l1, l2, lp, p = (None if c is None else c[:, None] for c in columns)
    w = leaf[:, : LAYOUT.weights]
    plain = sum(
        term.sum(1)
        for term in (
            l1 * w.abs() if l1 is not None else None,
            l2 * w**2 if l2 is not None else None,
            lp * w.abs() ** p if lp is not None and p is not None else None,
        )
        if term is not None
    )
    assert isinstance(plain, torch.Tensor)
    torch.testing.assert_close(penalty(theta, LAYOUT, *columns), plain.detach(), rtol=1e-12, atol=0)
    (expected,) = torch.autograd.grad(plain.sum(), leaf)
    grad = torch.ones_like(theta)
    add_penalty_gradients(grad, theta, LAYOUT, *columns)
    torch.testing.assert_close(grad - 1, expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(
        grad[:, LAYOUT.weights :], torch.ones(P, LAYOUT.size - LAYOUT.weights, dtype=torch.float64)
    )


def test_zero_strengths_cost_and_change_nothing() -> None:
    theta = torch.full((P, LAYOUT.size), torch.inf)
    grad, zeros = torch.ones(P, LAYOUT.size), torch.zeros(P, dtype=torch.float64)
    add_penalty_gradients(grad, theta, LAYOUT, zeros, zeros, zeros, zeros + 1.5)
    assert torch.equal(grad, torch.ones_like(grad))
    assert torch.equal(penalty(theta, LAYOUT, zeros, zeros, zeros, zeros + 1.5), torch.zeros(P))


def test_soft_threshold_is_the_proximal_step() -> None:
    """The minimiser of (v - w)^2 / 2 + amount |v|, by a fine grid; what does not decay stays."""
    theta = torch.randn(P, LAYOUT.size, generator=torch.Generator().manual_seed(0)).double()
    before, amount = theta.clone(), torch.tensor([0.0, 0.1, 0.7], dtype=torch.float64)
    soft_threshold(theta, LAYOUT, amount)
    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)  # 0 is on it
    for row in range(P):
        for column in range(LAYOUT.weights):
            cost = (grid - before[row, column]) ** 2 / 2 + amount[row] * grid.abs()
            assert abs(float(grid[cost.argmin()] - theta[row, column])) < 1e-4
    assert torch.equal(theta[0], before[0])
    assert torch.equal(theta[:, LAYOUT.weights :], before[:, LAYOUT.weights :])
    assert int((theta == 0).sum()) > 5


def stepped(changes: list[dict[str, Any]], x: np.ndarray, y: np.ndarray, steps: int) -> Any:
    """theta [P, D] of a linear model after so many full-batch steps, one row for each change."""
    base = Recipe(
        model="linear",
        loss="squared",
        data={"validation": 0.0, "test": 0.0, "batch": "full"},
        precision="float64",
    )
    recipes = [base.edit(change) for change in changes]
    pipeline = Pipeline(base.data, arrays=(x, y), dtype=torch.float64)
    population = populate(recipes, pipeline, None, device=pipeline.device, dtype=torch.float64)
    population.train()
    rates = np.array([[r.optimizer.lr for r in recipes]] * steps)
    batches = [[pipeline.batch(0)]] * steps
    Stepper(population, Members(recipes)).run(batches, 0, rates, None)
    return population.theta.detach()


def test_the_proximal_step_gives_the_lasso() -> None:
    """Each member by its own penalty: as scikit-learn's Lasso, zeros exactly where it has them; by
    gradient nothing is zero."""
    generator = np.random.default_rng(0)
    x, truth = generator.normal(size=(60, 10)), np.zeros(10)
    truth[:2] = 2, -1
    y = x @ truth + 0.1 * generator.normal(size=60)
    momentum = {"kind": "momentum", "lr": 0.1, "momentum": 0.6}
    members = [
        ({"kind": "sgd", "lr": 0.3}, 0.2, "proximal"),
        (momentum, 0.5, "proximal"),
        ({"kind": "sgd", "lr": 0.3}, 0.2, "gradient"),
    ]
    changes = [
        {"optimizer": optimizer, "loss.l1": l1, "loss.l1_step": step}
        for optimizer, l1, step in members
    ]
    for row, (optimizer, l1, step) in zip(stepped(changes, x, y, 300), members, strict=True):
        weights = row[:10].numpy()
        # momentum m makes the gradient's steps 1 / (1 - m) times as long, not the threshold
        own = l1 * (1 - optimizer.get("momentum", 0.0))
        exact = Lasso(alpha=own / 2, tol=1e-14, max_iter=100_000).fit(x, y).coef_
        if step == "proximal":
            np.testing.assert_allclose(weights, exact, atol=1e-9)
            np.testing.assert_array_equal(weights == 0, exact == 0)
            assert (weights == 0).sum() >= 6
        else:
            assert not (weights == 0).any()


@pytest.mark.parametrize("kind", ["adam", "rmsprop", "adadelta", "lars", "rprop"])
def test_behind_any_optimiser_it_is_the_same_step(kind: str) -> None:
    """One step of the optimiser without penalty, then the threshold lr * l1 with the step's lr."""
    x = np.random.default_rng(0).normal(size=(40, 6))
    plain = {"optimizer": {"kind": kind, "lr": 0.01}}
    proximal = {**plain, "loss.l1": 10.0, "loss.l1_step": "proximal"}
    before, after = stepped([plain, proximal], x, x @ np.linspace(-1, 1, 6), 1)
    expected = before.clone()
    expected[:6] = torch.sign(before[:6]) * (before[:6].abs() - 0.01 * 10).clamp_min(0)
    torch.testing.assert_close(after, expected, rtol=1e-13, atol=1e-15)


def test_frozen_weights_have_no_threshold() -> None:
    x = np.random.default_rng(0).normal(size=(40, 6))
    frozen = {"start.freeze": ["*weight"], "optimizer": {"kind": "sgd", "lr": 0.1}}
    proximal = {**frozen, "loss.l1": 1.0, "loss.l1_step": "proximal"}
    before, after = stepped([frozen, proximal], x, x @ np.linspace(-1, 1, 6), 3)
    assert torch.equal(before, after)
