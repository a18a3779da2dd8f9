"""A cliff, and clipping.

Claim: One step over a cliff throws plain descent far away, with the gradient clipped it stays; an exploding recurrent
network that diverges trains once its gradient is clipped.

To see it fail: ``SPECTRUM = 1.0``: recurrent weights that do not grow need no clipping.
"""

import numpy as np
import torch

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, FAINT, band, log_axis, panels
from ravine.optim.descent import path

SPECTRUM, CLIP, TIMES = 1.4, 0.5, 30


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


def draw(item):
    random = np.random.default_rng(0)
    starts = [
        (1.15 + 0.1 * random.random(), 0.05 * random.random()) for _ in range(item.size(20, 8))
    ]
    thrown = [float((descend(s, 1e30, 1)[1] - torch.tensor(s)).norm()) for s in starts]
    item.claim("log10 of the first step's length, not clipped", np.log10(thrown), above=0.5)
    item.claim(
        "loss after 600 clipped steps",
        [float(cliff(descend(s, CLIP)[-1])) for s in starts],
        below=0.1,
    )

    seeds = item.size(8, 4)
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
        data={"source": {"kind": "adding", "length": 12, "samples": 1000}, "batch": 50},
        optimizer={"kind": "sgd", "lr": 0.05},
        schedule="cosine",
        stop={"after": f"{item.size(60, 40)}ep", "on_trouble": "report"},
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
    last = np.nan_to_num(losses[..., -20:].mean(-1), nan=1e12).clip(max=1e12)  # [arms, S]
    item.claim("log10 of the last loss, not clipped", np.log10(last[0]), above=2)
    item.claim("last loss, clipped (always answering 1: 0.167)", last[1], below=0.3)

    figure, (plane, course) = panels(1, 2, 4.3, 3.4)
    grid = np.stack(np.meshgrid(np.linspace(0.4, 1.4, 120), np.linspace(-0.3, 0.5, 120)), -1)
    z = cliff(torch.tensor(grid)).numpy()
    plane.contour(
        grid[..., 0],
        grid[..., 1],
        z,
        levels=np.geomspace(0.01, 1e9, 12),
        colors=FAINT,
        linewidths=0.5,
    )
    start = starts[0]
    for i, (label, clip) in enumerate(
        (("not clipped: one step leaves the picture", 1e30), (f"clipped at {CLIP}", CLIP))
    ):
        points = descend(start, clip)
        plane.plot(
            *points[: 2 if i == 0 else None].T,
            color=COLOURS[1 - i],
            ls=DASHES[i],
            label=label,
            marker="o",
            ms=2,
        )
    plane.set(
        xlabel="weight",
        ylabel="bias",
        xlim=(0.4, 1.4),
        ylim=(-0.3, 0.5),
        title="a cliff: h = w h + b, 30 times",
    )
    plane.legend(loc="upper right")
    for i, label in enumerate(arms):
        values = np.nan_to_num(losses[i], nan=1e12).clip(1e-3, 1e12)[
            :, : losses.shape[-1] // 10 * 10
        ]
        band(
            course,
            10 * np.arange(values.shape[1] // 10),
            values.reshape(seeds, -1, 10).mean(-1),
            label,
            1 - i,
        )
    log_axis(course, "y")
    course.axhline(1 / 6, color=FAINT, ls=":", lw=1)
    course.set(
        xlabel="step",
        ylabel="training loss",
        title="adding task, a recurrent network that explodes",
    )
    course.legend(loc="upper right", bbox_to_anchor=(1, 0.8))
    return figure
