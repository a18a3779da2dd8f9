"""The learning rate: too low, good, high, diverging.

Claim: A low rate learns slowly, a high one ends above the lowest loss, a higher one diverges; on a quadratic the edge
of divergence is 2 / lambda_max, lambda_max the largest curvature.

To see it fail: give ``path`` momentum 0.9: the edge moves to (1 + 0.9) times as far.
"""

import numpy as np
import torch

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, FAINT, log_axis, panels
from ravine.optim.descent import path

RATES = {"too low": 0.0005, "good": 0.03, "high": 0.35, "diverges": 0.8}


def edge(seed, size=10):
    """The rate between descents that shrink and that grow, over 2 / lambda_max."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(size, size)))
    values = random.uniform(0.1, 10, size)
    q = torch.tensor((turn * values) @ turn.T)
    low, high = 0.5 / values.max(), 8 / values.max()
    for _ in range(12):  # bisection
        rate = (low + high) / 2
        points = path("sgd", lambda w: q @ w, random.normal(size=size), 400, lr=rate)
        low, high = (rate, high) if points[-1].norm() < points[200].norm() else (low, rate)
    return rate / (2 / values.max())


def draw(item):
    seeds = range(item.size(10, 5))
    edges = [edge(seed) for seed in seeds]
    item.claim("edge of divergence / (2 / lambda_max)", edges, above=0.98, below=1.02)

    random = np.random.default_rng(0)
    x = random.normal(size=(1000, 10)).astype(np.float32)
    y = (x @ random.normal(size=10) + random.normal(0, 0.5, 1000)).astype(np.float32)
    recipe = ravine.Recipe(
        model="linear",
        data={"batch": 16},
        optimizer="sgd",
        stop={"after": f"{item.size(16, 8)}ep", "on_trouble": "report"},
    )
    runs = ravine.train_many(
        [recipe.edit({"optimizer.lr": lr, "seed": s}) for lr in RATES.values() for s in seeds],
        data=(x, y),
        out=item.out(),
        quiet=True,
    )
    losses = np.array([run.losses for run in runs]).reshape(len(RATES), len(seeds), -1)
    part = losses.shape[-1] // 5
    last = np.nan_to_num(losses[..., -part:].mean(-1), nan=1e9).clip(max=1e9)  # [rates, S]
    item.claim("last loss, too low / good", last[0] / last[1], above=2)
    item.claim("last loss, high / good", last[2] / last[1], above=1.2)
    item.claim("last loss, diverging / first loss", last[3] / losses[3, :, 0], above=100)

    figure, (course, edge_axes) = panels(1, 2, 4.2, 3.2)
    for i, (name, lr) in enumerate(RATES.items()):
        smooth = losses[i, :, : losses.shape[-1] // 20 * 20].reshape(len(seeds), -1, 20).mean(-1)
        middle = np.nan_to_num(np.median(smooth, 0), nan=1e30, posinf=1e30)
        x = 20 * np.arange(len(middle))
        course.plot(x, middle, color=COLOURS[i], ls=DASHES[i], label=f"{name}: {lr:g}")
    log_axis(course, "y")
    course.set(
        xlabel="step",
        ylabel="training loss",
        ylim=(0.1, 1e5),
        title=f"linear regression, median of {len(seeds)} seeds",
    )
    course.legend()
    rates = np.linspace(0.1, 1.3, 61)
    q = torch.tensor([1.0, 25.0], dtype=torch.float64)
    ends = [
        float(path("sgd", lambda w: q * w, [1.0, 1.0], 60, lr=r * 2 / 25)[-1].norm()) for r in rates
    ]
    edge_axes.plot(rates, ends, color=COLOURS[0])
    edge_axes.axvline(1, color=COLOURS[1], ls="--", label="2 / lambda_max")
    edge_axes.plot([1], [1], " ", label=f"measured: {np.mean(edges):.3f}")
    log_axis(edge_axes, "y")
    edge_axes.set(
        xlabel="rate / (2 / lambda_max)", ylabel="distance after 60 steps", title="a quadratic"
    )
    edge_axes.axhline(2**0.5, color=FAINT, lw=0.8)
    edge_axes.legend()
    return figure
