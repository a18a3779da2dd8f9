"""Penalties: L1, L2, bias and variance against lambda, early stopping.

Claim: L1 makes weights exactly zero, L2 none; over resampled data sets a larger lambda raises the squared bias and
lowers the variance, and their sum has its minimum between; stopping early reaches what the best L2 penalty reaches;
with much data lambda hardly matters.

To see it fail: give 100 times the samples in place of 25: variance, and with it the need for a penalty, is gone.
"""

import numpy as np
import torch

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, log_axis, panels
from ravine.optim.descent import path

CENTRES, LAMBDAS = np.linspace(0, 1, 24), np.exp(np.linspace(-8, 3, 23))


def features(x):
    return np.exp(-((x[:, None] - CENTRES) ** 2) / (2 * 0.1**2))


def ridge(x, y, strength):
    f = features(x)
    return np.linalg.solve(f.T @ f + strength * np.eye(len(CENTRES)), f.T @ y)


def bias_variance(sets, samples=25):
    """(bias)^2 and variance of ridge regression of sin(2 pi x) over data sets, for each lambda [2, lambdas]."""
    random, x = np.random.default_rng(0), np.linspace(0, 1, 100)
    fits = np.zeros((sets, len(LAMBDAS), len(x)))
    for i in range(sets):
        seen = random.random(samples)
        y = np.sin(2 * np.pi * seen) + random.normal(0, 0.3, samples)
        fits[i] = [features(x) @ ridge(seen, y, strength) for strength in LAMBDAS]
    bias = ((fits.mean(0) - np.sin(2 * np.pi * x)) ** 2).mean(1)
    return bias, fits.var(0).mean(1)


def stopped_and_decayed(seed, samples=40, size=30):
    """The lowest test errors along descent and along lambda, for one linear regression."""
    random = np.random.default_rng(seed)
    w = random.normal(size=size) / size**0.5
    x = random.normal(size=(samples, size))
    y = x @ w + random.normal(0, 1, samples)
    tx, ty = torch.tensor(x), torch.tensor(y)
    points = path(
        "sgd", lambda v: tx.T @ (tx @ v - ty) / samples, [0.0] * size, 200, lr=0.1
    ).numpy()
    decayed = [
        np.linalg.solve(x.T @ x + s * np.eye(size), x.T @ y) for s in np.geomspace(0.1, 1000, 60)
    ]
    error = lambda v: ((v - w) ** 2).sum()  # noqa: E731
    return (
        min(map(error, points)),
        min(map(error, decayed)),
        error(np.linalg.lstsq(x, y, rcond=None)[0]),
    )


def draw(item):
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 40)).astype(np.float32)
    y = (x[:, :5].sum(1) + random.normal(0, 0.5, 400)).astype(np.float32)
    recipe = ravine.Recipe(
        model="linear",
        data={"batch": 40},
        optimizer={"kind": "sgd", "lr": 0.02},
        stop={"after": f"{item.size(100, 50)}ep"},
    )
    arms = {
        "L1": {"kind": "squared", "l1": 0.5, "l1_step": "proximal"},
        "L2": {"kind": "squared", "l2": 0.2},
    }
    seeds = item.size(5, 3)
    runs = ravine.train_many(
        [recipe.edit({"loss": loss, "seed": s}) for loss in arms.values() for s in range(seeds)],
        data=(x, y),
        out=item.out(),
        quiet=True,
    )
    weights = [
        next(p for p in run.model.parameters() if p.dim() == 2).detach().numpy().ravel()
        for run in runs
    ]
    zeros = np.array([(w[5:] == 0).mean() for w in weights]).reshape(2, seeds)
    item.claim("irrelevant weights that are exactly zero, L1", zeros[0], above=0.7)
    item.claim("the same, L2", zeros[1], below=0.01)
    bias, variance = bias_variance(item.size(300, 100))
    item.claim(
        "(bias)^2 at the largest / at the smallest lambda", float(bias[-1] / bias[0]), above=10
    )
    item.claim("rank correlation of the variance with lambda", _ranks(variance), below=-0.9)
    total = bias + variance
    item.claim(
        "bias + variance at the ends / at the minimum, the lower end",
        float(min(total[0], total[-1]) / total.min()),
        above=1.5,
    )
    much = sum(bias_variance(item.size(60, 30), 2500))
    item.claim(
        "the same range of lambda with 100 times the samples: error lost at ln lambda = 0",
        float(much[LAMBDAS.searchsorted(1)] - much.min()),
        below=0.005,
    )
    found = np.array([stopped_and_decayed(seed) for seed in range(item.size(40, 20))])
    item.claim(
        "lowest error, stopped early / best L2 penalty",
        found[:, 0] / found[:, 1],
        above=0.9,
        below=1.15,
    )
    item.claim("lowest error, stopped early / least squares", found[:, 0] / found[:, 2], below=0.7)

    figure, (sparse, course, equal) = panels(1, 3, 3.7, 3.2)
    for i, name in enumerate(arms):
        sparse.plot(
            np.sort(np.abs(weights[i * seeds]))[::-1] + 1e-9,
            color=COLOURS[i],
            ls=DASHES[i],
            marker="os"[i],
            ms=3,
            label=name,
        )
    sparse.set(
        xlabel="weights by size",
        ylabel="|weight|",
        title=f"5 of 40 matter; zeros: L1 {100 * zeros[0].mean():.0f} %, L2 0 %",
    )
    sparse.legend()
    for i, (name, values) in enumerate(
        {"(bias)²": bias, "variance": variance, "sum": total}.items()
    ):
        course.plot(np.log(LAMBDAS), values, color=COLOURS[i], ls=DASHES[i], label=name)
    course.set(xlabel="ln lambda", ylabel="squared error", title="ridge regression, resampled data")
    course.legend()
    equal.plot(found[:, 1], found[:, 0], "o", color=COLOURS[0], ms=4)
    ends = [found[:, :2].min(), found[:, :2].max()]
    equal.plot(ends, ends, color=COLOURS[6], ls=":")
    for axis in "xy":
        log_axis(equal, axis, ends)
    equal.set(
        xlabel="lowest error with an L2 penalty",
        ylabel="lowest error, stopped early",
        title=f"{len(found)} regressions",
    )
    return figure


def _ranks(values):
    order = np.argsort(np.argsort(values))
    return float(np.corrcoef(order, np.arange(len(values)))[0, 1])
