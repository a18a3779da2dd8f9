"""The optimiser step of a population: every way to run it agrees, dead rows stay, states come back
to the bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from descents import LAYOUT, part
from ravine.errors import RavineError
from ravine.optim.rows import fused, tiles
from ravine.optim.rows.groups import Now, RowGroup
from ravine.optim.rows.optimizer import RowOptimizer
from test_optimizers import CASES, IDS

WAYS = [tiles.LongRows, tiles.ShortRows, tiles.DeviceRows, fused.FusedRows]
P = 5


def parts_of(kind: str, fields: dict[str, Any]) -> list[Any]:
    """One technique, every number different in every row."""
    decay = {} if kind == "rprop" else {"weight_decay": 0.03}
    numbers = {k: v for k, v in {**fields, **decay}.items() if isinstance(v, float)}
    return [
        part(kind, **{**fields, **{k: v * (1 - 0.05 * i) for k, v in numbers.items()}})
        for i in range(P)
    ]


def gradients(dtype: torch.dtype, p: int = P, steps: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(p, LAYOUT.size, generator=generator, dtype=torch.float64).to(dtype)
        for _ in range(steps)
    ]


def now_at(
    t: int, parts: list[Any], alive: list[bool] | None = None, momentum: Tensor | None = None
) -> Now:
    lr = torch.tensor([p.lr / (1 + 0.1 * t) for p in parts], dtype=torch.float64)
    alive = alive or [True] * len(parts)
    ts = [float(t)] * len(parts)
    momenta = None if momentum is None else momentum.tolist()
    return Now(
        lr,
        torch.tensor(alive),
        torch.tensor(ts, dtype=torch.float64),
        momentum,
        lr.tolist(),
        alive,
        ts,
        momenta,
    )


def group_of(parts: list[Any], dtype: torch.dtype) -> RowGroup:
    return RowGroup(range(P), parts, LAYOUT, torch.device("cpu"), dtype)


def run(way: Any, parts: list[Any], dtype: torch.dtype, momentum: Tensor | None = None) -> Tensor:
    runner = way(group_of(parts, dtype))
    theta = gradients(dtype)[0].clone()
    for t, grad in enumerate(gradients(dtype), 1):
        runner.step(theta, grad.clone(), now_at(t, parts, momentum=momentum))
    return theta


@pytest.mark.parametrize(("kind", "fields", "_"), CASES, ids=IDS)
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["float64", "float32"]
)
def test_all_ways_agree(
    kind: str, fields: dict[str, Any], _: Any, dtype: torch.dtype, close: float
) -> None:
    parts = parts_of(kind, fields)
    expected = run(tiles.LongRows, parts, dtype)
    for way in WAYS[1:] if fused.fits(group_of(parts, dtype)) else WAYS[1:3]:
        torch.testing.assert_close(run(way, parts, dtype), expected, rtol=10 * close, atol=close)


def test_a_thread_takes_neighbouring_tiles_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "RUN", 8)
    rows = SimpleNamespace(
        group=SimpleNamespace(rows=[0], slots={}),
        pieces=[(slice(start, start + 3), LAYOUT) for start in range(0, 24, 3)],
    )
    runs = tiles.LongRows._cut(rows, torch.zeros(1, 24), torch.zeros(1, 24), 0)
    assert [[w.shape[1] for w, *_ in run] for run in runs] == [[3, 3, 3], [3, 3, 3], [3, 3]]


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 2)
    monkeypatch.setattr(tiles, "RUN", 4)
    for kind, fields, _ in CASES[:: len(CASES) // 12]:
        parts = parts_of(kind, fields)
        expected = run(tiles.LongRows, parts, torch.float32)
        torch.set_num_threads(threads)
        try:
            found = run(tiles.LongRows, parts, torch.float32)
        finally:
            torch.set_num_threads(1)
        assert torch.equal(found, expected), kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nadam", "lamb"])
def test_compiled_formulas(kind: str) -> None:
    parts = parts_of(kind, {"lr": 0.01})
    optimizers = [
        RowOptimizer(parts, LAYOUT, device="cpu", dtype=torch.float64, compiled=c)
        for c in (True, False)
    ]
    thetas = [gradients(torch.float64)[0].clone() for _ in optimizers]
    for optimizer, theta in zip(optimizers, thetas, strict=True):
        advance(optimizer, theta, range(1, 6))
        alive = torch.tensor([True, True, False, True, True])
        advance(optimizer, theta, range(6, 8), alive)
    torch.testing.assert_close(*thetas, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "kind", ["sgd", "momentum", "nesterov", "adam", "amsgrad", "adamw", "adagrad"]
)
def test_fused_kernels_are_used(kind: str) -> None:
    optimizer, _ = fresh([part(kind)])
    assert [type(runner) for runner in optimizer._runners] == [fused.FusedRows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rates", ["equal", "different"])
@pytest.mark.parametrize(
    "kind", ["sgd", "momentum", "nesterov", "adam", "adamw", "amsgrad", "adagrad"]
)
def test_rows_whose_numbers_agree_are_one_long_row(
    kind: str, rates: str, dtype: torch.dtype
) -> None:
    """As the rows one by one, whatever their rates; and a row that stays changes no bit of the others."""
    lr = part(kind).lr
    decay = {"weight_decay": 0.03, "decay_by": "schedule"} if kind == "adamw" else {}
    parts = [part(kind, lr=lr * (1 + i * (rates == "different")), **decay) for i in range(P)]
    joined, apart, still = (fused.FusedRows(group_of(parts, dtype)) for _ in range(3))
    thetas = [gradients(dtype)[0].clone() for _ in range(3)]
    lives = [row != 2 for row in range(P)]
    for t, grad in enumerate(gradients(dtype), 1):
        joined.step(thetas[0], grad, now_at(t, parts))
        apart._bind(thetas[1], grad)
        for row in range(P):
            apart._run(row, apart.buckets[0].apart[row], now_at(t, parts))
        still.step(thetas[2], grad, now_at(t, parts, alive=lives))
    assert len(joined.buckets[0].long) == 1
    close = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(thetas[0], thetas[1], rtol=close, atol=close)
    assert torch.equal(thetas[2][lives], thetas[0][lives])
    assert torch.equal(thetas[2][2], gradients(dtype)[0][2])
    slots = [runner.group.slots for runner in (still, joined)]
    assert all(
        torch.equal(a[lives], b[lives]) for a, b in zip(*map(dict.values, slots), strict=True)
    )
    assert not any(held[2].any() for held in slots[0].values())


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "rmsprop", "adam", "adamw", "nadam", "lars"])
def test_scheduled_momentum(kind: str) -> None:
    """A scheduled momentum replaces the row's own; NaN leaves it."""
    name = "beta1" if kind.startswith(("adam", "nadam")) else "momentum"
    parts = [part(kind, lr=0.01, **{name: 0.9}) for _ in range(P)]
    wanted = [part(kind, lr=0.01, **{name: value}) for value in (0.5, 0.9, 0.8, 0.9, 0.7)]
    scheduled = torch.tensor([0.5, torch.nan, 0.8, torch.nan, 0.7], dtype=torch.float64)
    for way in WAYS if kind in ("sgd", "adam", "adamw", "nesterov") else WAYS[:3]:
        found, expected = run(way, parts, torch.float64, scheduled), run(way, wanted, torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_without_momentum_a_schedule_of_it_does_nothing() -> None:
    parts = [part("sgd", lr=0.01) for _ in range(P)]
    scheduled = torch.full((P,), 0.9, dtype=torch.float64)
    for way in WAYS:
        assert torch.equal(
            run(way, parts, torch.float64, scheduled), run(way, parts, torch.float64)
        )


def mixed(count: int = 12) -> list[Any]:
    """A population of many kinds, two rows of each, none beside its twin."""
    chosen = [CASES[i][:2] for i in range(0, len(CASES), max(1, len(CASES) // count))]
    parts = [part(kind, **fields) for kind, fields in chosen]
    return parts + [part(kind, **{**fields, "lr": fields["lr"] / 2}) for kind, fields in chosen]


def advance(
    optimizer: RowOptimizer, theta: Tensor, steps: range, alive: Tensor | None = None
) -> None:
    alive = torch.ones(len(theta), dtype=torch.bool) if alive is None else alive
    rates = torch.tensor([p.lr for p in optimizer.parts], dtype=torch.float64)
    for t in steps:
        optimizer.point(theta)
        grad = torch.sin(theta * 3) + 0.1 * t
        grad[~alive] = torch.nan
        optimizer.step(
            theta, grad, rates, alive, torch.full((len(theta),), float(t), dtype=torch.float64)
        )


def fresh(parts: list[Any], dtype: torch.dtype = torch.float32) -> tuple[RowOptimizer, Tensor]:
    theta = torch.randn(len(parts), LAYOUT.size, generator=torch.Generator().manual_seed(0)).to(
        dtype
    )
    return RowOptimizer(parts, LAYOUT, device="cpu", dtype=dtype), theta


def bits(optimizer: RowOptimizer, theta: Tensor, rows: list[int]) -> list[Tensor]:
    """Everything there is of some rows: their weights and their slots."""
    found = [theta[rows]]
    for group in optimizer.groups:
        for _, slot in sorted(group.slots.items()):
            found += [slot[group.rows.index(row)] for row in rows if row in group.rows]
    slow = optimizer.lookahead
    if slow.rows:
        found += [slow.slow[slow.rows.index(row)] for row in rows if row in slow.rows]
    return [x.clone() for x in found]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_dead_rows_do_not_move_a_bit(data: st.DataObject) -> None:
    parts = mixed()
    dead = sorted(data.draw(st.sets(st.integers(0, len(parts) - 1), min_size=1)))
    optimizer, theta = fresh(parts)
    advance(optimizer, theta, range(1, 4))
    before = bits(optimizer, theta, dead)
    alive = torch.ones(len(parts), dtype=torch.bool)
    alive[dead] = False
    advance(optimizer, theta, range(4, 9), alive)
    assert same(bits(optimizer, theta, dead), before)
    live = alive.nonzero().flatten().tolist()
    other, expected = fresh(parts)
    advance(other, expected, range(1, 9))
    torch.testing.assert_close(theta[live], expected[live], rtol=1e-6, atol=1e-6)
    assert bool(theta.isfinite().all())


def test_dead_rows_stay_on_devices_too() -> None:
    for kind, fields, _ in CASES:
        parts = parts_of(kind, fields)
        group = group_of(parts, torch.float32)
        runner = tiles.DeviceRows(group)
        theta = gradients(torch.float32)[0].clone()
        runner.step(theta, gradients(torch.float32)[1], now_at(1, parts))
        before = [theta[2].clone(), *(slot[2].clone() for slot in group.slots.values())]
        grad = gradients(torch.float32)[2].clone()
        grad[2] = torch.nan
        runner.step(theta, grad, now_at(2, parts, [True, True, False, True, True]))
        assert same([theta[2], *(slot[2] for slot in group.slots.values())], before), kind
        assert bool(theta.isfinite().all()), kind


def test_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that devices take, with nothing read back, tried on the CPU: all kinds, dead rows,
    looks ahead."""
    parts = [part(kind, **fields) for kind, fields, _ in CASES]
    alive = torch.ones(len(parts), dtype=torch.bool)
    alive[::5] = False
    thetas = []
    for device in (False, True):
        if device:
            for module in ("optimizer", "fused", "ahead"):
                monkeypatch.setattr(f"ravine.optim.rows.{module}.on_host", lambda device: False)
        optimizer, theta = fresh(parts, torch.float64)
        advance(optimizer, theta, range(1, 8))
        before = theta.clone()
        advance(optimizer, theta, range(8, 11), alive)
        assert torch.equal(theta[~alive], before[~alive])
        thetas.append(theta)
    torch.testing.assert_close(*thetas, rtol=1e-11, atol=1e-11)


def test_state_comes_back_to_the_bit() -> None:
    parts = mixed()
    optimizer, theta = fresh(parts)
    advance(optimizer, theta, range(1, 6))
    stored = {name: array.clone() for name, array in optimizer.state().items()}
    again, other = fresh(parts)
    other.copy_(theta)
    again.load_state(stored)
    assert {n: tuple(a.shape) for n, a in again.state().items()} == {
        n: tuple(a.shape) for n, a in stored.items()
    }
    advance(optimizer, theta, range(6, 12))
    advance(again, other, range(6, 12))
    assert same(
        bits(optimizer, theta, list(range(len(parts)))), bits(again, other, list(range(len(parts))))
    )


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_keep_moves_every_slot_with_its_row(data: st.DataObject) -> None:
    parts = mixed()
    order = data.draw(st.permutations(range(len(parts))))
    rows = list(order[: data.draw(st.integers(1, len(parts)))])
    optimizer, theta = fresh(parts)
    advance(optimizer, theta, range(1, 6))
    expected = [bits(optimizer, theta, [row]) for row in rows]
    optimizer.keep(rows)
    theta = theta[rows].clone()
    assert all(same(bits(optimizer, theta, [i]), expected[i]) for i in range(len(rows)))
    assert [p.kind for p in optimizer.parts] == [parts[row].kind for row in rows]
    resumed, other = fresh([parts[row] for row in rows])
    other.copy_(theta)
    resumed.load_state({name: array.clone() for name, array in optimizer.state().items()})
    advance(optimizer, theta, range(6, 9))
    advance(resumed, other, range(6, 9))
    assert torch.equal(theta, other)


def test_reset_starts_a_row_afresh() -> None:
    parts = [part("adam"), part("sgd", momentum=0.9, lookahead=3), part("adam", lr=0.01)]
    optimizer, theta = fresh(parts)
    advance(optimizer, theta, range(1, 6))
    untouched = bits(optimizer, theta, [0])
    optimizer.reset([1, 2], [part("rmsprop"), parts[2]])
    assert same(bits(optimizer, theta, [0]), untouched)
    assert all(not x.any() for x in bits(optimizer, theta, [1, 2])[1:])
    assert [p.kind for p in optimizer.parts] == ["adam", "rmsprop", "adam"]


def test_grow_adds_fresh_rows() -> None:
    parts = mixed(6)
    optimizer, theta = fresh(parts)
    advance(optimizer, theta, range(1, 6))
    before = [bits(optimizer, theta, [row]) for row in range(len(parts))]
    optimizer.grow(parts[:3])
    theta = torch.cat([theta, theta[:3]])
    assert all(same(bits(optimizer, theta, [row]), before[row]) for row in range(len(parts)))
    assert all(
        not x.any() for x in bits(optimizer, theta, list(range(len(parts), len(parts) + 3)))[1:]
    )
    advance(optimizer, theta, range(6, 8))


def test_rows_of_different_ages() -> None:
    """A row that starts later goes as if it had started alone."""
    start = gradients(torch.float64)[0][:1]
    optimizer = RowOptimizer(
        [part("adam"), part("adam")], LAYOUT, device="cpu", dtype=torch.float64
    )
    theta, ages = start.repeat(2, 1), torch.tensor([1.0, 0.0], dtype=torch.float64)
    rates = torch.full((2,), 1e-3, dtype=torch.float64)
    ends = {}
    for _ in range(6):
        optimizer.step(theta, torch.sin(theta), rates, ages > 0, ages)
        ends |= {(row, int(ages[row])): theta[row].clone() for row in range(2)}
        ages += 1
    assert torch.equal(ends[0, 5], ends[1, 5])
    assert torch.equal(ends[1, 0], start[0])


def test_point_is_undone_to_the_bit() -> None:
    optimizer, theta = fresh([part("nesterov", gradient="ahead", lr=0.1), part("adam")])
    advance(optimizer, theta, range(1, 4))
    before = theta.clone()
    optimizer.point(theta)
    assert not torch.equal(theta[0], before[0])
    assert torch.equal(theta[1], before[1])
    none = torch.zeros(2, dtype=torch.bool)
    optimizer.step(
        theta,
        torch.full_like(theta, torch.nan),
        torch.ones(2, dtype=torch.float64),
        none,
        torch.ones(2),
    )
    assert torch.equal(theta, before)


def test_gradients_are_left_alone() -> None:
    for kind, fields, _ in CASES:
        parts = parts_of(kind, fields)
        optimizer, theta = fresh(parts)
        grad = gradients(torch.float32)[1]
        kept = grad.clone()
        ones = torch.ones(P, dtype=torch.float64)
        optimizer.step(theta, grad, 0.01 * ones, ones.bool(), ones)
        assert torch.equal(grad, kept), kind


def test_numbers_that_are_zero_in_some_rows() -> None:
    """Rows with and without momentum, decay, dampening: neighbours of one kind, different
    formulas."""
    fields = [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.5, "nesterov": False},
    ]
    parts = [part("sgd", lr=0.1, **f) for f in fields]
    optimizer, theta = fresh(parts, torch.float64)
    advance(optimizer, theta, range(1, 8))
    for row, alone in enumerate(parts):
        single, expected = fresh(parts, torch.float64)[1][row : row + 1].clone(), None
        expected = RowOptimizer([alone], LAYOUT, device="cpu", dtype=torch.float64)
        advance(expected, single, range(1, 8))
        torch.testing.assert_close(theta[row], single[0], rtol=1e-12, atol=1e-12)
    assert {name: tuple(slot.shape) for name, slot in optimizer.state().items()} == {
        "1.sgd.v": (1, LAYOUT.size),
        "3.sgd.v": (1, LAYOUT.size),
    }


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"0.sgd.v": torch.zeros(1, LAYOUT.size)}, "are not those of these rows"),
        ({"7.adam.m": torch.zeros(1, LAYOUT.size)}, "are not those of these rows"),
        (
            {"0.adam.m": torch.zeros(2, LAYOUT.size), "0.adam.v": torch.zeros(1, LAYOUT.size)},
            "these rows need",
        ),
    ],
)
def test_a_foreign_state_is_refused(arrays: dict[str, Tensor], message: str) -> None:
    optimizer, _ = fresh([part("adam")])
    with pytest.raises(RavineError, match=message):
        optimizer.load_state(arrays)
