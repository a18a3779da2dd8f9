"""Batch, single-sample and minibatch gradient descent on a linear regression.

Claim: The noise of a gradient falls as 1/sqrt(B); a pass in minibatches brings the loss down where a pass in one
batch takes a single step; batches sorted by class undo each other, so the order must be shuffled.

To see it fail: set ``FEATURES`` so that all samples are nearly equal (scale 1e-3 for the noise): one sample then says
as much as all; or leave out the line ``train = train[…]`` that sorts by class.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

from ravine.gallery.drawing import COLOURS, DASHES, FAINT, MARKERS, band, log_axis, panels
from ravine.optim.descent import path

SAMPLES, SIZES = 512, (1, 4, 16, 64, 256)
draws = np.random.default_rng(0)
X = torch.tensor(draws.normal(0, (1.0, 0.5), (SAMPLES, 2)))  # [N, 2]
TRUE = torch.tensor([1.0, -2.0], dtype=torch.float64)
Y = X @ TRUE + torch.tensor(draws.normal(0, 0.5, SAMPLES))  # [N]


def loss(w):  # [..., 2] -> [...]
    return ((X @ w[..., None] - Y[:, None]) ** 2).mean(-2)[..., 0] / 2


def gradient(w, rows):
    x = X[rows]
    return x.T @ (x @ w - Y[rows]) / len(x)


def descend(batch, samples, lr, seed):
    """Points of a descent that sees so many samples."""
    random = np.random.default_rng(seed)
    rows = lambda: random.integers(0, SAMPLES, batch) if batch < SAMPLES else slice(None)  # noqa: E731
    return path("sgd", lambda w: gradient(w, rows()), [-2.0, 2.0], samples // batch, lr=lr)


def draw(item):
    seeds = range(item.size(20, 8))
    noise = np.array([[_noise(size, seed) for size in SIZES] for seed in seeds])  # [S, B]
    slopes = [np.polyfit(np.log(SIZES), np.log(row), 1)[0] for row in noise]
    item.claim("exponent of the gradient's noise in B", slopes, above=-0.55, below=-0.45)
    left = [
        float(loss(descend(16, SAMPLES, 0.3, s)[-1]) / loss(descend(SAMPLES, SAMPLES, 0.3, 0)[-1]))
        for s in seeds
    ]
    item.claim("loss after one pass, batches of 16 / one batch", left, below=0.5)

    accuracy = np.array(
        [[_after_a_pass(seed, by_class) for seed in seeds] for by_class in (False, True)]
    )  # [2, S]
    item.claim("accuracy lost by batches sorted by class", accuracy[0] - accuracy[1], above=0.1)

    figure, (plane, course, sizes, order) = panels(2, 2, 4.0, 3.0)
    a, b = np.meshgrid(np.linspace(-2.4, 1.8, 80), np.linspace(-2.9, 2.6, 80))
    plane.contour(
        a, b, loss(torch.tensor(np.stack([a, b], -1))).numpy(), 12, colors=FAINT, linewidths=0.4
    )
    for i, (batch, lr, label) in enumerate(
        [(1, 0.05, "one sample"), (16, 0.3, "16 samples"), (SAMPLES, 0.3, "all 512")]
    ):
        points = descend(batch, {1: 256, 16: 4 * SAMPLES}.get(batch, 20 * SAMPLES), lr, 1)
        plane.plot(
            *points[:256].T,
            color=COLOURS[i],
            ls=DASHES[i],
            lw=1,
            marker="o" if batch > 1 else "",
            ms=2,
            label=label,
        )
        seen = np.arange(len(points)) * batch
        course.plot(seen, loss(points), color=COLOURS[i], ls=DASHES[i], label=label)
    plane.plot(*TRUE, "*", color=COLOURS[3], mec="white", ms=12, zorder=5)
    plane.set(xlabel="weight 1", ylabel="weight 2", title="paths on the loss")
    course.legend(loc="center right")
    course.set(
        xlabel="samples seen", ylabel="loss", title="progress for the work", xlim=(0, 2 * SAMPLES)
    )
    log_axis(course, "y")
    band(sizes, SIZES, noise, "measured", 0, marker="o")
    sizes.plot(SIZES, noise[:, 0].mean() / np.sqrt(SIZES), color=FAINT, ls=":", label="1/sqrt(B)")
    log_axis(sizes, "x")
    log_axis(sizes, "y")
    sizes.set(
        xlabel="samples in a batch, B",
        ylabel="gradient's standard deviation",
        title="noise of the gradient",
    )
    sizes.legend()
    for i in range(2):
        order.plot([i] * len(seeds), 100 * accuracy[i], MARKERS[i], color=COLOURS[i])
    order.set(
        xticks=[0, 1],
        xticklabels=["shuffled", "sorted by class"],
        xlim=(-0.5, 1.5),
        ylabel="validation accuracy in %",
    )
    order.set(title=f"order of the samples, {len(seeds)} seeds", ylim=(0, 100))
    return figure


def _noise(size, seed, batches=300):
    random = np.random.default_rng([seed, size])
    w = torch.tensor([-2.0, 2.0], dtype=torch.float64)
    found = torch.stack([gradient(w, random.integers(0, SAMPLES, size)) for _ in range(batches)])
    return float((found - gradient(w, slice(None))).norm(dim=1).square().mean().sqrt())


def _after_a_pass(seed, by_class, batch=16):
    """Accuracy of a softmax regression on digits after a pass through the samples in batches."""
    x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    x, rows = x / 16, np.random.default_rng(seed).permutation(len(y))
    train, held = torch.tensor(rows[300:]), torch.tensor(rows[:300])
    if by_class:
        train = train[y[train].argsort(stable=True)]
    batches = iter(train.split(batch))

    def gradient_at(w):
        one = next(batches)
        wrong = (x[one] @ w.view(64, 10)).softmax(1) - torch.eye(10, dtype=w.dtype)[y[one]]
        return (x[one].T @ wrong / len(one)).flatten()

    w = path("sgd", gradient_at, [0.0] * 640, len(train) // batch, lr=0.5)[-1].view(64, 10)
    return float(((x[held] @ w).argmax(1) == y[held]).double().mean())
