"""Early stopping against an L2 penalty.

Claim: On a linear regression with few samples, descent from zero that is stopped at its best step comes within a few
per cent of the best L2 penalty's error; both are far better than least squares.

To see it fail: give 40 samples for each weight (``SAMPLES = 1200``): neither is needed, and all three are alike.
"""

import numpy as np
import torch

from ravine.gallery.drawing import COLOURS, FAINT, log_axis, panels
from ravine.optim.descent import path

SAMPLES, SIZE, STEPS = 40, 30, 200


def errors(seed):
    """Squared errors of the weights: along descent [STEPS + 1], along the penalties [60], and of least squares."""
    random = np.random.default_rng(seed)
    w = random.normal(size=SIZE) / SIZE**0.5
    x = random.normal(size=(SAMPLES, SIZE))
    y = x @ w + random.normal(0, 1, SAMPLES)
    tx, ty = torch.tensor(x), torch.tensor(y)
    points = path("sgd", lambda v: tx.T @ (tx @ v - ty) / SAMPLES, [0.0] * SIZE, STEPS, lr=0.1)
    eye = np.eye(SIZE)
    decayed = [np.linalg.solve(x.T @ x + s * eye, x.T @ y) for s in np.geomspace(0.1, 1000, 60)]
    least = np.linalg.lstsq(x, y, rcond=None)[0]
    return [((np.array(v) - w) ** 2).sum(-1) for v in (points, decayed, least)]


def draw(item):
    found = [errors(seed) for seed in range(item.size(40, 30))]
    stopped, decayed = (np.array([one[k].min() for one in found]) for k in (0, 1))
    least = np.array([one[2] for one in found])
    item.claim(
        "lowest error, stopped early / best L2 penalty", stopped / decayed, above=0.9, below=1.1
    )
    item.claim("lowest error, stopped early / least squares", stopped / least, below=0.5)
    steps = np.array([one[0].argmin() for one in found])
    item.claim("log10 of the best step of descent", np.log10(steps), above=0.5, below=1.8)

    figure, (course, equal) = panels(1, 2, 4.2, 3.2)
    for i in range(5):
        label = {"label": "five regressions"} if i == 0 else {}
        course.plot(found[i][0], color=COLOURS[0], lw=1, **label)
        at = found[i][0].argmin()
        label = {"label": "the best step"} if i == 0 else {}
        course.plot(at, found[i][0][at], "v", color=COLOURS[1], ms=6, **label)
    course.set(
        xlabel="step of descent", ylabel="squared error of the weights", title="descent from zero"
    )
    course.legend()
    equal.plot(decayed, stopped, "o", color=COLOURS[0], ms=4)
    ends = [min(decayed.min(), stopped.min()), max(decayed.max(), stopped.max())]
    equal.plot(ends, ends, color=FAINT, ls=":", label="equal")
    for axis in "xy":
        log_axis(equal, axis)
    equal.set(
        xlabel="lowest error with an L2 penalty",
        ylabel="lowest error, stopped early",
        title=f"{len(found)} regressions",
    )
    equal.legend()
    return figure
