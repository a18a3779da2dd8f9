"""Bias and variance against ln lambda, over resampled data sets.

Claim: Over resampled data sets a larger lambda raises the squared bias and lowers the variance; their sum has its
minimum between; with 100 times the data lambda hardly matters over most of that range.

To see it fail: ``SAMPLES = 2500``: variance, and with it the need for a penalty, is gone.
"""

import numpy as np

from ravine.gallery.drawing import COLOURS, DASHES, log_axis, panels

CENTRES, LAMBDAS, SAMPLES = np.linspace(0, 1, 24), np.exp(np.linspace(-8, 3, 23)), 25


def features(x):
    return np.exp(-((x[:, None] - CENTRES) ** 2) / (2 * 0.1**2))


def ridge(x, y, strength):
    f = features(x)
    return np.linalg.solve(f.T @ f + strength * np.eye(len(CENTRES)), f.T @ y)


def bias_variance(sets, samples, seed):
    """(bias)^2 and variance of ridge regression of sin(2 pi x) over data sets, for each lambda [2, lambdas]."""
    random, x = np.random.default_rng(seed), np.linspace(0, 1, 100)
    fits = np.zeros((sets, len(LAMBDAS), len(x)))
    for i in range(sets):
        seen = random.random(samples)
        y = np.sin(2 * np.pi * seen) + random.normal(0, 0.3, samples)
        fits[i] = [features(x) @ ridge(seen, y, strength) for strength in LAMBDAS]
    bias = ((fits.mean(0) - np.sin(2 * np.pi * x)) ** 2).mean(1)
    return bias, fits.var(0).mean(1)


def draw(item):
    seeds, sets = range(item.size(20, 12)), item.size(60, 40)
    few = np.array([bias_variance(sets, SAMPLES, s) for s in seeds])  # [S, 2, lambdas]
    many = np.array([bias_variance(item.size(12, 8), 100 * SAMPLES, s) for s in seeds])
    bias, variance, total = few[:, 0], few[:, 1], few.sum(1)
    item.claim(
        "log10 of (bias)^2 at the largest / at the smallest lambda",
        np.log10(bias[:, -1] / bias[:, 0]),
        above=0.5,
    )
    item.claim(
        "rank correlation of the variance with lambda", [_ranks(v) for v in variance], below=-0.9
    )
    ends = np.minimum(total[:, 0], total[:, -1])
    item.claim("sum at the lower of its ends / at its minimum", ends / total.min(1), above=1.5)
    at = LAMBDAS.searchsorted(np.exp(-6)), LAMBDAS.searchsorted(1)
    lost = [(found.sum(1)[:, at[0]] - found.sum(1)[:, at[1]]) for found in (few, many)]
    item.claim("error lost at ln lambda = -6 against 0, 25 samples", lost[0], above=0.01)
    item.claim("the same with 2500 samples", lost[1], above=-0.002, below=0.002)

    figure, axes = panels(1, 2, 4.2, 3.2)
    for box, found, samples in zip(axes, (few, many), (SAMPLES, 100 * SAMPLES), strict=True):
        lines = {"(bias)²": found[:, 0], "variance": found[:, 1], "sum": found.sum(1)}
        for i, (name, values) in enumerate(lines.items()):
            box.plot(np.log(LAMBDAS), values.mean(0), color=COLOURS[i], ls=DASHES[i], label=name)
        box.set(
            xlabel="ln lambda",
            ylabel="squared error",
            title=f"{samples} samples a data set",
            ylim=(1e-5, 1),
        )
        log_axis(box, "y")
        box.legend(loc="upper center", ncols=3)
    return figure


def _ranks(values):
    order = np.argsort(np.argsort(values))
    return float(np.corrcoef(order, np.arange(len(values)))[0, 1])
