"""The contract of the ways to take gradients: each gives what members one by one give."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ravine import InputError, Recipe
from ravine.engine.execution.execution import Execution
from ravine.engine.rows.members import Members
from ravine.engine.rows.population import Objective, Population
from ravine.engine.rows.ways import (
    WAYS,
    Arithmetic,
    Mapped,
    OneByOne,
    Parts,
    Threads,
    Workload,
    compiled,
)
from ravine.engine.rows.ways.passes import Lowered, RowViews
from ravine.machine import machine, versions
from ravine.nn.build import build, build_loss

DENSE = {"kind": "mlp", "hidden": [5]}
LSTM = {
    "layers": [
        {"kind": "reshape", "to": [2, 3]},
        {"kind": "lstm", "units": 4},
        {"kind": "dense", "units": 4},
    ]
}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch):
    """Graphs by Dynamo alone: no code is generated."""
    eager = lambda net: torch.compile(lambda x: net(x), backend="eager", dynamic=False)  # noqa: E731
    monkeypatch.setattr(compiled, "compile_network", eager)


def objectives(model, seeds, **regularised):
    built = [build(model, (2, 3), 4, seed=seed, dtype=torch.float64) for seed in seeds]
    loss = lambda: build_loss("cross_entropy", "classification")  # noqa: E731
    return [Objective(net, loss(), **regularised) for net in built]


def population(model=DENSE, members=3, dtype=torch.float64, **regularised):
    rows = objectives(model, range(members), **regularised)
    return Population(rows, range(members), device=CPU, dtype=dtype)


def registered(rows):
    members = Members([Recipe(seed=i) for i in range(len(rows))])
    rows.register(members)
    return members


def join(rows, members, more):
    recipes = [Recipe(seed=7 + i) for i in range(len(more))]
    members.grow(rows.newcomers(more, recipes, [7 + i for i in range(len(more))], 0))


def batch(size=8, dtype=torch.float64):
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(size, 2, 3, generator=draws, dtype=dtype)
    return x, torch.randint(4, (size,), generator=draws)


def assert_as_one_by_one(rows, way, weighted=True):
    x, y = batch()
    weight = torch.rand(len(rows), len(y), dtype=torch.float64) if weighted else None
    plain = OneByOne(rows)
    for accumulate in (0.0, 0.5):
        found = []
        for each in (plain, way):
            rows.grad.fill_(0.25)
            found.append((each.gradients(x, y, weight, 0, accumulate), rows.grad.clone()))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(way.losses(x, y), plain.losses(x, y))
    torch.testing.assert_close(way.outputs(x), plain.outputs(x))
    torch.testing.assert_close(way.call(rows.objectives[0].model, x), plain.outputs(x)[0])


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("members", [1, 3])
def test_every_way_gives_what_members_one_by_one_give(name, members):
    rows = population(members=members)
    assert_as_one_by_one(rows, WAYS[name](rows, Arithmetic(threads=2)))


@pytest.mark.parametrize("name", [way for way in WAYS if way not in ("native", "dense", "mapped")])
def test_recurrent_networks_too(name):
    rows = population(LSTM, members=1)
    assert_as_one_by_one(rows, WAYS[name](rows, Arithmetic(threads=2)))


@pytest.mark.parametrize("name", WAYS)
def test_a_way_follows_rows_that_go_and_come(name):
    rows = population()
    rows.way = WAYS[name](rows, Arithmetic(threads=2))
    members = registered(rows)
    members.keep([2])
    assert_as_one_by_one(rows, rows.way)
    join(rows, members, objectives(DENSE, [7, 8]))
    assert len(rows) == 3
    assert_as_one_by_one(rows, rows.way)


@pytest.mark.parametrize("name", [way for way in WAYS if way not in ("native", "dense")])
@pytest.mark.parametrize("regularised", [{"hard_negatives": 0.5}, {"adversarial": 0.1}], ids=str)
def test_rows_that_come_bring_what_they_need(name, regularised):
    """A member that mines or is attacked joins members that are not: all forward passes can."""
    if name == "parts on threads":
        rows = population(members=1)
        assert not Parts.possible(Workload(population(LSTM, 1, **regularised), "cpu", 2, 8))
        return
    rows = population(members=1)
    rows.way = WAYS[name](rows, Arithmetic(threads=2))
    join(rows, registered(rows), objectives(DENSE, [7], **regularised))
    x, y = batch()
    losses = rows.gradients(x, y, None, 0)
    alone = Population(objectives(DENSE, [7], **regularised), [7], device=CPU, dtype=torch.float64)
    torch.testing.assert_close(losses[1:], alone.gradients(x, y, None, 0))
    torch.testing.assert_close(rows.grad[1:], alone.grad)


def test_dense_rows_whose_losses_differ_run_as_others_do():
    rows = population(members=1)
    rows.way = WAYS["dense"](rows)
    assert rows.way.network is not None
    other = Objective(
        build(DENSE, (2, 3), 4, seed=7, dtype=torch.float64),
        build_loss({"kind": "cross_entropy", "label_smoothing": 0.2}, "classification"),
    )
    join(rows, registered(rows), [other])
    assert rows.way.network is None
    assert_as_one_by_one(rows, rows.way)


@pytest.mark.parametrize("kind", [Mapped, OneByOne])
def test_products_run_in_the_precision_of_the_arithmetic(kind):
    """The forward pass of each member, whatever the way, is rounded as bfloat16 rounds."""
    rows = population(dtype=torch.float32)
    x, y = batch(dtype=torch.float32)
    exact = kind(rows).gradients(x, y, None, 0)
    rounded = kind(rows, Arithmetic(torch.bfloat16)).gradients(x, y, None, 0)
    assert exact.dtype == rounded.dtype == torch.float32
    assert 1e-6 < float((exact - rounded).abs().max()) < 0.05


WORK = Workload(population(), "cpu", 2, 128)  # three dense members
RECURRENT = {**LSTM, "layers": [LSTM["layers"][0], {"kind": "lstm", "units": 64}]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "dense"),
        ({"population": population(members=1)}, "dense"),
        ({"population": population({"kind": "mlp", "norm": "batch"})}, "mapped"),
        ({"population": population({"kind": "mlp", "norm": "batch"}, 1)}, "one by one"),
        ({"population": population(LSTM)}, "members on threads"),
        ({"population": population(LSTM), "threads": 1}, "one by one"),
        ({"population": population(RECURRENT, 1), "parts_pay": True}, "parts on threads"),
        ({"population": population(RECURRENT, 1)}, "one by one"),
        (
            {"population": population(RECURRENT, 1), "parts_pay": True, "device": "cuda"},
            "one by one",
        ),
    ],
)
def test_the_first_way_whose_rule_takes_a_program(changes, expected):
    work = dataclasses.replace(WORK, **changes)
    assert next(name for name, way in WAYS.items() if way.rule(work)) == expected


def test_modules_that_draw_globally_stay_on_one_thread():
    rows = population(LSTM)
    rows.global_seeds = [0, 1, 2]
    assert Threads.rule(Workload(rows, "cpu", 2, 128)) is None
    assert not Parts.possible(Workload(rows, "cpu", 2, 128))


def test_a_trial_leaves_the_population_as_it_was():
    rows = population({"kind": "mlp", "hidden": [5], "norm": "batch"})
    x, y = batch()
    rows.grad.fill_(3.0)
    before = {name: value.clone() for name, value in rows.buffers.items()}
    assert Mapped.why_not(rows, Arithmetic(), x, y) is None
    assert bool((rows.grad == 3.0).all())
    for name, value in rows.buffers.items():
        assert torch.equal(value, before[name]), name


def test_what_cannot_be_mapped_says_why():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x):
            assert float(x.sum()) > 0 or self.layer(x.flatten(1)).sum().item() is not None
            return self.layer(x.flatten(1))

    loss = build_loss("cross_entropy", "classification")
    rows = [Objective(Own(), loss), Objective(Own(), loss)]
    held = Population(rows, [0, 1], device=CPU, dtype=torch.float64)
    x, y = batch()
    assert Mapped.why_not(held, Arithmetic(), -x.abs(), y).startswith("vmap failed: ")


@pytest.mark.parametrize("name", WAYS)
def test_an_execution_record_comes_back_as_it_was(name):
    record = Execution("cpu", "bfloat16", name, "channels_last", 2, why=["a reason"])
    assert Execution.from_dict(record.to_dict()) == record
    assert record.kind is WAYS[name]
    assert record.arithmetic == Arithmetic(torch.bfloat16, torch.channels_last, 2)
    assert "{" not in record.sentence()
    assert WAYS[name].__doc__
    assert "Used" in WAYS[name].__doc__


@pytest.mark.parametrize("change", [{"rows": "together"}, {"way": "sideways"}])
def test_a_record_of_another_version_is_refused(change):
    facts = {**Execution("cpu", "float32", "mapped").to_dict(), **change}
    with pytest.raises(InputError, match="version"):
        Execution.from_dict(facts)


def test_the_facts_that_figures_carry():
    found = machine()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["system"]
    assert ("gpu" in found) == torch.cuda.is_available()
    assert versions(["torch", "no-such-package"])["torch"].startswith(
        torch.__version__.split("+")[0]
    )


def test_versions_are_read_once(monkeypatch):
    once = versions(["torch", "numpy"])
    monkeypatch.setattr(metadata, "version", None)
    assert versions(["torch", "numpy"]) == once


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        x = nn.functional.dropout(self.first(x.flatten(1)), 0.5, self.training)
        return self.last(self.second(x))


def test_members_together_follow_the_mode_of_their_networks():
    """Also where a copy of the first stands for them, which has a parameter of two names."""
    each = [Objective(Tied().double(), build_loss("cross_entropy", "classification")) for _ in "ab"]
    rows = Population(each, range(2), device=CPU, dtype=torch.float64)
    way, plain = Mapped(rows), OneByOne(rows)
    for objective in rows.objectives:
        objective.eval()
    torch.testing.assert_close(way.losses(*batch()), plain.losses(*batch()))
    torch.testing.assert_close(way.outputs(batch()[0]), plain.outputs(batch()[0]))


def test_neighbours_are_cast_together_and_each_entry_once():
    spans = {"a": (0, 2), "b": (2, 5), "c": (7, 9), "d": (10, 12)}
    layout = {name: SimpleNamespace(start=a, stop=b) for name, (a, b) in spans.items()}
    rows = RowViews(torch.zeros(1, 12), torch.zeros(1, 12), layout)
    lowered = Lowered(rows, torch.bfloat16)
    for name, (start, stop) in spans.items():
        lowered.pair(name, stop - start)
    lowered.close()
    assert [len(full) for _, full in lowered.values] == [5, 2, 2]
    assert [len(full) for full, _ in lowered.slopes] == [5, 2, 2]
