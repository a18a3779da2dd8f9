"""The standard procedure, one bit left out at a time.

Claim: Lectures say that without some of these bits training is almost impossible. On the digits no single bit but
the optimiser is missed, and plain descent on raw pixels with none of them comes near; add weights that start too
small, and that plain network learns nothing, while the whole procedure forgives the small weights.

To see it fail: start from the usual weights in the last arm, ``small = {"weights": "he_normal"}``.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, panels


def convolution(channels, norm):
    layer = {"kind": "conv", "channels": channels, "kernel": 3, "padding": "same"}
    return [layer, *(["batch_norm"] if norm else []), "relu"]


def network(norm=True, dropout=0.2):
    end = ["flatten", {"kind": "dropout", "rate": dropout}, {"kind": "dense", "units": 10}]
    return [
        *convolution(16, norm),
        {"kind": "maxpool", "size": 2},
        *convolution(32, norm),
        *convolution(32, norm),
        *end,
    ]


def draw(item):
    seeds = item.size(5, 4)
    standard = ravine.Recipe(
        data={
            "source": "digits",
            "test": 0.0,
            "batch": 16,
            "validation": 0.7,
            "preprocess": [{"kind": "standardize", "per": "channel"}],
            "augment": [{"kind": "shift", "pixels": 1}],
        },
        model={"layers": network(), "init": {"weights": "he_normal"}},
        optimizer={"kind": "adamw", "lr": 3e-3, "weight_decay": 0.01},
        schedule={"kind": "cosine", "warmup": "5%"},
        stop={"after": f"{item.size(12, 8)}ep"},
    )
    small = {"weights": {"kind": "normal", "std": 0.003}}
    edits = {
        "standard": {},
        "no scaling": {"data.preprocess": []},
        "no augmentation": {"data.augment": []},
        "no batch norm": {"model.layers": network(norm=False)},
        "no dropout": {"model.layers": network(dropout=0.0)},
        "small weights": {"model.init": small},
        "no momentum, no Adam": {"optimizer": {"kind": "sgd", "lr": 3e-3}},
        "constant rate": {"schedule": "constant"},
        "no weight decay": {"optimizer.weight_decay": 0.0},
    }
    none = {
        "data.preprocess": [],
        "data.augment": [],
        "model.layers": network(False, 0.0),
        "optimizer": {"kind": "sgd", "lr": 3e-3},
        "schedule": "constant",
    }
    edits |= {"none of them": none, "none, small weights": {**none, "model.init": small}}
    recipes = [standard.edit({**edit, "seed": s}) for edit in edits.values() for s in range(seeds)]
    runs = ravine.train_many(recipes, out=item.out(), quiet=True, test=False)
    accuracy = 100 * np.array([run.result["val_accuracy"] for run in runs]).reshape(
        len(edits), seeds
    )
    lost = accuracy[0] - accuracy
    names = list(edits)
    cheapest = [i for i in range(1, 9) if names[i] != "no momentum, no Adam"]
    item.claim("accuracy of the standard procedure, %", accuracy[0], above=85)
    item.claim(
        "points lost without momentum and Adam", lost[names.index("no momentum, no Adam")], above=3
    )
    item.claim("points lost by one of the others left out, mean", lost[cheapest].mean(0), below=10)
    item.claim("points lost with none of them", lost[-2], below=15)
    item.claim("points lost with small weights alone", lost[names.index("small weights")], below=10)
    item.claim("accuracy with none and small weights, % (chance: 10)", accuracy[-1], below=20)

    figure, (axes,) = panels(1, 1, 5.4, 3.8)
    for i, _ in enumerate(names):
        colour = COLOURS[0 if i == 0 else 1 if i < 9 else 3]
        axes.plot(accuracy[i], np.full(seeds, i), "o", color=colour, ms=4, alpha=0.8)
        axes.plot([accuracy[i].mean()], [i], "|", color=colour, ms=16)
    axes.axvline(accuracy[0].mean(), color=COLOURS[6], lw=0.7, ls=":")
    axes.set(
        yticks=range(len(names)),
        yticklabels=names,
        xlabel="validation accuracy in %",
        xlim=(0, 101),
    )
    axes.set_title(f"one bit left out: digits, {seeds} seeds, bars: means")
    axes.invert_yaxis()
    return figure
