"""The flow chart of bias and variance, on four planted situations.

Claim: Training and validation errors against what people reach tell which is wrong: a model too weak has high bias, one
that has memorised too few samples high variance, training stopped early high bias too, and a sound run neither.

To see it fail: give the memorising network all the samples (``FEW = 1500``): its variance is gone.
"""

import numpy as np
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, panels

FEW, HUMAN = 60, 0.02


def draw(item):
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32) / 16
    seeds = item.size(6, 5)
    big = {"kind": "mlp", "hidden": [128]}
    weak = {
        "layers": [{"kind": "dense", "units": 1}, {"kind": "tanh"}, {"kind": "dense", "units": 10}]
    }
    situations = {
        "sound": (big, 1200, "25ep"),
        "model too weak": (weak, 1200, "25ep"),
        "too few samples": (big, FEW, f"{25 * 1200 // FEW}ep"),
        "stopped early": (big, 1200, "3it"),
    }
    found = {}
    for name, (model, samples, after) in situations.items():
        for seed in range(seeds):
            rows = np.random.default_rng(seed).permutation(len(y))
            part, held = rows[:samples], rows[1200:]
            recipe = ravine.Recipe(
                model=model,
                data={"batch": 30},
                optimizer={"kind": "adam", "lr": 0.003},
                stop={"after": after},
                seed=seed,
            )
            data = {"train": (x[part], y[part]), "validation": (x[held], y[held])}
            run = ravine.train(
                recipe, data=data, out=item.out(f"{name} {seed}"), quiet=True, doctor=False
            )
            errors = [1 - run.evaluate(data=(x[r], y[r]))["accuracy"] for r in (part, held)]
            found.setdefault(name, []).append((errors[0] - HUMAN, errors[1] - errors[0]))
    bias, variance = (
        100 * np.array([[pair[k] for pair in pairs] for pairs in found.values()]) for k in (0, 1)
    )
    names = list(situations)
    for i, (high, low) in {1: (bias, variance), 2: (variance, bias), 3: (bias, variance)}.items():
        item.claim(
            f"{names[i]}: the larger part minus the other, points", high[i] - low[i], above=4
        )
    item.claim("sound: the sum of both, points", bias[0] + variance[0], below=5)

    figure, (axes,) = panels(1, 1, 6.4, 3.4)
    places = np.arange(len(names))
    for values, shift, colour, label in (
        (bias, -0.17, COLOURS[0], "bias: training error - human"),
        (variance, 0.17, COLOURS[1], "variance: validation - training error"),
    ):
        axes.bar(
            places + shift, values.mean(1).clip(0), 0.32, color=colour, label=label, alpha=0.85
        )
        for k in places:
            axes.plot([k + shift] * seeds, values[k], "o", color=colour, mec="white", ms=4)
    axes.set(
        xticks=places,
        xticklabels=names,
        ylabel="percentage points",
        title=f"digits, human error {100 * HUMAN:.0f} %, {seeds} seeds",
    )
    axes.set_ylim(-8, 115)
    axes.legend(loc="upper left")
    return figure
