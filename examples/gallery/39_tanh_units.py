"""Three tanh units fit the classic four functions.

Claim: A network with three hidden tanh units fits x², sin(πx), |x| and the step from 50 points each, leaving less than
5 % of their variance, for the best of some starts; a single unit leaves more of the three that bend.

To see it fail: fit with one unit, ``UNITS = (1, 1)``: a bump cannot be made.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, panels

UNITS = (3, 1)  # enough, and too few
FUNCTIONS = {
    "x²": lambda x: x**2,
    "sin(πx)": lambda x: np.sin(np.pi * x),
    "|x|": np.abs,
    "step": lambda x: (x > 0) * 1.0,
}


def draw(item):
    seeds = range(item.size(12, 8))
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    recipe = ravine.Recipe(
        data={"batch": 50},
        loss="squared",
        optimizer={"kind": "adam", "lr": 0.03},
        schedule="cosine",
        stop={"after": f"{item.size(40, 20)}ep"},
    )
    start = {"weights": {"kind": "normal", "std": 2.0}}
    fits, left = {}, {}
    for name, function in FUNCTIONS.items():
        y = function(x[:, 0]).astype(np.float32)
        data = {"train": (np.tile(x, (100, 1)), np.tile(y, 100)), "validation": (x, y)}
        model = {"kind": "mlp", "activation": "tanh", "init": start}
        runs = ravine.train_many(
            [
                recipe.edit({"model": {**model, "hidden": [units]}, "seed": s})
                for units in UNITS
                for s in seeds
            ],
            data=data,
            out=item.out(f"function{len(fits)}"),
            quiet=True,
        )
        found = np.array([run.result["val_loss"] for run in runs]).reshape(2, -1) / y.var()
        best = [runs[k * len(seeds) + int(found[k].argmin())].predict(x).ravel() for k in (0, 1)]
        fits[name], left[name] = (y, best), found
    for name, found in left.items():
        item.claim(
            f"part of the variance left, {name}, best of {len(seeds)} starts",
            found[0].min(),
            below=0.05,
        )
    for name in ("x²", "sin(πx)", "|x|"):
        item.claim(f"the same with {UNITS[1]} unit, {name}", left[name][1].min(), above=0.05)

    figure, axes = panels(1, 4, 2.7, 2.9)
    for box, (name, (y, best)) in zip(axes, fits.items(), strict=True):
        box.plot(x[::2, 0], y[::2], "o", color=COLOURS[0], ms=3, label="function")
        for k, fit in enumerate(best):
            label = f"{UNITS[k]} tanh unit" + "s" * (UNITS[k] > 1)
            box.plot(x[:, 0], fit, color=COLOURS[1 + k], ls=DASHES[k], label=label)
        box.set(xlabel="x", ylabel="y", title=name)
    axes[0].legend(loc="upper center", fontsize=8.5)
    return figure
