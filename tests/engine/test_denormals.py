"""Numbers too small for full precision are zero while networks train: on all threads, and only
there."""

from __future__ import annotations

import sys

import pytest
import torch

import ravine
from ravine.catalogue import make
from ravine.engine.execution.denormals import denormals_flushed
from ravine.engine.execution.device import kernel_threads
from ravine.engine.rows.ways.threads import _Pool
from ravine.layout import Layout
from ravine.optim.rows.optimizer import RowOptimizer

MANY = 1 << 18
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not torch.set_flush_denormal(False),
    reason="this processor cannot flush denormals",
)


def part_flushed() -> float:
    bits = (torch.full((MANY,), 1e-39) * 1.0).view(torch.int32)
    return float((bits == 0).double().mean())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("before", [False, True])
def test_all_threads_flush_inside_and_none_behind(threads, before):
    with kernel_threads(threads):
        part_flushed()  # the threads that wait for the next kernel are there
        torch.set_flush_denormal(before)
        try:
            with denormals_flushed() as flushed:
                assert flushed
                assert part_flushed() == 1.0
            assert part_flushed() == before
        finally:
            torch.set_flush_denormal(False)


def test_threads_that_train_a_member_each_flush():
    flushed = _Pool().map(2, lambda member: torch.tensor(part_flushed()), range(2))
    assert [float(part) for part in flushed] == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["adam", "momentum", "nadam"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_momentum_of_a_weight_without_gradient_ends_at_zero(kind, threads):
    layout = Layout.of([("w", (MANY,), "weight", 0)])
    optimizer = RowOptimizer(
        [make("optimizer", {"kind": kind, "lr": 0.1})], layout, device="cpu", dtype=torch.float32
    )
    theta, grad = torch.ones(1, MANY), torch.full((1, MANY), 1e-30)
    one = torch.ones(1, dtype=torch.float64)
    with kernel_threads(threads), denormals_flushed():
        for step in range(400):
            optimizer.step(theta, grad, lr=one, alive=one.bool(), t=one + step)
            grad.zero_()
    slot = next(iter(optimizer.state().values()))
    assert not slot.view(torch.int32).any()


def test_training_flushes_and_leaves_the_process_as_it_was(tmp_path):
    seen = []
    recipe = ravine.Recipe(stop={"after": "1ep"})
    ravine.train_many(
        [recipe],
        out=tmp_path / "run",
        report=lambda progress: seen.append(part_flushed()),
        doctor=False,
    )
    assert seen
    assert set(seen) == {1.0}
    assert part_flushed() == 0.0
