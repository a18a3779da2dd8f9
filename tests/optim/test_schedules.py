"""Schedules: against PyTorch's, end points exact, continuous where they should be, durations
exact."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from ravine.catalogue import make, table
from ravine.errors import InputError
from ravine.optim.rows.planned_rates import Schedules, tabulate
from ravine.optim.scaling import batch_sizes, scaled_lr


def schedule(kind: str, **fields: Any) -> Any:
    return make("schedule", {"kind": kind, **fields})


def ours(kind: str, total: int, epoch: int = 1, **fields: Any) -> np.ndarray:
    return Schedules([schedule(kind, **fields)], epoch_steps=epoch, totals=[total]).factors(
        0, total
    )[:, 0]


def by_torch(
    made: Any, total: int, lr: float = 1.0, momentum: float = 0.9
) -> tuple[list[float], list[float]]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)
    scheduler = made(optimizer)
    rates, momenta = [], []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    return rates, momenta


T = 40
TORCH = [
    ("constant", {}, lambda o: theirs.ConstantLR(o, 1.0, T)),
    ("step", {"every": "7it", "factor": 0.5}, lambda o: theirs.StepLR(o, 7, 0.5)),
    (
        "multistep",
        {"milestones": ("50%", "75%")},
        lambda o: theirs.MultiStepLR(o, [T // 2, 3 * T // 4]),
    ),
    (
        "multistep",
        {"milestones": ("30it", "3it"), "factor": 0.3},
        lambda o: theirs.MultiStepLR(o, [3, 30], 0.3),
    ),
    ("exponential", {"gamma": 0.9, "every": "1it"}, lambda o: theirs.ExponentialLR(o, 0.9)),
    ("inverse_time", {"k": 0.1}, lambda o: theirs.LambdaLR(o, lambda t: 1 / (1 + 0.1 * t))),
    ("linear", {"tau": "20it", "end": 0.1}, lambda o: theirs.LinearLR(o, 1.0, 0.1, 20)),
    ("polynomial", {"power": 2.0, "over": "30it"}, lambda o: theirs.PolynomialLR(o, 30, 2.0)),
    ("cosine", {"end": 0.01}, lambda o: theirs.CosineAnnealingLR(o, T, eta_min=0.01)),
    (
        "warm_restarts",
        {"period": "6it", "growth": 2.0},
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 6, 2),
    ),
    (
        "warm_restarts",
        {"period": "9it", "end": 0.1},
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 9, 1, 0.1),
    ),
    (
        "triangular",
        {"half": "5it", "low": 0.2},
        lambda o: theirs.CyclicLR(o, 0.2, 1.0, 5, cycle_momentum=False),
    ),
    (
        "triangular",
        {"half": "5it", "low": 0.2, "shape": "halving"},
        lambda o: theirs.CyclicLR(o, 0.2, 1.0, 5, mode="triangular2", cycle_momentum=False),
    ),
    (
        "triangular",
        {"half": "5it", "low": 0.2, "shape": "exponential", "gamma": 0.97},
        lambda o: theirs.CyclicLR(
            o, 0.2, 1.0, 5, mode="exp_range", gamma=0.97, cycle_momentum=False
        ),
    ),
    ("one_cycle", {}, lambda o: theirs.OneCycleLR(o, 1.0, T)),
    (
        "one_cycle",
        {"anneal": "linear", "rise": 0.4, "divide": 10.0, "divide_end": 100.0},
        lambda o: theirs.OneCycleLR(
            o, 1.0, T, pct_start=0.4, anneal_strategy="linear", div_factor=10, final_div_factor=100
        ),
    ),
    ("one_cycle", {"three_phase": True}, lambda o: theirs.OneCycleLR(o, 1.0, T, three_phase=True)),
    (
        "table",
        {"values": tuple(1 / (t + 1) for t in range(T)), "every": "1it"},
        lambda o: theirs.LambdaLR(o, lambda t: 1 / (t + 1)),
    ),
]


@pytest.mark.parametrize(
    ("kind", "fields", "reference"), TORCH, ids=[f"{k}-{i}" for i, (k, _, _) in enumerate(TORCH)]
)
def test_as_torch_has_it(kind: str, fields: dict[str, Any], reference: Any) -> None:
    expected, momenta = by_torch(reference, T)
    np.testing.assert_allclose(ours(kind, T, **fields), expected, rtol=1e-12, atol=1e-14)
    scheduled = Schedules([schedule(kind, **fields)], epoch_steps=1, totals=[T]).momentum(0, T)
    if kind == "one_cycle":
        np.testing.assert_allclose(scheduled[:, 0], momenta, rtol=1e-12)
    else:
        assert scheduled is None


def test_every_schedule_is_tested() -> None:
    assert {kind for kind, _, _ in TORCH} | {"on_plateau"} == set(table("schedule"))


ENDS = [
    ("cosine", {}, 0.0),
    ("cosine", {"end": 0.25}, 0.25),
    ("linear", {"end": 0.01}, 0.01),
    ("polynomial", {"end": 0.5}, 0.5),
]


@pytest.mark.parametrize(("kind", "fields", "end"), ENDS)
@pytest.mark.parametrize("total", [1, 7, 1000])
def test_ends_are_exact_and_stay(kind: str, fields: dict[str, Any], end: float, total: int) -> None:
    curve = Schedules([schedule(kind, **fields)], epoch_steps=3, totals=[total]).factors(
        0, total + 5
    )[:, 0]
    assert curve[0] == 1.0
    assert (curve[total:] == end).all()


@pytest.mark.parametrize("kind", ["cosine", "linear", "polynomial", "inverse_time"])
def test_continuous(kind: str) -> None:
    curve = ours(kind, 10_000, warmup="10%")
    assert np.abs(np.diff(curve)).max() < 2e-3
    assert curve[0] == 0.0
    assert curve[1000] == 1.0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 50),
    st.sampled_from(["linear", "constant"]),
    st.sampled_from(sorted(table("schedule"))),
)
def test_warmup_then_the_schedule(warmup: int, total: int, how: str, kind: str) -> None:
    fields = {"values": (1.0, 0.5)} if kind == "table" else {}
    whole = warmup + total
    warm = ours(kind, whole, 5, warmup=f"{warmup}it", warmup_kind=how, warmup_start=0.2, **fields)
    plain = ours(kind, total, 5, **fields)
    rise = 0.2 + 0.8 * np.arange(warmup) / warmup if how == "linear" else np.full(warmup, 0.2)
    np.testing.assert_allclose(warm[:warmup], rise, rtol=1e-14)
    np.testing.assert_array_equal(warm[warmup:], plain)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(table("schedule"))), st.integers(0, 60), st.integers(0, 60))
def test_blocks_join_seamlessly(kind: str, first: int, length: int) -> None:
    fields = {"values": (1.0, 0.5)} if kind == "table" else {}
    schedules = Schedules(
        [schedule(kind, warmup="5it", floor=0.1, **fields)] * 2, epoch_steps=7, totals=[100, 60]
    )
    whole = schedules.factors(0, 120)
    assert whole.dtype == np.float64
    assert (whole >= 0.1).all()
    np.testing.assert_array_equal(
        schedules.factors(first, first + length), whole[first : first + length]
    )


def test_constant_warmup_at_zero_is_refused() -> None:
    with pytest.raises(InputError, match="warmup_start"):
        ours("constant", 10, warmup="2it", warmup_kind="constant")
    assert (ours("constant", 10, warmup="0it", warmup_kind="constant") == 1).all()  # there is none


# --- plateau ---

PLATEAU = [
    ({}, {"mode": "max"}),
    ({"patience": "2ep", "factor": 0.5}, {"mode": "max", "patience": 2, "factor": 0.5}),
    ({"patience": "1ep", "cooldown": "3ep"}, {"mode": "max", "patience": 1, "cooldown": 3}),
    (
        {"monitor": "val_loss", "patience": "0ep", "threshold": 0.05},
        {"mode": "min", "patience": 0, "threshold": 0.05},
    ),
    (
        {"patience": "2ep", "factor": 0.5, "floor": 0.2},
        {"mode": "max", "patience": 2, "factor": 0.5, "min_lr": 0.2},
    ),
]


@pytest.mark.parametrize(("fields", "arguments"), PLATEAU)
def test_plateau_as_torch_has_it(fields: dict[str, Any], arguments: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    values = 1 + 0.5 * np.cumsum(rng.normal(0, 0.1, 60)) / np.arange(1, 61)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = theirs.ReduceLROnPlateau(optimizer, **{"factor": 0.1, "eps": 0.0, **arguments})
    schedules = Schedules([schedule("on_plateau", **fields)], epoch_steps=4, totals=[240])
    for epoch, value in enumerate(values):
        scheduler.step(value)
        schedules.observe({"val_accuracy": np.array([value]), "val_loss": np.array([value])})
        found = schedules.factors(4 * epoch, 4 * epoch + 4)
        np.testing.assert_allclose(found, optimizer.param_groups[0]["lr"], rtol=1e-12)


def test_plateau_does_not_take_nan_for_progress() -> None:
    schedules = Schedules([schedule("on_plateau", patience="1ep")], epoch_steps=2, totals=[40])
    for value in (0.5, math.nan, math.nan):
        schedules.observe({"val_accuracy": np.array([value])})
    np.testing.assert_allclose(schedules.factors(0, 1), 0.1)


def test_plateau_of_a_regression_watches_the_loss() -> None:
    schedules = Schedules([schedule("on_plateau", patience="1ep")], epoch_steps=2, totals=[40])
    for loss in (1.0, 0.9, 0.8, 0.9, 0.9):
        schedules.observe({"val_loss": np.array([loss]), "train_loss": np.array([0.0])})
    np.testing.assert_allclose(schedules.factors(0, 1), 0.1)


def test_momentum_points_come_in_order() -> None:
    points = [["5ep", 0.5], ["10%", 0.9]]
    with pytest.raises(InputError, match="momentum_points"):
        Schedules([schedule("constant", momentum_points=points)], epoch_steps=2, totals=[20])


def test_plateau_wants_its_metric() -> None:
    schedules = Schedules([schedule("on_plateau", monitor="val_f1")], epoch_steps=2, totals=[40])
    with pytest.raises(InputError, match="val_accuracy"):
        schedules.observe({"val_accuracy": np.array([0.5])})


def test_state_through_json_and_keep() -> None:
    parts = [
        schedule("on_plateau", patience="1ep"),
        schedule("cosine"),
        schedule("on_plateau", patience="3ep"),
    ]
    schedules = Schedules(parts, epoch_steps=2, totals=[40, 20, 30])
    metrics = [np.array([0.5, 0.5, 0.5]) for _ in range(3)]
    for m in metrics:
        schedules.observe({"val_accuracy": m})
    again = Schedules(parts, epoch_steps=2, totals=[40, 20, 30])
    again.load_state(json.loads(json.dumps(schedules.state())))
    for each in (schedules, again):
        for m in metrics:
            each.observe({"val_accuracy": m})
    np.testing.assert_array_equal(schedules.factors(5, 15), again.factors(5, 15))
    expected = schedules.factors(0, 30)[:, [2, 0]]
    schedules.keep([2, 0])
    np.testing.assert_array_equal(schedules.factors(0, 30), expected)
    schedules.observe({"val_accuracy": np.array([0.4, 0.4])})


# --- momentum, tables, batch sizes, scaling ---


def test_momentum_points() -> None:
    rising = schedule("cosine", momentum_points=[["0it", 0.5], ["50%", 0.9], ["30it", 0.99]])
    found = Schedules([rising, schedule("step")], epoch_steps=5, totals=[40, 40]).momentum(0, 40)
    assert found is not None
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(
        found[[0, 10, 20, 25, 30, 39], 0], [0.5, 0.7, 0.9, 0.945, 0.99, 0.99], rtol=1e-14
    )


def test_tabulated_function_is_kept_in_the_recipe() -> None:
    part = tabulate(lambda epoch, lr: lr * (0.5 if epoch % 2 else 1.0), epochs=5, lr=0.3)
    again = make("schedule", json.loads(part.model_dump_json()))
    np.testing.assert_allclose(
        0.3 * ours("table", 12, 2, **again.arguments)[::2], [0.3, 0.15, 0.15, 0.075, 0.075, 0.075]
    )


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_tabulated_nonsense_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="epoch 1"):
        tabulate(lambda epoch, lr: lr if epoch == 0 else value, epochs=3, lr=0.1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((32, ["2ep"], 4), [32, 32, 64, 64]),
        ((32, ["25%", "50%"], 4), [32, 64, 128, 128]),
        ((32, [], 2), [32, 32]),
    ],
)
def test_batch_sizes(arguments: Any, expected: list[int]) -> None:
    assert batch_sizes(*arguments) == expected
    assert batch_sizes(*arguments, limit=50) == [min(size, 50) for size in expected]


def test_batch_sizes_and_scaling_refuse_nonsense() -> None:
    with pytest.raises(InputError, match="epochs"):
        batch_sizes(32, ["100it"], 4)
    with pytest.raises(InputError, match="factor"):
        batch_sizes(32, ["1ep"], 4, factor=0.5)
    with pytest.raises(InputError, match="scaled_lr"):
        scaled_lr(0.1, 0)
    assert scaled_lr(0.1, 8192) == pytest.approx(3.2)
