"""Constraints: projections onto the set, the nearest point of it, by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from descents import LAYOUT
from ravine.catalogue import find, make, table
from ravine.layout import Layout
from ravine.optim.rows.projections import RowConstraints

CASES: list[tuple[str, dict[str, Any]]] = [
    ("max_norm", {"limit": 1.0}),
    ("unit_norm", {}),
    *[
        (kind, {"radius": 1.0, "over": over})
        for kind in ("l1_ball", "l2_ball")
        for over in ("all", "tensor", "unit")
    ],
]
IDS = [f"{kind}-{fields.get('over', 'unit')}" for kind, fields in CASES]


def rows(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(
        3, LAYOUT.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )


def vectors(row: Tensor, kind: str, fields: dict[str, Any]) -> list[Tensor]:
    """What one row's norms are taken over."""
    over = fields.get("over", "unit")
    if over == "all":
        return [row[: LAYOUT.weights]]
    weights = [row[e.start : e.stop].view(e.shape) for e in LAYOUT.entries if e.kind == "weight"]
    return (
        [w.flatten() for w in weights]
        if over == "tensor"
        else [unit for w in weights for unit in w]
    )


def in_ball(v: Tensor, order: int, radius: float) -> Tensor:
    """The nearest point of a ball, by bisection on the Lagrange multiplier."""
    if v.norm(order) <= radius:
        return v
    if order == 2:
        return v * radius / v.norm()
    low, high = 0.0, float(v.abs().max())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (v.abs() - middle).clamp(min=0).sum() > radius else (low, middle)
        )
    return v.sign() * (v.abs() - low).clamp(min=0)


def expected(v: Tensor, kind: str, radius: float) -> Tensor:
    return (
        v / v.norm() if kind == "unit_norm" else in_ball(v, 1 if kind == "l1_ball" else 2, radius)
    )


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=IDS)
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_nearest_point(kind: str, fields: dict[str, Any], scale: float) -> None:
    project = find("constraint", kind).function()
    w = rows(scale)
    project(w, LAYOUT, **fields)
    for before, after in zip(rows(scale), w, strict=True):
        pairs = zip(vectors(before, kind, fields), vectors(after, kind, fields), strict=True)
        for old, new in pairs:
            torch.testing.assert_close(new, expected(old, kind, 1.0), rtol=1e-10, atol=1e-12)
        assert torch.equal(after[LAYOUT.weights :], before[LAYOUT.weights :])
    again = w.clone()
    project(again, LAYOUT, **fields)
    torch.testing.assert_close(again, w, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=IDS)
def test_zero_weights_stay(kind: str, fields: dict[str, Any]) -> None:
    w = torch.zeros(2, LAYOUT.size)
    find("constraint", kind).function()(w, LAYOUT, **fields)
    assert torch.equal(w, torch.zeros_like(w))


def test_each_row_has_its_own() -> None:
    parts = [
        make("constraint", {"kind": "max_norm", "limit": 0.5}),
        None,
        make("constraint", {"kind": "l1_ball", "radius": 2.0}),
        make("constraint", {"kind": "max_norm", "limit": 1.5}),
        make("constraint", {"kind": "l1_ball", "radius": 3.0, "over": "unit"}),
        make("constraint", "unit_norm"),
    ]
    theta = torch.randn(
        6, LAYOUT.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    alive = torch.tensor([True] * 5 + [False])
    single = theta.clone()
    for i, part in enumerate(parts[:5]):
        if part is not None:
            find("constraint", part.kind).function()(single[i : i + 1], LAYOUT, **part.arguments)
    found = theta.clone()
    constraints = RowConstraints(parts, LAYOUT, device="cpu")
    constraints.apply(found, alive)
    torch.testing.assert_close(found, single, rtol=1e-14, atol=0)
    assert torch.equal(found[[1, 5]], theta[[1, 5]])
    constraints.keep([4, 0])
    kept = theta[[4, 0]].clone()
    constraints.apply(kept, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(kept, single[[4, 0]], rtol=1e-14, atol=0)


def test_every_constraint_is_tested() -> None:
    assert {kind for kind, _ in CASES} == set(table("constraint"))


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=IDS)
def test_units_of_untied_convolutions(kind: str, fields: dict[str, Any]) -> None:
    """Each position and channel is a unit of its own: as a dense layer of as many units."""
    from ravine.nn.build import layout

    built = find("layer", "locally_connected").function()((1, 4, 4), channels=3, kernel=3)
    untied = layout(built.double())
    dense = Layout.of([("weight", (12, 9), "weight", 0), ("bias", (12,), "bias", 0)])
    start = torch.randn(2, untied.size, generator=torch.Generator().manual_seed(0)).double()
    found, expected = start.clone(), start.clone()
    for theta, places in ((found, untied), (expected, dense)):
        part = make("constraint", {"kind": kind, **fields})
        RowConstraints([part] * 2, places, device="cpu").apply(theta, torch.ones(2).bool())
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)
    assert not torch.equal(found, start)
