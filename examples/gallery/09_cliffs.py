"""A cliff, and clipping.

Claim: One step over a cliff throws plain descent far away; with the gradient clipped it stays and arrives. The gradient
through T steps of a linear recurrence grows as the T-th power of its largest eigenvalue. An exploding recurrent network
is thrown to where it answers with a constant, and learns at the same rate once its gradient is clipped.

To see it fail: ``SPECTRUM = 0.9``: recurrent weights that shrink need no clipping.
"""

import numpy as np
import torch

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, FAINT, band, log_axis, panels
from ravine.optim.descent import path

SPECTRUM, CLIP, TIMES, LENGTH = 1.3, 0.5, 30, 6
SPECTRA = (0.8, 1.0, 1.3)


def cliff(w):
    """(h_T - 1)^2 of h_t = w h_{t-1} + b through 30 steps of time, h_0 = 0.1: flat, then a wall."""
    h = torch.full_like(w[..., 0], 0.1)
    for _ in range(TIMES):
        h = w[..., 0] * h + w[..., 1]
    return (h - 1) ** 2


def descend(start, clip, steps=600, lr=0.01):
    def gradient_at(w):
        w = w.clone().requires_grad_()
        (g,) = torch.autograd.grad(cliff(w), w)
        return g * min(1.0, clip / float(g.norm()))

    return path("sgd", gradient_at, start, steps, lr=lr)


def growth(spectrum, seed, times, size=16):
    """ln of the gradient's size at the first state through 1 ... T steps of a random matrix of this largest eigenvalue."""
    random = np.random.default_rng(seed)
    w = random.normal(size=(size, size))
    w = torch.tensor(w * spectrum / np.abs(np.linalg.eigvals(w)).max())
    first = torch.tensor(random.normal(size=size), requires_grad=True)
    h, found = first, []
    for _ in range(times):
        h = w @ h
        (g,) = torch.autograd.grad((h * torch.ones_like(h)).sum(), first, retain_graph=True)
        found.append(float(g.norm().log()))
    return found


def draw(item):
    random = np.random.default_rng(0)
    starts = [
        (1.15 + 0.1 * random.random(), 0.05 * random.random()) for _ in range(item.size(20, 12))
    ]
    thrown = [float((descend(s, 1e30, 1)[1] - torch.tensor(s)).norm()) for s in starts]
    item.claim("log10 of the first step's length, not clipped", np.log10(thrown), above=1)
    ends = [float(cliff(descend(s, CLIP)[-1])) for s in starts]
    item.claim("loss after 600 clipped steps", ends, below=0.2)
    sizes = {r: np.array([growth(r, s, 60) for s in range(item.size(20, 10))]) for r in SPECTRA}
    for r, found in sizes.items():
        slopes = np.polyfit(np.arange(20, 60), found[:, 20:].T, 1)[0]
        item.claim(
            f"growth of ln |gradient| a step less ln {r}",
            slopes - np.log(r),
            above=-0.02,
            below=0.02,
        )

    seeds = 8
    recipe = ravine.Recipe(
        model={
            "layers": [
                {
                    "kind": "rnn",
                    "units": 24,
                    "nonlinearity": "relu",
                    "init": {"weights": {"kind": "identity", "gain": SPECTRUM}},
                },
                {"kind": "dense", "units": 1},
            ]
        },
        data={"source": {"kind": "adding", "length": LENGTH, "samples": 1000}, "batch": 50},
        optimizer={"kind": "momentum", "lr": 0.03},
        schedule="cosine",
        stop={"after": "40ep", "on_trouble": "report"},
    )
    arms = {"not clipped": 0.0, "clipped at 1": 1.0}
    runs = ravine.train_many(
        [
            recipe.edit({"clip.norm": clip, "seed": s})
            for clip in arms.values()
            for s in range(seeds)
        ],
        out=item.out(),
        quiet=True,
    )
    losses = np.array([run.losses for run in runs]).reshape(2, seeds, -1)
    last = np.nan_to_num(losses[..., -20:].mean(-1), nan=1e12, posinf=1e12).clip(max=1e12)
    item.claim("last loss, not clipped / always answering 1", 6 * last[0], above=0.9)
    item.claim("the same, clipped", 6 * last[1], below=0.6)

    figure, (plane, power, course) = panels(1, 3, 3.6, 3.3)
    grid = np.stack(np.meshgrid(np.linspace(0.9, 1.3, 120), np.linspace(-0.15, 0.2, 120)), -1)
    z = cliff(torch.tensor(grid)).numpy()
    levels = np.geomspace(0.01, 1e9, 12)
    plane.contour(grid[..., 0], grid[..., 1], z, levels=levels, colors=FAINT, linewidths=0.5)
    for i, (label, clip) in enumerate((("not clipped", 1e30), (f"clipped at {CLIP}", CLIP))):
        points = descend(starts[0], clip)[: 2 if i == 0 else None].T
        plane.plot(*points, color=COLOURS[1 - i], ls=DASHES[1 - i], label=label, marker="o", ms=2)
    plane.plot(*starts[0], "*", color=COLOURS[3], ms=9, label="start")
    plane.set(
        xlabel="weight w",
        ylabel="bias b",
        xlim=(0.9, 1.3),
        ylim=(-0.15, 0.2),
        title="a cliff: h = w h + b, 30 times",
    )
    plane.legend(loc="lower left")
    for i, (r, found) in enumerate(sizes.items()):
        band(power, np.arange(1, 61), np.exp(found), f"largest eigenvalue {r}", i)
        power.plot(np.arange(1, 61), r ** np.arange(1.0, 61), color=FAINT, ls=":", lw=1)
    log_axis(power, "y")
    power.set(
        xlabel="steps of time",
        ylabel="size of the gradient",
        title="linear recurrence; dots: powers",
        ylim=(None, 1e13),
    )
    power.legend(loc="upper left")
    for i, label in enumerate(arms):
        values = np.nan_to_num(losses[i], nan=1e12, posinf=1e12).clip(1e-3, 1e12)
        values = values[:, : losses.shape[-1] // 20 * 20].reshape(seeds, -1, 20).mean(-1)
        band(course, 20 * np.arange(values.shape[1]), values, label, 1 - i)
    log_axis(course, "y")
    course.axhline(1 / 6, color=FAINT, ls=":", lw=1, label="always answering 1")
    course.set(xlabel="step", ylabel="training loss", title="adding task, an exploding network")
    course.legend(loc="center right")
    return figure
