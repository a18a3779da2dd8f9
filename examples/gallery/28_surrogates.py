"""Surrogate losses above the 0/1 loss.

Claim: Hinge, logistic (base 2), squared and exponential losses lie above the 0/1 loss, so making them small makes
errors few; the perceptron's does not, yet it too separates what can be separated.

To see it fail: take the logistic loss in nats (``BASE = np.e``): at small margins it lies below.
"""

import numpy as np
import torch

from ravine.catalogue import make
from ravine.gallery.drawing import COLOURS, DASHES, INK, MARKERS, panels
from ravine.optim.descent import path

BASE = 2.0
LOSSES = {
    "hinge: max(0, 1 - m)": lambda m: np.maximum(0, 1 - m),
    "logistic: log2(1 + exp(-m))": lambda m: np.log(1 + np.exp(-m)) / np.log(BASE),
    "squared: (1 - m)²": lambda m: (1 - m) ** 2,
    "exponential: exp(-m)": lambda m: np.exp(-m),
    "perceptron: max(0, -m)": lambda m: np.maximum(0, -m),
}


def errors_and_losses(seed, samples=200):
    """Part of errors [steps] and mean loss [steps] of a linear classifier that descends the hinge and the perceptron's loss."""
    random = np.random.default_rng(seed)
    x = torch.tensor(random.normal(size=(samples, 5)))
    y = torch.tensor(np.sign(x.numpy() @ random.normal(size=5)))
    found = []
    for margin in (1.0, 0.0):
        part = make("loss", {"kind": "binary_hinge", "margin": margin})
        loss = part.technique.function()(**part.arguments)

        def gradient_at(w, loss=loss):
            w = w.clone().requires_grad_()
            (g,) = torch.autograd.grad(loss(x @ w, y).mean(), w)
            return g

        points = path("sgd", gradient_at, [0.01 * v for v in (-1, 1, -1, 1, -1)], 300, lr=0.3)
        margins = y * (x @ points.T).T  # [steps, N]
        found.append((margins <= 0).double().mean(1).numpy())
    return np.array(found)  # [2, steps]


def draw(item):
    margin = np.linspace(-2, 2.5, 400)
    wrong = (margin <= 0) * 1.0
    for name, loss in list(LOSSES.items())[:4]:
        item.claim(
            f"least distance above the 0/1 loss, {name.split(':')[0]}",
            float((loss(margin) - wrong).min()),
            above=-1e-12,
        )
    below = LOSSES["perceptron: max(0, -m)"](margin) - wrong
    item.claim("the same, perceptron: it does not lie above", float(below.min()), below=-0.9)
    errors = np.array([errors_and_losses(seed) for seed in range(item.size(20, 10))])
    for k, name in enumerate(("hinge", "perceptron")):
        item.claim(
            f"errors after 300 steps on separable data, {name}", errors[:, k, -1], below=0.03
        )

    figure, (axes, course) = panels(1, 2, 4.4, 3.3)
    axes.plot(margin, wrong, color=INK, lw=2, label="0/1 loss")
    for i, (name, loss) in enumerate(LOSSES.items()):
        axes.plot(margin, loss(margin), color=COLOURS[i], ls=DASHES[i], label=name)
    axes.set(
        xlabel="margin m = y f(x)", ylabel="loss", ylim=(-0.1, 5.4), title="losses of one sample"
    )
    axes.legend(fontsize=8.5)
    for k, (name, i) in enumerate((("hinge", 0), ("perceptron", 4))):
        mean = 100 * errors[:, k].mean(0)
        course.plot(
            mean, color=COLOURS[i], ls=DASHES[k], marker=MARKERS[k], markevery=50, label=name
        )
    course.set(
        xlabel="step", ylabel="errors in %", title="separable data, descended by each", ylim=(0, 30)
    )
    course.legend()
    return figure
