"""A ravine: descent zig-zags, momentum damps it.

Claim: In a ravine gradient descent turns at nearly every step; momentum needs a fraction of its steps, Nesterov's
gradient ahead overshoots less, and the velocity of momentum under a constant gradient tends to 1/(1 - momentum)
steps of plain descent.

To see it fail: set ``CURVATURE`` to (1, 1): a round bowl has no zig-zag, and plain descent is as fast.
"""

import numpy as np
import torch

from ravine.gallery.drawing import COLOURS, DASHES, FAINT, log_axis, panels
from ravine.optim.descent import path

CURVATURE = torch.tensor([1.0, 50.0], dtype=torch.float64)
ARMS = {
    "sgd": {},
    "momentum": {"momentum": 0.8},
    "nesterov": {"momentum": 0.8, "gradient": "ahead"},
}


def height(points):
    return (points**2 * CURVATURE).sum(-1) / 2


def descend(kind, start, steps, lr, **fields):
    return path(kind, lambda w: CURVATURE * w, start, steps, lr=lr, **fields)


def steps_to(points, part=1e-4):
    """Steps until the height is this part of the first, and stays there."""
    above = (height(points) > part * height(points[:1])).nonzero()
    return int(above[-1]) + 1 if len(above) else 0


def draw(item):
    random = np.random.default_rng(0)
    starts = [(-9 + random.normal(), 2 + 0.5 * random.normal()) for _ in range(item.size(20, 8))]
    rates = np.geomspace(0.005, 0.08, 16)
    best = {
        kind: min(rates, key=lambda lr: steps_to(descend(kind, starts[0], 800, lr, **fields)))
        for kind, fields in ARMS.items()
    }
    found = {
        k: np.array([steps_to(descend(k, s, 800, best[k], **f)) for s in starts])
        for k, f in ARMS.items()
    }
    plain = [descend("sgd", s, 60, best["sgd"])[:, 1] for s in starts]
    item.claim(
        "steps of descent that turn, of all",
        [float((y[1:] * y[:-1] < 0).double().mean()) for y in plain],
        above=0.8,
    )
    item.claim("steps to 1e-4: descent / momentum", found["sgd"] / found["momentum"], above=2)
    over = {
        k: np.array(
            [float(descend(k, s, 200, 0.02, **{**f, "momentum": 0.95})[:, 0].max()) for s in starts]
        )
        for k, f in list(ARMS.items())[1:]
    }
    item.claim(
        "overshoot with momentum 0.95: Nesterov / momentum",
        over["nesterov"] / over["momentum"],
        below=1,
    )
    for m in (0.5, 0.9, 0.99):
        constant = path("momentum", torch.ones_like, [0.0], 2000, lr=0.01, momentum=m)[:, 0]
        item.claim(
            f"last step / lr, momentum {m}, times (1 - momentum)",
            float(constant[-2] - constant[-1]) / 0.01 * (1 - m),
            above=0.999,
            below=1.001,
        )

    figure, (plane, course, velocity) = panels(1, 3, 3.7, 3.0)
    x, y = np.meshgrid(np.linspace(-11, 4, 90), np.linspace(-3, 3, 60))
    z = height(torch.tensor(np.stack([x, y], -1))).numpy()
    plane.contour(x, y, z, levels=np.geomspace(0.5, 300, 9), colors=FAINT, linewidths=0.4)
    for i, (kind, fields) in enumerate(ARMS.items()):
        points = descend(kind, (-9.0, 2.0), 300, best[kind], **fields)
        label = f"{kind}, lr {best[kind]:.2g}"
        plane.plot(*points[:40].T, color=COLOURS[i], ls=DASHES[i], lw=1.1, marker="o", ms=2)
        course.plot(height(points), color=COLOURS[i], ls=DASHES[i], label=label)
    plane.set(xlabel="x", ylabel="y", title="40 steps in a ravine")
    log_axis(course, "y")
    course.set(xlabel="step", ylabel="height", ylim=(1e-8, 400), title="each at its best rate")
    course.legend(loc="upper right")
    for i, m in enumerate((0.5, 0.9, 0.95)):
        points = path("momentum", torch.ones_like, [0.0], 80, lr=1.0, momentum=m)[:, 0]
        velocity.plot(-np.diff(points), color=COLOURS[i], ls=DASHES[i], label=f"momentum {m}")
        velocity.axhline(1 / (1 - m), color=COLOURS[i], lw=0.7, ls=":")
    velocity.set(
        xlabel="step",
        ylabel="step length / (lr x gradient)",
        title="a constant gradient; dots: 1/(1 - m)",
        ylim=(0, 21),
    )
    velocity.legend(loc="lower right", bbox_to_anchor=(1, 0.12))
    return figure
