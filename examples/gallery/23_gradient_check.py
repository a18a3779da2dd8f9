"""Gradient check: the error of a difference quotient against its step.

Claim: Central differences have an error of h^2 until rounding, one over h, takes over: the error is a U whose bottom
lies near 1e-5 in double precision. One-sided differences, an error of h, are worse by orders; in single precision a right gradient
cannot be told from a wrong one.

To see it fail: set ``RIGHT = 1.001``: a gradient wrong by 0.1 % keeps an error of 1e-3 at every step size.
"""

import numpy as np
import torch
from torch import nn

import ravine
from ravine.gallery.drawing import COLOURS, log_axis, panels

RIGHT = 1.0  # a factor on the gradient that is checked
STEPS = np.geomspace(1e-10, 1e-1, 28)


def errors(seed, dtype, central):
    """Relative errors of the quotient in a random direction [steps]."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 4)).to(dtype)
    x, y = torch.randn(32, 20, dtype=dtype), torch.randint(0, 4, (32,))
    loss = lambda: nn.functional.cross_entropy(net(x), y)  # noqa: E731
    weight = net[0].weight
    direction = torch.randn_like(weight)
    (grad,) = torch.autograd.grad(loss(), weight)
    exact = RIGHT * float((grad.double() * direction.double()).sum())
    origin, found = weight.detach().clone(), []

    def at(step):
        with torch.no_grad():
            weight.copy_(origin + step * direction)
            return float(loss())

    for h in STEPS:
        number = (at(h) - at(-h)) / (2 * h) if central else (at(h) - at(0)) / h
        found.append(abs(number - exact) / max(abs(number), abs(exact)))
    return np.maximum(found, 1e-14)


def draw(item):
    seeds = range(item.size(20, 8))
    arms = {
        "double, central": (torch.float64, True),
        "double, one-sided": (torch.float64, False),
        "single, central": (torch.float32, True),
    }
    found = {
        name: np.array([errors(seed, *arm) for seed in seeds]) for name, arm in arms.items()
    }  # [S, steps]
    least = {name: np.log10(np.exp(np.log(values).mean(0)).min()) for name, values in found.items()}
    item.claim(
        "log10 of the least error, double, central",
        np.log10(found["double, central"].min(1)),
        below=-7,
    )
    item.claim(
        "decades that one-sided loses",
        least["double, one-sided"] - least["double, central"],
        above=1.5,
    )
    item.claim("log10 of the least error, single", least["single, central"], above=-5.5)
    middle = (STEPS > 1e-4) & (STEPS < 1e-2)
    slopes = [
        np.polyfit(np.log(STEPS[middle]), np.log(row[middle]), 1)[0]
        for row in found["double, central"]
    ]
    item.claim("exponent of the error in h, central", slopes, above=1.8, below=2.2)
    bottom = STEPS[np.log(found["double, central"]).mean(0).argmin()]
    item.claim("log10 of the best step, central", np.log10(bottom), above=-7, below=-3)
    checked = ravine.gradcheck(ravine.Recipe(model="mlp"), quiet=True, out=item.out("check"))
    item.claim(
        "log10 of ravine gradcheck's worst error", np.log10(checked["relative error"]), below=-7
    )

    figure, (axes,) = panels(1, 1, 5.4, 3.6)
    for i, (name, values) in enumerate(found.items()):
        axes.plot(
            STEPS,
            np.exp(np.log(values).mean(0)),
            color=COLOURS[i],
            label=name,
            marker="osD"[i],
            ms=3,
        )
        axes.fill_between(
            STEPS, values.min(0), values.max(0), color=COLOURS[i], alpha=0.15, linewidth=0
        )
    for axis in "xy":
        log_axis(axes, axis)
    axes.axhline(1e-7, color=COLOURS[6], ls=":", lw=1)
    axes.text(0.12, 1.3e-7, "below: right", ha="right", color=COLOURS[6])
    axes.set(
        xlabel="step h",
        ylabel="relative error",
        title=f"difference quotients, {len(seeds)} networks",
        ylim=(1e-12, 1e4),
    )
    axes.legend(loc="upper center", ncols=3, columnspacing=1)
    return figure
