"""Depth: the parity of n bits, and what shallow networks can do.

Claim: A shallow circuit for the parity of n bits needs 2^(n-1) gates, a tree of XORs 3 (n - 1); built as networks both
are right on every input. Trained, a network with three tanh units fits the classic four functions.

To see it fail: fit with one unit, ``UNITS = 1``: a bump cannot be made.
"""

import itertools

import numpy as np
import torch

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, log_axis, panels

UNITS = 3
FUNCTIONS = {
    "x^2": lambda x: x**2,
    "sin": lambda x: np.sin(np.pi * x),
    "|x|": np.abs,
    "step": lambda x: (x > 0) * 1.0,
}


def step(x):
    return (x > 0).double()


def shallow(bits):
    """One threshold unit for each input with an odd number of ones; the output adds them. (answers, units)"""
    n = bits.shape[1]
    odd = torch.tensor(
        [row for row in itertools.product((0.0, 1.0), repeat=n) if sum(row) % 2],
        dtype=torch.float64,
    )
    hidden = step(bits @ (2 * odd - 1).T - odd.sum(1) + 0.5)  # each is 1 on its own input alone
    return step(hidden.sum(1) - 0.5), len(odd)


def deep(bits):
    """A tree of XORs, each of two hidden threshold units and an output unit: x xor y = [x + y > 0.5] - [x + y > 1.5]."""
    values, units = list(bits.T), 0
    while len(values) > 1:
        pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
        units += 3 * sum(len(pair) == 2 for pair in pairs)
        values = [
            step(step(p[0] + p[1] - 0.5) - step(p[0] + p[1] - 1.5) - 0.5) if len(p) == 2 else p[0]
            for p in pairs
        ]
    return values[0], units


def draw(item):
    sizes, counts, wrong = range(2, item.size(13, 11)), [], 0
    for n in sizes:
        bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)
        truth = bits.sum(1) % 2
        (one, wide), (other, tall) = shallow(bits), deep(bits)
        wrong += int((one != truth).sum() + (other != truth).sum())
        counts.append((wide, tall))
    counts = np.array(counts)
    item.claim("wrong answers of the built networks, all inputs", wrong, below=0.5)
    item.claim(
        "log2 of the shallow network's units against n: slope",
        np.polyfit(list(sizes), np.log2(counts[:, 0]), 1)[0],
        above=0.99,
        below=1.01,
    )
    item.claim(
        "units of the tree less 3 (n - 1), largest",
        float(np.abs(counts[:, 1] - 3 * (np.array(sizes) - 1)).max()),
        below=0.5,
    )

    seeds = item.size(12, 8)
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    recipe = ravine.Recipe(
        model={
            "kind": "mlp",
            "hidden": [UNITS],
            "activation": "tanh",
            "init": {"weights": {"kind": "normal", "std": 2.0}},
        },
        data={"batch": 50},
        loss="squared",
        optimizer={"kind": "adam", "lr": 0.03},
        schedule="cosine",
        stop={"after": f"{item.size(40, 20)}ep"},
    )
    fits, errors = {}, {}
    for name, function in FUNCTIONS.items():
        y = function(x[:, 0]).astype(np.float32)
        data = {"train": (np.tile(x, (100, 1)), np.tile(y, 100)), "validation": (x, y)}
        runs = ravine.train_many(
            [recipe.edit({"seed": s}) for s in range(seeds)],
            data=data,
            out=item.out(name),
            quiet=True,
        )
        best = min(runs, key=lambda run: run.result["val_loss"])
        fits[name] = (y, best.predict(x).ravel())
        errors[name] = best.result["val_loss"] / y.var()
    for name, error in errors.items():
        item.claim(f"part of the variance left, {name}, best of {seeds} seeds", error, below=0.05)

    figure, axes = panels(1, 5, 2.4, 2.7)
    for i, (_, label) in enumerate((("shallow", "one hidden layer"), ("deep", "a tree of XORs"))):
        axes[0].plot(
            list(sizes),
            counts[:, i],
            color=COLOURS[i],
            ls=DASHES[i],
            marker="os"[i],
            ms=3,
            label=label,
        )
    log_axis(axes[0], "y")
    axes[0].set(xlabel="bits", ylabel="units", title="parity")
    axes[0].legend()
    for box, (name, (y, fit)) in zip(axes[1:], fits.items(), strict=True):
        box.plot(x[::2, 0], y[::2], "o", color=COLOURS[0], ms=3, label="function")
        box.plot(x[:, 0], fit, color=COLOURS[1], label=f"{UNITS} tanh units")
        box.set(xlabel="x", title=name)
    axes[1].legend()
    return figure
