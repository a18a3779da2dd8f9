"""Dense networks written out as batched products give what direct calls through autograd give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ravine.engine.rows.population import Objective, Population
from ravine.engine.rows.ways import Arithmetic, OneByOne
from ravine.engine.rows.ways.dense import DenseNetwork
from ravine.nn.build import build, build_loss

LOSSES = [
    "cross_entropy",
    {"kind": "cross_entropy", "label_smoothing": 0.1},
    "hinge",
    "squared",
    "binary_cross_entropy",
]
ACTIVATIONS = ["relu", "tanh", "sigmoid", "silu", "selu"]


def population(
    members: int, model: object, loss: object = "cross_entropy", dtype=torch.float64
) -> Population:
    models = [build(model, (2, 3), 4, seed=i, dtype=dtype) for i in range(members)]
    objectives = [Objective(built, build_loss(loss, "classification")) for built in models]
    return Population(objectives, range(members), device=torch.device("cpu"), dtype=dtype)


def dense(rows: Population, precision=torch.float64) -> DenseNetwork:
    assert DenseNetwork.refuses(rows.objectives, rows.layout) is None
    return DenseNetwork(rows, precision)


def batch(size: int = 7, dtype=torch.float64):
    draws = torch.Generator().manual_seed(0)
    return torch.randn(size, 2, 3, generator=draws, dtype=dtype), torch.randint(
        4, (size,), generator=draws
    )


def assert_equal_to_direct(rows: Population, weight=None, y=None) -> None:
    x, classes = batch()
    y = classes if y is None else y
    rows.seed_step(3)
    for accumulate in (0.0, 1.0, 0.5):
        rows.grad.fill_(0.25)
        expected_losses = rows.gradients(x, y, weight, 3, accumulate=accumulate)
        expected = rows.grad.clone()
        rows.grad.fill_(0.25)
        losses = dense(rows).gradients(x, y, weight, accumulate)
        torch.testing.assert_close(losses, expected_losses, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(rows.grad, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, members):
    assert_equal_to_direct(
        population(members, {"kind": "mlp", "hidden": [5, 6], "activation": activation})
    )


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_losses(loss, members):
    assert_equal_to_direct(population(members, {"kind": "mlp", "hidden": [5]}, loss))


@pytest.mark.parametrize("form", ["inverted", "classic"])
def test_dropout_draws_what_the_layer_draws(form):
    drop = {"kind": "dropout", "rate": 0.4, "form": form}
    layers = [
        "flatten",
        drop,
        {"kind": "dense", "units": 5, "bias": False},
        "tanh",
        drop,
        {"kind": "dense", "units": 4},
    ]
    assert_equal_to_direct(population(3, {"kind": "layers", "layers": layers}))


def test_sample_weights_and_soft_targets():
    rows = population(2, {"kind": "mlp", "hidden": [5]})
    assert_equal_to_direct(rows, weight=torch.rand(2, 7, dtype=torch.float64))
    assert_equal_to_direct(rows, y=torch.rand(7, 4, dtype=torch.float64).softmax(1))


def test_rates_may_differ_between_members():
    said = [{"kind": "mlp", "hidden": [5], "dropout": rate} for rate in (0.0, 0.5)]
    models = [build(model, (2, 3), 4, seed=i, dtype=torch.float64) for i, model in enumerate(said)]
    objectives = [Objective(model, build_loss("auto", "classification")) for model in models]
    assert_equal_to_direct(
        Population(objectives, range(2), device=torch.device("cpu"), dtype=torch.float64)
    )


@pytest.mark.parametrize("members", [1, 3])
def test_in_bfloat16_the_error_is_that_of_autocast(members):
    rows = population(members, {"kind": "mlp", "hidden": [64, 64]}, dtype=torch.float32)
    x, y = batch(64, torch.float32)
    rows.gradients(x, y, None, 0)
    expected = rows.grad.clone()
    rows.way = OneByOne(rows, Arithmetic(torch.bfloat16), cast_once=False)
    rows.gradients(x, y, None, 0)
    usual = float((rows.grad - expected).norm())
    dense(rows, torch.bfloat16).gradients(x, y, None, 0.0)
    assert 0 < float((rows.grad - expected).norm()) < 1.3 * usual


class Custom(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: nn.Sequential(nn.Flatten(), Custom(), nn.Linear(6, 4)), "Custom"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.BatchNorm1d(4)), "BatchNorm1d"),
        (
            lambda: nn.Sequential(
                nn.Flatten(), nn.Linear(6, 4).requires_grad_(False), nn.Linear(4, 4)
            ),
            "frozen",
        ),
        (lambda: nn.Flatten(), "no dense layer"),
    ],
)
def test_what_is_not_known_is_refused(model, why):
    rows = [Objective(model(), build_loss("auto", "classification"))]
    from ravine.nn.build import layout

    assert why in (DenseNetwork.refuses(rows, layout(rows[0])) or "")


def test_members_with_different_losses_are_refused():
    losses = [
        build_loss({"kind": "cross_entropy", "label_smoothing": s}, "classification")
        for s in (0.0, 0.1)
    ]
    rows = [Objective(build("mlp", (6,), 4), loss) for loss in losses]
    layout = Population(rows, [0, 1], device=torch.device("cpu"), dtype=torch.float32).layout
    assert "losses differ" in (DenseNetwork.refuses(rows, layout) or "")
