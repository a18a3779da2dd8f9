"""Adam: bias correction, RAdam and warm-up, and weight decay beside L2.

Claim: Without bias correction Adam's first steps are more than three times as long; the adaptive rate varies most in
the first steps, so that at a high rate Adam throws the loss up, which RAdam and a warm-up do not. Lectures say that
with decay independent of lr the best decay does not move with lr; here, on a convex problem trained to its end, it
moves with lr.

To see it fail: leave the correction on in both arms: the first steps are then equally long.
"""

import numpy as np
import torch

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, band, log_axis, panels
from ravine.optim.descent import path

HIGH = 0.1  # a rate that is too high for Adam's first steps
STARTS = {
    "Adam": ("adam", "constant"),
    "Adam, warm-up": ("adam", {"kind": "constant", "warmup": "30%"}),
    "RAdam": ("radam", "constant"),
}
LRS = np.geomspace(1e-3, 3e-2, 5)
ARMS = {
    "L2 in Adam": ({"kind": "adam"}, np.geomspace(1e-2, 10, 9)),
    "AdamW, decay x lr": ({"kind": "adamw"}, np.geomspace(1e-2, 10, 9)),
    "AdamW, decay alone": ({"kind": "adamw", "decay_by": "schedule"}, np.geomspace(1e-4, 0.3, 9)),
}


def noisy(seed, samples=50, features=40):
    """A regression on more features than matter, so that decay helps; (x, y) of training and validation."""
    random = np.random.default_rng(seed)
    w = random.normal(size=features) * (np.arange(features) < 5)

    def part(n):
        x = random.normal(size=(n, features))
        return x.astype(np.float32), (x @ w + random.normal(0, 3.0, n)).astype(np.float32)

    x, y = part(samples)
    again = 10  # an epoch holds each sample so often: fewer evaluations
    return {"train": (np.tile(x, (again, 1)), np.tile(y, again)), "validation": part(1000)}


def best_decay(losses, decays):
    """The log10 of the decay with the lowest loss for each rate, between grid points by a parabola."""
    found = []
    for row in losses:
        i = int(np.clip(row.argmin(), 1, len(row) - 2))
        a, b, c = row[i - 1 : i + 2]
        shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c > 0 else 0.0
        step = np.log10(decays[1] / decays[0])
        found.append(np.log10(decays[i]) + np.clip(shift, -1, 1) * step)
    return np.array(found)


def draw(item):
    steps = {
        on: -np.diff(
            path("adam", lambda w: torch.ones_like(w), [0.0], 200, lr=1.0, bias_correction=on)[:, 0]
        )
        for on in (True, False)
    }
    item.claim(
        "longest step without correction / with it",
        float(steps[False].max() / steps[True].max()),
        above=3,
    )
    random = np.random.default_rng(0)
    g = random.normal(size=(item.size(20000, 5000), 200))
    v = np.cumsum(0.001 * 0.999 ** np.arange(199, -1, -1) * g**2, 1) * 0.999 ** -np.arange(
        199, -1, -1.0
    )
    rate = 1 / np.sqrt(v / (1 - 0.999 ** np.arange(1, 201)))  # [draws, steps]
    spread = np.subtract(*np.quantile(rate, (0.9, 0.1), axis=0))
    item.claim(
        "spread of the adaptive rate, step 2 / step 100", float(spread[1] / spread[99]), above=5
    )

    begun = _starts(item, range(16))  # {arm: losses [S, steps]}
    highest = {name: np.log2(rows[:, 1:25].max(1)) for name, rows in begun.items()}
    for name in list(STARTS)[1:]:
        text = f"log2 of the largest loss of steps 2 to 25, Adam / {name}"
        item.claim(text, highest["Adam"] - highest[name], above=0.0)

    rates = item.size(LRS, LRS[::2])
    losses = np.array(
        [_grid(seed, item, rates) for seed in range(item.size(10, 12))]
    )  # [S, arms, lr, decay]
    moved = {}
    for a, (name, (_, decays)) in enumerate(ARMS.items()):
        moved[name] = [
            np.polyfit(np.log10(rates), best_decay(rows[a], decays), 1)[0] for rows in losses
        ]
    text = "decades that the best decay moves in a decade of lr: "
    item.claim(text + "AdamW, decay alone", moved["AdamW, decay alone"], above=0.0)
    item.claim(text + "L2 in Adam", moved["L2 in Adam"], above=-1.0, below=1.0)

    figure, axes = panels(2, 3, 3.4, 2.9)
    for i, (on, found) in enumerate(steps.items()):
        axes[0].plot(
            np.arange(1, 201),
            found,
            color=COLOURS[i],
            ls=DASHES[i],
            label="corrected" if on else "not corrected",
        )
    axes[0].set(
        xlabel="step", ylabel="step length / lr", title="Adam, a constant gradient", ylim=(0, 8)
    )
    axes[0].legend()
    axes[1].plot(np.arange(1, 201), spread, color=COLOURS[0])
    for axis in "xy":
        log_axis(axes[1], axis)
    axes[1].set(
        xlabel="step", ylabel="spread of 1/sqrt(v), 10 to 90 %", title="the adaptive rate's spread"
    )
    for i, (name, rows) in enumerate(begun.items()):
        band(axes[2], np.arange(rows.shape[1]), rows, name, i)
    log_axis(axes[2], "y")
    axes[2].set(xlabel="step", ylabel="training loss", title=f"digits at lr {HIGH:g}, 16 seeds")
    axes[2].legend()
    for a, (box, (name, (_, decays))) in enumerate(zip(axes[3:], ARMS.items(), strict=True)):
        box.pcolormesh(
            rates,
            decays,
            np.log(losses[:, a].mean(0)).T,
            cmap="viridis_r",
            shading="nearest",
            ec="face",
            lw=0.3,
        )
        best = 10 ** np.mean([best_decay(rows[a], decays) for rows in losses], 0)
        box.plot(rates, best, "-o", color="#444444", mfc="#eeeeee", ms=5)  # on both themes' yellow
        for axis in "xy":
            log_axis(box, axis)
        box.grid(False)
        box.set(xlabel="learning rate", ylabel="decay", title=f"{name}; light: low loss")
    return figure


def _starts(item, seeds):
    """The losses of the first steps at a high rate {arm: [S, steps]}."""
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [32] * 4, "init": {"weights": "he_normal"}},
        data={"source": "digits", "batch": 64, "preprocess": ["standardize"]},
        stop={"after": "60it", "on_trouble": "report"},
    )
    recipes = [
        recipe.edit({"optimizer": {"kind": kind, "lr": HIGH}, "schedule": schedule, "seed": s})
        for kind, schedule in STARTS.values()
        for s in seeds
    ]
    runs = ravine.train_many(recipes, out=item.out("starts"), quiet=True, test=False)
    losses = np.array([run.losses for run in runs]).reshape(len(STARTS), len(seeds), -1)
    return dict(zip(STARTS, losses, strict=True))


def _grid(seed, item, rates):
    """Validation losses [arms, lr, decay] on one data set."""
    recipe = ravine.Recipe(
        model="linear",
        data={"batch": 60},
        schedule="cosine",
        stop={"after": f"{item.size(40, 20)}ep"},
    )
    recipes = [
        recipe.edit(
            {"optimizer": {**kind, "lr": float(lr), "weight_decay": float(decay)}, "seed": seed}
        )
        for kind, decays in ARMS.values()
        for lr in rates
        for decay in decays
    ]
    runs = ravine.train_many(recipes, data=noisy(seed), out=item.out(f"grid{seed}"), quiet=True)
    return np.array([run.result["val_loss"] for run in runs]).reshape(len(ARMS), len(rates), -1)
