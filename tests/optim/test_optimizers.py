"""Every optimiser, 100 steps in float64, against PyTorch's own or the paper's algorithm written
down plainly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from descents import LAYOUT, STEPS, Update, by_hand, by_torch, part, population, problem
from ravine.catalogue import table
from ravine.optim.rows.optimizer import RowOptimizer

# --- references that PyTorch does not have, for one tensor: (w, g, memory, t, lr, decay, is_weight) -> new w ---


def velocity_with_lr(momentum: float) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        memory["v"] = momentum * memory["v"] - lr * (g + decay * w)
        return w + memory["v"]

    return update


def nesterov_ahead(momentum: float) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        there = w + momentum * memory["v"]
        memory["v"] = momentum * memory["v"] - lr * (g + decay * there)
        return w + memory["v"]

    return update


def adam_plain(beta1: float, beta2: float, *, never_falling: bool = False) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        g = g + decay * w
        memory["m"] = beta1 * memory.get("m", 0.0) + (1 - beta1) * g
        memory["s"] = beta2 * memory.get("s", 0.0) + (1 - beta2) * g**2
        memory["top"] = torch.maximum(memory["s"], memory.get("top", torch.zeros_like(w)))
        return w - lr * memory["m"] / (
            (memory["top"] if never_falling else memory["s"]).sqrt() + 1e-8
        )

    return update


def adamw_paper(lr_alone: float) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        eta = lr / lr_alone
        memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
        memory["s"] = 0.999 * memory.get("s", 0.0) + 0.001 * g**2
        mean, square = memory["m"] / (1 - 0.9**t), memory["s"] / (1 - 0.999**t)
        return w - eta * (lr_alone * mean / (square.sqrt() + 1e-8) + decay * w)

    return update


def adagrad_inside(eps: float) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        g = g + decay * w
        memory["s"] = memory.get("s", 0.0) + g**2
        return w - lr * g / (memory["s"] + eps).sqrt()

    return update


def adagrad_no_root(eps: float) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        g = g + decay * w
        memory["s"] = memory.get("s", 0.0) + g**2
        return w - lr * g / (memory["s"] + eps)

    return update


def adam_with(below: Callable[[Tensor], Tensor]) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        g = g + decay * w
        memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
        memory["s"] = 0.999 * memory.get("s", 0.0) + 0.001 * g**2
        return w - lr * memory["m"] / (1 - 0.9**t) / below(memory["s"] / (1 - 0.999**t))

    return update


def rmsprop_with(below: Callable[[Tensor], Tensor]) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        g = g + decay * w
        memory["s"] = 0.9 * memory.get("s", 0.0) + 0.1 * g**2
        return w - lr * g / below(memory["s"])

    return update


def lars_paper(
    momentum: float, trust: float, *, exclude: bool = True, plain: bool = False
) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        local = 1.0
        if is_weight or not exclude:
            local = (
                w.norm() / g.norm() if plain else trust * w.norm() / (g.norm() + decay * w.norm())
            )
        memory["v"] = momentum * memory["v"] + lr * local * (g + decay * w)
        return w - memory["v"]

    return update


def lamb_paper(beta1: float, beta2: float, *, exclude: bool = True, correct: bool = True) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        memory["m"] = beta1 * memory.get("m", 0.0) + (1 - beta1) * g
        memory["s"] = beta2 * memory.get("s", 0.0) + (1 - beta2) * g**2
        mean, square = (
            (memory["m"] / (1 - beta1**t), memory["s"] / (1 - beta2**t))
            if correct
            else (memory["m"], memory["s"])
        )
        step = mean / (square.sqrt() + 1e-6) + decay * w
        return w - lr * (w.norm() / step.norm() if is_weight or not exclude else 1.0) * step

    return update


def lookahead_around(inner: Update, k: int, alpha: float) -> Update:
    def update(w, g, memory, t, lr, decay, is_weight):
        slow = memory.setdefault("slow", w)
        w = inner(w, g, memory, t, lr, decay, is_weight)
        if t % k == 0:
            memory["slow"] = slow + alpha * (w - slow)
            w = memory["slow"]
        return w

    return update


def sgd_plain(w, g, memory, t, lr, decay, is_weight):
    return w - lr * (g + decay * w)


# --- the table: (kind, fields, reference of (weight_decay, norm)) ---

Reference = Callable[[float, float], Tensor]


def torch_case(
    kind: str, optimizer: Any, lr: float, ours: dict[str, Any], theirs: dict[str, Any]
) -> Any:
    return (
        kind,
        {"lr": lr, **ours},
        cache(lambda decay, norm: by_torch(optimizer, decay, norm, lr=lr, **theirs)),
    )


def hand_case(kind: str, update: Update, lr: float, ahead: float = 0.0, **ours: Any) -> Any:
    return (
        kind,
        {"lr": lr, **ours},
        cache(lambda decay, norm: by_hand(update, decay, norm, lr, ahead)),
    )


O = torch.optim  # noqa: E741
BETAS = {"beta1": 0.8, "beta2": 0.95}, {"betas": (0.8, 0.95)}
CASES = [
    torch_case("sgd", O.SGD, 0.05, {}, {}),
    torch_case("sgd", O.SGD, 0.02, {"momentum": 0.9}, {"momentum": 0.9}),
    torch_case(
        "sgd", O.SGD, 0.02, {"momentum": 0.8, "dampening": 0.3}, {"momentum": 0.8, "dampening": 0.3}
    ),
    torch_case(
        "sgd", O.SGD, 0.01, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}
    ),
    torch_case("momentum", O.SGD, 0.02, {}, {"momentum": 0.9}),
    torch_case("momentum", O.SGD, 0.05, {"momentum": 0.5}, {"momentum": 0.5}),
    torch_case("momentum", O.SGD, 0.05, {"momentum": 0.0}, {}),
    hand_case("momentum", velocity_with_lr(0.9), 0.02, lr_in="velocity"),
    hand_case("momentum", velocity_with_lr(0.6), 0.05, lr_in="velocity", momentum=0.6),
    torch_case("nesterov", O.SGD, 0.02, {}, {"momentum": 0.9, "nesterov": True}),
    torch_case("nesterov", O.SGD, 0.05, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}),
    hand_case("nesterov", nesterov_ahead(0.9), 0.02, ahead=0.9, gradient="ahead"),
    hand_case("nesterov", nesterov_ahead(0.5), 0.05, ahead=0.5, gradient="ahead", momentum=0.5),
    torch_case("rprop", O.Rprop, 0.01, {}, {}),
    torch_case("rprop", O.Rprop, 0.1, {"eta_minus": 0.4, "eta_plus": 1.3}, {"etas": (0.4, 1.3)}),
    torch_case(
        "rprop", O.Rprop, 0.02, {"step_min": 1e-3, "step_max": 0.05}, {"step_sizes": (1e-3, 0.05)}
    ),
    torch_case("adagrad", O.Adagrad, 0.1, {}, {}),
    torch_case(
        "adagrad", O.Adagrad, 0.2, {"lr_decay": 0.01, "eps": 1e-3}, {"lr_decay": 0.01, "eps": 1e-3}
    ),
    torch_case("adagrad", O.Adagrad, 0.2, {"initial": 0.5}, {"initial_accumulator_value": 0.5}),
    hand_case("adagrad", adagrad_inside(1e-2), 0.1, eps=1e-2, eps_in="inside"),
    hand_case("adagrad", adagrad_no_root(0.1), 0.1, eps=0.1, eps_in="no_root"),
    torch_case("adadelta", O.Adadelta, 1.0, {}, {}),
    torch_case("adadelta", O.Adadelta, 0.5, {"rho": 0.95}, {"rho": 0.95}),
    torch_case("adadelta", O.Adadelta, 2.0, {"rho": 0.8, "eps": 1e-4}, {"rho": 0.8, "eps": 1e-4}),
    torch_case("rmsprop", O.RMSprop, 0.01, {}, {}),
    torch_case(
        "rmsprop", O.RMSprop, 0.01, {"momentum": 0.9, "alpha": 0.9}, {"momentum": 0.9, "alpha": 0.9}
    ),
    torch_case(
        "rmsprop",
        O.RMSprop,
        0.005,
        {"centered": True, "eps": 1e-3},
        {"centered": True, "eps": 1e-3},
    ),
    torch_case(
        "rmsprop",
        O.RMSprop,
        0.002,
        {"centered": True, "momentum": 0.5, "eps": 1e-2},
        {"centered": True, "momentum": 0.5, "eps": 1e-2},
    ),
    hand_case(
        "rmsprop",
        rmsprop_with(lambda s: (s + 0.01).sqrt()),
        0.01,
        alpha=0.9,
        eps=0.01,
        eps_in="inside",
    ),
    hand_case(
        "rmsprop", rmsprop_with(lambda s: s + 0.1), 0.01, alpha=0.9, eps=0.1, eps_in="no_root"
    ),
    torch_case("adam", O.Adam, 0.02, {}, {}),
    torch_case("adam", O.Adam, 0.05, *BETAS),
    torch_case(
        "adam", O.Adam, 0.05, {"eps": 1e-1, "beta1": 0.0}, {"eps": 1e-1, "betas": (0.0, 0.999)}
    ),
    hand_case("adam", adam_plain(0.9, 0.999), 0.002, bias_correction=False),
    hand_case("adam", adam_with(lambda s: (s + 1e-3).sqrt()), 0.02, eps=1e-3, eps_in="inside"),
    hand_case("adam", adam_with(lambda s: s + 0.1), 0.01, eps=0.1, eps_in="no_root"),
    torch_case("amsgrad", O.Adam, 0.02, {}, {"amsgrad": True}),
    torch_case("amsgrad", O.Adam, 0.05, BETAS[0], {**BETAS[1], "amsgrad": True}),
    torch_case("amsgrad", O.Adam, 0.05, {"eps": 1e-2}, {"eps": 1e-2, "amsgrad": True}),
    hand_case(
        "amsgrad",
        adam_plain(0.9, 0.99, never_falling=True),
        0.01,
        beta2=0.99,
        bias_correction=False,
    ),
    torch_case("adamw", O.AdamW, 0.02, {}, {}),
    torch_case("adamw", O.AdamW, 0.05, *BETAS),
    torch_case("adamw", O.AdamW, 0.05, {"eps": 1e-2}, {"eps": 1e-2}),
    hand_case("adamw", adamw_paper(0.02), 0.02, decay_by="schedule"),
    torch_case("adamax", O.Adamax, 0.02, {}, {}),
    torch_case("adamax", O.Adamax, 0.05, *BETAS),
    torch_case("adamax", O.Adamax, 0.05, {"eps": 1e-2}, {"eps": 1e-2}),
    torch_case("nadam", O.NAdam, 0.01, {}, {}),
    torch_case(
        "nadam",
        O.NAdam,
        0.02,
        {**BETAS[0], "momentum_decay": 0.05, "eps": 1e-2},
        {**BETAS[1], "momentum_decay": 0.05, "eps": 1e-2},
    ),
    torch_case("nadam", O.NAdam, 0.02, {"momentum_decay": 0.0}, {"momentum_decay": 0.0}),
    torch_case("nadam", O.NAdam, 0.02, {"decoupled": True}, {"decoupled_weight_decay": True}),
    torch_case("radam", O.RAdam, 0.02, {}, {}),
    torch_case("radam", O.RAdam, 0.05, *BETAS),
    torch_case("radam", O.RAdam, 0.02, {"beta2": 0.6}, {"betas": (0.9, 0.6)}),
    torch_case("radam", O.RAdam, 0.02, {"decoupled": True}, {"decoupled_weight_decay": True}),
    hand_case("lars", lars_paper(0.9, 0.01), 0.5, trust=0.01),
    hand_case(
        "lars", lars_paper(0.5, 0.02, exclude=False), 0.3, trust=0.02, momentum=0.5, exclude=False
    ),
    hand_case("lars", lars_paper(0.9, 1.0, plain=True), 0.003, ratio="plain"),
    hand_case("lars", lars_paper(0.0, 0.02), 0.5, trust=0.02, momentum=0.0),
    hand_case("lamb", lamb_paper(0.9, 0.999), 0.01),
    hand_case("lamb", lamb_paper(0.8, 0.95, exclude=False), 0.02, exclude=False, **BETAS[0]),
    hand_case(
        "lamb", lamb_paper(0.9, 0.99, correct=False), 0.01, beta2=0.99, bias_correction=False
    ),
    hand_case("sgd", lookahead_around(sgd_plain, 5, 0.5), 0.05, lookahead=5),
    hand_case(
        "momentum",
        lookahead_around(velocity_with_lr(0.9), 7, 0.8),
        0.02,
        lr_in="velocity",
        lookahead=7,
        lookahead_alpha=0.8,
    ),
    hand_case(
        "adam",
        lookahead_around(adam_plain(0.9, 0.999), 3, 0.3),
        0.002,
        bias_correction=False,
        lookahead=3,
        lookahead_alpha=0.3,
    ),
]
IDS = [f"{kind}-{'-'.join(f'{k}={v}' for k, v in fields.items())}" for kind, fields, _ in CASES]


def decays(kind: str, fields: dict[str, Any]) -> float:
    if kind == "rprop":
        return 0.0
    return 0.01 if fields.get("decay_by") == "schedule" else 0.1


def ours(kind: str, fields: dict[str, Any], decay: float) -> Any:
    return part(kind, **fields, **({} if kind == "rprop" else {"weight_decay": decay}))


@pytest.mark.parametrize(("kind", "fields", "reference"), CASES, ids=IDS)
@pytest.mark.parametrize(
    ("decayed", "norm"), [(False, 0.0), (True, 2.0)], ids=["plain", "decay-clip"]
)
def test_alone(
    kind: str, fields: dict[str, Any], reference: Reference, decayed: bool, norm: float
) -> None:
    decay = decays(kind, fields) * decayed
    found, expected = population([ours(kind, fields, decay)], norm)[0], reference(decay, norm)
    assert bool(expected.isfinite().all())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("decayed", [False, True], ids=["", "decay"])
@pytest.mark.parametrize("norm", [0.0, 2.0], ids=["", "clip"])
def test_together(decayed: bool, norm: float) -> None:
    """All of them as one population, every kind next to every other."""
    parts = [ours(kind, fields, decays(kind, fields) * decayed) for kind, fields, _ in CASES]
    theta = population(parts, norm)
    for row, (kind, fields, reference) in enumerate(CASES):
        expected = reference(decays(kind, fields) * decayed, norm)
        torch.testing.assert_close(
            theta[row], expected, rtol=1e-10, atol=1e-10, msg=lambda m, row=row: IDS[row] + m
        )


@pytest.mark.parametrize("tile", [7, 64])
def test_tiles(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into tiles that no tensor's edge meets, and into blocks of two rows, every formula gives
    the same."""
    parts = [ours(kind, fields, decays(kind, fields)) for kind, fields, _ in CASES]
    expected = population(parts, steps=20)
    for module in ("rows.tiles", "rows.optimizer", "layerwise"):
        monkeypatch.setattr(f"ravine.optim.{module}.TILE", tile)
    monkeypatch.setattr("ravine.optim.rows.optimizer.fits", lambda group: False)
    doubled = population([p for p in parts for _ in range(3)], steps=20)
    torch.testing.assert_close(doubled, expected.repeat_interleave(3, 0), rtol=1e-11, atol=1e-11)


def test_every_kind_has_three_settings() -> None:
    counted = {kind: sum(case[0] == kind for case in CASES) for kind in table("optimizer")}
    assert all(count >= 3 for count in counted.values()), counted


def test_decay_on_all_parameters() -> None:
    found = population(
        [
            part("sgd", lr=0.05, weight_decay=0.1, decay="all"),
            part("sgd", lr=0.05, weight_decay=0.1),
        ]
    )
    everywhere = by_hand(
        lambda w, g, m, t, lr, d, is_weight: w - lr * (g + 0.1 * w), 0.0, 0.0, 0.05
    )
    weights_only = by_hand(sgd_plain, 0.1, 0.0, 0.05)
    torch.testing.assert_close(
        found, torch.stack([everywhere, weights_only]), rtol=1e-10, atol=1e-10
    )


def test_two_forms_of_nesterov_agree_at_constant_rate() -> None:
    """PyTorch's form follows the points ahead of Nesterov's own."""
    from ravine.optim.descent import path

    gradient = lambda w: torch.tensor([1.0, 10.0], dtype=w.dtype) * w  # noqa: E731
    own = path("nesterov", gradient, [1.0, 1.0], 30, lr=0.02, momentum=0.9, gradient="ahead")
    here = path("nesterov", gradient, [1.0, 1.0], 30, lr=0.02, momentum=0.9)
    ahead = own[1:] + 0.9 * (own[1:] - own[:-1])
    torch.testing.assert_close(here[1:], ahead, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["lars", "lamb"])
def test_zero_weights_and_gradients_are_no_trouble(kind: str) -> None:
    from ravine.optim.descent import path

    points = path(kind, lambda w: 0 * w, [0.0, 0.0], 3)
    assert torch.equal(points, torch.zeros(4, 2, dtype=torch.float64))


@pytest.fixture
def jax64() -> Iterator[Any]:
    """JAX in float64, and afterwards as other tests of this process want it."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", before)


def test_optax_agrees(jax64: Any) -> None:
    """LAMB, LARS without decay, and Lookahead against an implementation by others."""
    optax, jax = pytest.importorskip("optax"), jax64
    from descents import problem, rate, split

    def run(make: Callable[[Any], Any], lr: float, lookahead: bool = False) -> Tensor:
        start, gradient = problem()
        optimizer = make(
            lambda count: lr * (1 + 0.5 * jax.numpy.sin((count.astype(float) + 1) / 9))
        )
        params = [jax.numpy.asarray(p.numpy()) for p in split(start)]
        params = optax.LookaheadParams(fast=params, slow=params) if lookahead else params
        state = optimizer.init(params)
        for t in range(1, STEPS + 1):
            assert math.isclose(rate(lr, t), lr * (1 + 0.5 * math.sin(t / 9)))
            fast = params.fast if lookahead else params
            grads = split(gradient(torch.cat([torch.tensor(jax.device_get(p)) for p in fast])))
            updates, state = optimizer.update(
                [jax.numpy.asarray(g.numpy()) for g in grads], state, params
            )
            params = optax.apply_updates(params, updates)
        return torch.cat(
            [torch.tensor(jax.device_get(p)) for p in (params.slow if lookahead else params)]
        )

    weights = [e.kind == "weight" for e in LAYOUT.entries]
    lamb = run(lambda lr: optax.lamb(lr, weight_decay=0.1, mask=weights), 0.02)
    lars = run(
        lambda lr: optax.lars(lr, trust_coefficient=0.01, trust_ratio_mask=weights, momentum=0.9),
        0.5,
    )
    slow = run(
        lambda lr: optax.lookahead(optax.sgd(lr, momentum=0.9), sync_period=5, slow_step_size=0.5),
        0.02,
        True,
    )
    found = population(
        [
            part("lamb", lr=0.02, weight_decay=0.1, exclude=False),
            part("lars", lr=0.5, trust=0.01),
            part("momentum", lr=0.02, lookahead=5),
        ]
    )
    torch.testing.assert_close(found, torch.stack([lamb, lars, slow]), rtol=1e-10, atol=1e-10)


def test_rprop_starts_at_its_own_rate_behind_a_warm_up() -> None:
    """Whatever the schedule gives, alone and in a population; PyTorch's at a constant rate."""
    start, gradient = problem()
    parts = [part("rprop", lr=lr) for lr in (0.01, 0.05)]
    expected = torch.stack([_torch_rprop(start, gradient, p.lr) for p in parts])
    for rows in ([0], [1], [0, 1]):
        theta = start.repeat(len(rows), 1)
        optimizer = RowOptimizer(
            [parts[r] for r in rows], LAYOUT, device="cpu", dtype=torch.float64
        )
        for t in range(1, 21):
            lr = torch.tensor([parts[r].lr * min(1.0, (t - 1) / 5) for r in rows]).double()
            grad = torch.stack([gradient(row) for row in theta])
            alive, count = torch.ones(len(rows), dtype=torch.bool), torch.full((len(rows),), t)
            optimizer.step(theta, grad, lr, alive, count.double())
        torch.testing.assert_close(theta, expected[rows], rtol=1e-12, atol=1e-12)


def _torch_rprop(start: Tensor, gradient: Callable[[Tensor], Tensor], lr: float) -> Tensor:
    w = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Rprop([w], lr=lr, foreach=False)
    for _ in range(20):
        w.grad = gradient(w.detach())
        optimizer.step()
    return w.detach()


@pytest.mark.parametrize("kind", ["adam", "adamw", "amsgrad", "nadam", "radam", "adamax"])
def test_scheduled_beta1_as_torch_has_it(kind: str) -> None:
    """beta1 of each step is what a momentum schedule gives; alone, in a population, in tiles."""
    made = {"adam": O.Adam, "amsgrad": O.Adam, "adamw": O.AdamW, "nadam": O.NAdam}
    made |= {"radam": O.RAdam, "adamax": O.Adamax}
    betas = [0.95 - 0.1 * math.sin(t / 6) ** 2 for t in range(40)]
    start, gradient = problem()
    torch.set_default_dtype(torch.float64)  # in which NAdam keeps its product
    try:
        w = torch.nn.Parameter(start.clone())
        options = {"amsgrad": True} if kind == "amsgrad" else {}
        decay = {"weight_decay": 0.0}
        reference = made[kind]([w], lr=0.01, foreach=False, **options, **decay)
        for beta in betas:
            reference.param_groups[0]["betas"] = (beta, 0.999)
            w.grad = gradient(w.detach())
            reference.step()
    finally:
        torch.set_default_dtype(torch.float32)
    for count in (1, 3):
        theta = start.repeat(count, 1)
        parts = [part(kind, lr=0.01, **decay)] * count
        optimizer = RowOptimizer(parts, LAYOUT, device="cpu", dtype=torch.float64)
        for t, beta in enumerate(betas, 1):
            grad = torch.stack([gradient(row) for row in theta])
            lr, alive, step, momentum = (
                torch.full((count,), x, dtype=torch.float64) for x in (0.01, 1.0, t, beta)
            )
            optimizer.step(theta, grad, lr, alive.bool(), step, momentum)
        for row in theta:
            torch.testing.assert_close(row, w.detach(), rtol=1e-14, atol=1e-15)


def test_adaptive_optimisers_say_so() -> None:
    """Multiplying the loss by 1000 hardly changes their steps; it does change those of the others."""
    from ravine.optim.descent import path

    def slope(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda w: factor * torch.tensor([1.0, 10.0], dtype=w.dtype) * w

    for kind, technique in table("optimizer").items():
        steps = [path(kind, slope(k), [1.0, 1.0], 20, lr=1e-8) for k in (1.0, 1000.0)]
        alike = torch.allclose(*(s[-1] - s[-2] for s in steps), rtol=0.1, atol=0)
        own = kind in ("rprop", "lars")  # signs alone; a tensor's norm, not each parameter's
        assert alike == ("adaptive" in technique.marks or own), kind
