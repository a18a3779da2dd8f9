"""Penalties: their gradients are those of their values, by autograd, and spare biases and
normalisation."""

from __future__ import annotations

import pytest
import torch

from descents import LAYOUT
from ravine.optim.penalties import add_penalty_gradients, penalty

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
