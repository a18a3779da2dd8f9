"""Optimisers on Beale's function, a saddle, a valley, and a slope that leads away.

Claim: On a saddle the adaptive optimisers, which divide by the size of the gradient, leave first and plain descent
last; where the slope leads away from the global minimum, every optimiser follows it.

To see it fail: set ``ALONG_RIDGE = 1.0``: off the ridge the gradient is not small, and plain descent leaves at once.
"""

import numpy as np
import torch

from ravine.gallery.drawing import COLOURS, DASHES, FAINT, panels
from ravine.optim.descent import path

ALONG_RIDGE = 1e-4  # how far from the saddle's ridge the descent begins
RATES = np.geomspace(1e-3, 1, 7)
ARMS = {
    "sgd": {"kind": "sgd"},
    "momentum": {"kind": "momentum"},
    "nesterov": {"kind": "nesterov"},
    "adagrad": {"kind": "adagrad"},
    "adadelta": {"kind": "adadelta"},
    "rmsprop": {"kind": "rmsprop", "alpha": 0.9},
    "adam": {"kind": "adam"},
}


def beale(w):
    x, y = w[..., 0], w[..., 1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def saddle(w):
    return w[..., 0] ** 2 - w[..., 1] ** 2


def valley(w):
    return w[..., 0] ** 2 / 100 + 4 * w[..., 1] ** 2


def leads_away(w):
    """A plateau that falls slowly to the right; the global minimum, at -2, lies behind a hill."""
    x = w[..., 0]
    return -2 * torch.exp(-((x + 2) ** 2)) + 0.8 * torch.exp(-(x**2)) - 0.05 * x


def descend(surface, start, steps, lr, kind, **fields):
    def gradient_at(w):
        w = w.clone().requires_grad_()
        return torch.autograd.grad(surface(w), w)[0].clamp(-1e3, 1e3)

    return path(kind, gradient_at, start, steps, lr=lr, **fields)


def best(surface, start, steps, fields):
    """The rate whose descent ends lowest and stays within 6."""
    paths = [(descend(surface, start, steps, lr, **fields), lr) for lr in RATES]
    return min(
        paths,
        key=lambda p: float(surface(p[0][-1])) if p[0].abs().max() < 6 + abs(start[0]) else np.inf,
    )


def draw(item):
    random = np.random.default_rng(0)
    count = item.size(8, 4)
    found = {name: best(beale, (1.0, 1.5), 120, fields) for name, fields in ARMS.items()}
    starts = [(1.0, ALONG_RIDGE * float(np.exp(random.normal(0, 0.5)))) for _ in range(count)]
    paths = {
        name: [
            descend(saddle, s, 200, 1.0 if name == "adadelta" else 0.05, **fields) for s in starts
        ]
        for name, fields in ARMS.items()
    }
    left = {name: np.array([_leaves(p) for p in group]) for name, group in paths.items()}
    for name in ("adagrad", "rmsprop", "adam"):
        item.claim(f"steps to leave the saddle, {name} / sgd", left[name] / left["sgd"], below=0.8)
    item.claim("steps to leave the saddle, momentum / sgd", left["momentum"] / left["sgd"], below=1)
    ends = [
        descend(leads_away, (1.0, 0.0), 300, 0.03, **fields)[-1, 0]
        for n, fields in ARMS.items()
        if n != "adadelta"
    ]
    item.claim(
        "optimisers that reach the global minimum behind the hill",
        float(np.mean(np.array(ends) < -1)),
        below=0.01,
    )

    figure, axes = panels(2, 2, 4.3, 3.2)
    boxes = {
        "Beale": (-0.5, 4, -1.5, 2),
        "saddle": (-1.2, 1.2, -1.5, 1.5),
        "valley": (-9, 2, -2, 2),
    }
    for box, (name, surface) in zip(
        axes, {"Beale": beale, "saddle": saddle, "valley": valley}.items(), strict=False
    ):
        x0, x1, y0, y1 = boxes[name]
        grid = np.stack(np.meshgrid(np.linspace(x0, x1, 90), np.linspace(y0, y1, 90)), -1)
        z = surface(torch.tensor(grid)).numpy()
        levels = np.geomspace(0.02, 100, 12) if name != "saddle" else np.linspace(-2, 2, 11)
        box.contour(grid[..., 0], grid[..., 1], z, levels=levels, colors=FAINT, linewidths=0.4)
        box.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="x", ylabel="y")
    shown = {}
    for i, (name, fields) in enumerate(ARMS.items()):
        line = {"color": COLOURS[i], "ls": DASHES[i], "label": name, "lw": 1.3}
        along = best(valley, (-8.0, 1.5), 60, fields)[0]
        for box, points in zip(axes, (found[name][0], paths[name][0], along), strict=False):
            box.plot(*points.T, **line)
        shown[name] = (line, paths[name][0])
    axes[0].set_title("Beale's function: 120 steps at the best rate")
    axes[1].set_title(f"a saddle, {ALONG_RIDGE:g} off the ridge, all at lr 0.05")
    axes[2].set_title("a long valley: 60 steps at the best rate")
    x = torch.linspace(-4, 4, 200, dtype=torch.float64)
    axes[3].plot(x, leads_away(x[:, None]), color=FAINT)
    for i, end in enumerate(ends):
        name = [n for n in ARMS if n != "adadelta"][i]
        place = torch.tensor([[min(float(end), 4.0)]], dtype=torch.float64)
        axes[3].plot(place[0], leads_away(place), "o", color=COLOURS[list(ARMS).index(name)], ms=5)
    axes[3].plot(
        [1.0], leads_away(torch.tensor([[1.0]])), "*", ms=9, color=COLOURS[6], label="start"
    )
    axes[3].set(xlabel="x", ylabel="f", title="a slope that leads away; dots: ends", xlim=(-4, 4.3))
    axes[3].legend(loc="upper right")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=7)
    item.animate(*_animation(shown))
    return figure


def _leaves(points):
    """The step at which the descent has left the ridge: |y| > 1."""
    off = (points[:, 1].abs() > 1).nonzero()
    return int(off[0]) if len(off) else len(points)


def _animation(shown, frames=50):
    """The race on the saddle: a figure, and a function that draws one frame of it."""
    figure, (axes,) = panels(1, 1, 4.6, 3.6)
    grid = np.stack(np.meshgrid(np.linspace(-1.2, 1.2, 60), np.linspace(-1.5, 1.5, 60)), -1)
    axes.contour(
        grid[..., 0],
        grid[..., 1],
        saddle(torch.tensor(grid)).numpy(),
        12,
        colors=FAINT,
        linewidths=0.4,
    )
    lines = {name: axes.plot([], [], **line)[0] for name, (line, _) in shown.items()}
    axes.set(xlabel="x", ylabel="y", xlim=(-1.2, 1.2), ylim=(-1.5, 1.5))
    axes.legend(loc="upper left", ncols=2)

    def frame(k):
        for name, (_, points) in shown.items():
            lines[name].set_data(*points[: 2 * k + 1].T)
        axes.set_title(f"a saddle, step {2 * k}")

    return figure, frame, frames
