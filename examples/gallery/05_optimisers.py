"""Optimisers on a network, each at its best rate.

Claim: At their own best rates the usual optimisers end close together on the digits; momentum generalises no worse
than Adam; Adagrad beats plain descent on sparse features, where rare ones need long steps.

To see it fail: make the features dense, ``RARITY = 0``: Adagrad's lead is gone.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, INK, MARKERS, band, log_axis, panels

KINDS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
RATES = {"sgd": (0.1, 0.3, 1.0), "momentum": (0.03, 0.1, 0.3), "nesterov": (0.03, 0.1, 0.3)}
ADAPTIVE = (0.003, 0.01, 0.03)
RARITY = 1.3  # feature j occurs with probability j to the minus RARITY


def sparse(seed, samples=2000, features=400):
    """Rows of which few features are 1, common ones and rare ones, and a class that depends on all."""
    random = np.random.default_rng(seed)
    often = 0.5 * np.arange(1, features + 1.0) ** -RARITY
    x = (random.random((samples, features)) < often).astype(np.float32)
    score = x @ random.normal(0, 2, features)
    return x, (score > np.median(score)).astype(int)


def at_best_rate(recipes, **options):
    """Of {name: recipes by rate}, trained once, the recipe of the lowest validation loss for each name."""
    flat = [recipe for found in recipes.values() for recipe in found]
    runs = iter(ravine.train_many(flat, quiet=True, **options))
    losses = {
        name: [next(runs).result["val_loss"] for _ in found] for name, found in recipes.items()
    }
    return {name: recipes[name][int(np.nanargmin(losses[name]))] for name in recipes}


def draw(item):
    seeds, epochs = item.size(10, 5), item.size(20, 10)
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [64]},
        data={"source": "digits", "batch": 64, "preprocess": ["rescale"]},
        schedule="cosine",
        stop={"after": f"{epochs}ep"},
    )
    grid = {
        k: [
            recipe.edit({"optimizer": {"kind": k, "lr": lr}, "seed": 99})
            for lr in RATES.get(k, ADAPTIVE)
        ]
        for k in KINDS
    }
    best = at_best_rate(grid, out=item.out("rates"), test=False)
    runs = ravine.train_many(
        [best[k].edit({"seed": s, "data.seed": s}) for k in KINDS for s in range(seeds)],
        out=item.out("seeds"),
        quiet=True,
    )
    losses = np.array([run.metrics["val_loss"] for run in runs]).reshape(len(KINDS), seeds, -1)
    error = 100 - 100 * np.array([run.result["test_accuracy"] for run in runs]).reshape(
        len(KINDS), seeds
    )
    item.claim(
        "test error of momentum minus Adam's, percentage points", error[1] - error[5], below=2.0
    )
    item.claim(
        "largest difference of mean test errors, percentage points",
        float(np.ptp(error.mean(1))),
        below=4.0,
    )

    rare = {}
    for seed in range(item.size(8, 5)):
        base = ravine.Recipe(
            model="linear", data={"batch": 20, "validation": 0.3}, stop={"after": "2ep"}, seed=seed
        )
        rates = {"sgd": (0.3, 1.0, 3.0, 10.0), "adagrad": (0.1, 0.3, 1.0, 3.0)}
        arms = [
            base.edit({"optimizer": {"kind": k, "lr": lr}})
            for k, found in rates.items()
            for lr in found
        ]
        trained = ravine.train_many(
            arms, data=sparse(seed), out=item.out(f"sparse{seed}"), quiet=True, test=False
        )
        final = np.array([run.result["val_loss"] for run in trained]).reshape(2, 4)
        rare[seed] = np.nanmin(final, 1)
    rare = np.array(list(rare.values()))  # [S, 2]
    item.claim(
        "loss on sparse features, Adagrad / plain descent", rare[:, 1] / rare[:, 0], below=1.0
    )

    figure, (course, last, few) = panels(1, 3, 3.8, 3.2)
    for i, kind in enumerate(KINDS):
        band(
            course,
            np.arange(1, epochs + 1),
            losses[i],
            f"{kind}, lr {best[kind].optimizer.lr:g}",
            i,
            shade=0.07,
        )
        last.plot(
            error[i],
            np.full(seeds, i) + np.linspace(-0.15, 0.15, seeds),
            MARKERS[i],
            ms=3.5,
            color=COLOURS[i],
        )
        last.plot([error[i].mean()], [i], "|", ms=14, color=INK)
    log_axis(course, "y")
    course.set(xlabel="epoch", ylabel="validation loss", title=f"digits, {seeds} seeds")
    figure.legend(*course.get_legend_handles_labels(), loc="outside upper center", ncols=6)
    last.set(
        yticks=range(len(KINDS)),
        yticklabels=KINDS,
        xlabel="test error in %",
        title="the end; bars: means",
    )
    last.invert_yaxis()
    for pair in rare:
        few.plot([0, 1], pair, "-o", color=COLOURS[0], ms=4, lw=0.8)
    few.set(
        xticks=[0, 1],
        xticklabels=["plain descent", "Adagrad"],
        xlim=(-0.4, 1.4),
        ylabel="validation loss",
    )
    few.set(title="sparse features, best of 4 rates")
    return figure
