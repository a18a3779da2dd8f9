"""Dead ReLUs at a high rate, and activations that cannot die.

Claim: A high learning rate leaves many ReLU units at zero for every sample; leaky ReLU, PReLU and maxout have none
and ELU few; none of them is consistently better than the others, and ELU costs more time than ReLU.

To see it fail: train at the good rate, ``HIGH = 0.002``: few units die.
"""

import time

import numpy as np
import torch

import ravine
from ravine.gallery.drawing import COLOURS, panels

GOOD, HIGH = 0.002, 0.05
KINDS = ("relu", "leaky_relu", "prelu", "elu", "maxout")


def model(kind):
    layer = {"kind": "dense", "units": 128 if kind == "maxout" else 64}
    between = {"kind": "maxout", "pieces": 2} if kind == "maxout" else {"kind": kind}
    layers = [{"kind": "flatten"}, layer, between, layer, between, {"kind": "dense", "units": 10}]
    return {"layers": layers, "init": {"weights": "he_normal"}}


def at_zero(run, x):
    """The part of the units whose gradient is zero for every sample: outputs that never change."""
    values, z = [], run.pipeline.transform(x)
    with torch.no_grad():
        for part in run.model:
            z = part(z)
            if type(part).__name__ in ("ReLU", "LeakyReLU", "PReLU", "ELU", "Maxout") or (
                z.dim() == 2 and "elu" in type(part).__name__.lower()
            ):
                values.append(z)
    spread = torch.cat([(value.amax(0) - value.amin(0)) for value in values])
    return float((spread == 0).double().mean())


def draw(item):
    from sklearn.datasets import load_digits

    x = torch.tensor(load_digits().images[:, None], dtype=torch.float32)
    seeds = item.size(8, 6)
    recipe = ravine.Recipe(
        data={"source": "digits", "batch": 64, "preprocess": ["standardize"]},
        optimizer={"kind": "adam", "lr": GOOD},
        stop={"after": f"{item.size(20, 10)}ep", "on_trouble": "report"},
    )
    recipes = [
        recipe.edit({"model": model(kind), "optimizer.lr": lr, "seed": seed})
        for lr in (GOOD, HIGH)
        for kind in KINDS
        for seed in range(seeds)
    ]
    runs = ravine.train_many(recipes, out=item.out(), quiet=True)
    dead = 100 * np.array([at_zero(run, x) for run in runs]).reshape(2, len(KINDS), seeds)
    accuracy = 100 * np.array([run.result["test_accuracy"] for run in runs]).reshape(
        2, len(KINDS), seeds
    )
    item.claim("dead ReLU units at the high rate, %", dead[1, 0], above=5)
    item.claim("dead ReLU units at the good rate, %", dead[0, 0], below=2)
    for k in range(1, len(KINDS)):
        item.claim(
            f"the same at the high rate, {KINDS[k].replace('_', ' ')}, %", dead[1, k], below=2
        )
    item.claim(
        "largest difference of mean accuracies at the good rate, points",
        float(np.ptp(accuracy[0].mean(1))),
        below=3,
    )
    cost = [_seconds("elu") / _seconds("relu") for _ in range(7)]
    item.claim(
        "time of ELU / ReLU, forward and back, median of 7",
        float(np.median(cost)),
        above=1.0,
        timed=True,
    )

    figure, (left, right) = panels(1, 2, 4.4, 3.2)
    places = np.arange(len(KINDS))
    for i, (lr, shift) in enumerate(((GOOD, -0.18), (HIGH, 0.18))):
        for axes, values in ((left, dead[i]), (right, accuracy[i])):
            for k in places:
                label = f"lr {lr:g}" if k == 0 else None
                axes.plot(
                    np.full(seeds, k + shift),
                    values[k],
                    "os"[i],
                    color=COLOURS[i],
                    ms=4,
                    label=label,
                )
    for axes in (left, right):
        axes.set(xticks=places, xticklabels=["ReLU", "leaky", "PReLU", "ELU", "maxout"])
    left.set(ylabel="dead units in %", title=f"digits, {seeds} seeds")
    right.set(ylabel="test accuracy in %", title="the end", ylim=(0, 102))
    left.legend()
    return figure


def _seconds(kind, repeats=20):
    x = torch.randn(512, 512, requires_grad=True)
    apply = getattr(torch.nn.functional, kind)
    begun = time.process_time()
    for _ in range(repeats):
        apply(x).sum().backward()
    return time.process_time() - begun
