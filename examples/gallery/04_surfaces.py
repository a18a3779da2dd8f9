"""Optimisers on Beale's function, a saddle, a valley, a plateau and a wall.

Claim: On a saddle the adaptive optimisers, which divide by the size of the gradient, leave first and plain descent
last, and on a plateau they alone get away; RMSProp forgets a steep wall and goes on in the bowl below, where Adagrad,
which adds up all gradients, has all but stopped; where the slope leads away from the global minimum, every optimiser follows it.

To see it fail: set ``ALONG_RIDGE = 1.0``: off the ridge the gradient is not small, and plain descent leaves at once.
"""

import numpy as np
import torch

from ravine.gallery.drawing import COLOURS, DASHES, FAINT, log_axis, panels
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


def plateau(w):
    """Flat at a distance: the gradient is under 1e-4 where the descents begin."""
    return 1 - torch.exp(-(w**2).sum(-1) / 2)


def wall(w):
    """A wall, and a bowl below it: the gradient falls from hundreds to nothing."""
    return (w**4).sum(-1) / 4


SURFACES = {"Beale": beale, "saddle": saddle, "valley": valley, "plateau": plateau}


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
    flat = [(float(4 * np.cos(a)), float(4 * np.sin(a))) for a in random.uniform(0, 6.28, count)]
    over = {
        name: [
            descend(plateau, s, 300, 1.0 if name == "adadelta" else 0.05, **fields) for s in flat
        ]
        for name, fields in ARMS.items()
    }
    below = {name: [float(plateau(p[-1])) for p in group] for name, group in over.items()}
    for name in ("adagrad", "rmsprop", "adam"):
        item.claim(f"height after 300 steps on a plateau of 1, {name}", below[name], below=0.8)
    item.claim("the same, sgd", below["sgd"], above=0.9)
    down = {
        name: np.array(
            [_height(wall, s, 200, 0.05, **ARMS[name]) for s in 6 + 4 * random.random(count)]
        )
        for name in ("adagrad", "rmsprop")
    }
    text = "log10 of the height after 200 steps below a wall, RMSProp / Adagrad"
    item.claim(text, np.log10(down["rmsprop"] / down["adagrad"]), below=-1)
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

    figure, axes = panels(2, 3, 3.6, 3.1)
    boxes = {
        "Beale": (-0.5, 4, -1.5, 2),
        "saddle": (-1.2, 1.2, -1.5, 1.5),
        "valley": (-9, 2, -2, 2),
        "plateau": (-1, 4.5, -1, 3.5),
    }
    titles = {
        "Beale": "Beale's function, best rates",
        "saddle": f"a saddle, {ALONG_RIDGE:g} off the ridge, lr 0.05",
        "valley": "a long valley, best rates",
        "plateau": "a plateau, lr 0.05",
    }
    shown = []  # of each surface: its name, and {optimiser: (line, points)}
    lines = {
        name: {"color": COLOURS[i], "ls": DASHES[i], "label": name, "lw": 1.3}
        for i, name in enumerate(ARMS)
    }
    paths_of = {
        "Beale": {name: found[name][0] for name in ARMS},
        "saddle": {name: group[0] for name, group in paths.items()},
        "valley": {n: best(valley, (-8.0, 1.5), 120, fields)[0] for n, fields in ARMS.items()},
        "plateau": {
            n: descend(plateau, (3.5, 2.0), 200, 1.0 if n == "adadelta" else 0.05, **fields)
            for n, fields in ARMS.items()
        },
    }
    for box, (name, surface) in zip(axes, SURFACES.items(), strict=False):
        _contours(box, surface, boxes[name])
        for arm, points in paths_of[name].items():
            box.plot(*points.T, **lines[arm])
        box.set_title(titles[name])
        shown.append((titles[name], surface, boxes[name], paths_of[name]))
    x = torch.linspace(-4, 4, 200, dtype=torch.float64)
    axes[4].plot(x, leads_away(x[:, None]), color=FAINT)
    for i, end in enumerate(ends):
        name = [n for n in ARMS if n != "adadelta"][i]
        place = torch.tensor([[min(float(end), 4.0)]], dtype=torch.float64)
        axes[4].plot(place[0], leads_away(place), "o", color=COLOURS[list(ARMS).index(name)], ms=5)
    axes[4].plot(
        [1.0], leads_away(torch.tensor([[1.0]])), "*", ms=9, color=COLOURS[6], label="start"
    )
    axes[4].set(xlabel="x", ylabel="f", title="a slope that leads away; dots: ends", xlim=(-4, 4.3))
    axes[4].legend(loc="upper right")
    for i, kind in enumerate(down):
        points = path(kind, lambda w: w**3, [8.0], 200, lr=0.05, **_fields(kind))
        axes[5].plot(wall(points), color=COLOURS[(3, 5)[i]], ls=DASHES[(3, 1)[i]], label=kind)
    log_axis(axes[5], "y")
    axes[5].set(xlabel="step", ylabel="height", title="down a wall into a bowl, lr 0.05")
    axes[5].legend()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=7)
    item.animate(*_animation(shown, lines))
    return figure


def _fields(kind):
    return {k: v for k, v in ARMS[kind].items() if k != "kind"}


def _height(surface, start, steps, lr, **fields):
    points = descend(surface, (float(start),), steps, lr, **fields)
    return max(float(surface(points[-1])), 1e-12)


def _leaves(points):
    """The step at which the descent has left the ridge: |y| > 1."""
    off = (points[:, 1].abs() > 1).nonzero()
    return int(off[0]) if len(off) else len(points)


def _contours(box, surface, place):
    x0, x1, y0, y1 = place
    grid = np.stack(np.meshgrid(np.linspace(x0, x1, 90), np.linspace(y0, y1, 90)), -1)
    z = surface(torch.tensor(grid)).numpy()
    low, high = z.min(), z.max()
    levels = np.linspace(low, high, 12) if high < 3 else np.geomspace(0.02, 100, 12)
    box.contour(grid[..., 0], grid[..., 1], z, levels=levels, colors=FAINT, linewidths=0.4)
    box.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="x", ylabel="y")


def _animation(shown, lines, frames=30):
    """The race on each surface: a figure, and a function that draws one frame of it."""
    figure, axes = panels(2, 2, 3.3, 2.7)
    moving = []
    for box, (title, surface, place, paths) in zip(axes, shown, strict=True):
        _contours(box, surface, place)
        box.set_title(title)
        moving += [(box.plot([], [], **lines[name])[0], points) for name, points in paths.items()]
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)

    def frame(k):
        for line, points in moving:
            line.set_data(*points[: 4 * k + 1].T)
        figure.supxlabel(f"step {4 * k}")

    return figure, frame, frames
