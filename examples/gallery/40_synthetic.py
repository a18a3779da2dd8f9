"""Training on synthetic examples, testing on real ones.

Claim: Trained on thousands of drawn digits alone, a network reads scanned ones better than chance and far worse than
drawn ones; three labelled scans a digit, with no drawn ones, teach more. What drawn digits first add to these scans
differs from seed to seed, as the last two columns show, and no claim is made of it.

To see it fail: draw letters in place of digits (``alphabet="letters"``, A to J): they teach little of digits.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import ravine
from ravine.data.synthetic import characters
from ravine.gallery.drawing import COLOURS, panels

FEW = 3  # scans of each digit
LAYERS = [
    {"kind": "conv", "channels": 16, "kernel": 3, "padding": "same"},
    "relu",
    {"kind": "maxpool", "size": 2},
    {"kind": "conv", "channels": 32, "kernel": 3, "padding": "same"},
    "relu",
    {"kind": "maxpool", "size": 2},
    "flatten",
    {"kind": "dense", "units": 64},
    "relu",
    {"kind": "dense", "units": 10},
]


def drawn(samples):
    """Drawn digits, cut to their ink and shrunk to 8 x 8 as the scans were."""
    found = characters(Path(), samples=samples, size=40, alphabet="digits", noise=0.0)
    part, images = found.parts["train"], []
    for one in np.asarray(part.x)[:, 0]:
        rows, columns = np.flatnonzero(one.max(1) > 40), np.flatnonzero(one.max(0) > 40)
        ink = one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        small = Image.fromarray(ink).resize((6, 8), Image.Resampling.BOX)
        images.append(np.pad(np.asarray(small), ((0, 0), (1, 1))))
    x = np.array(images, np.float32)[:, None] / 255
    return x / x.max((1, 2, 3), keepdims=True), np.asarray(part.y)


def draw(item):
    seeds = range(item.size(10, 8))
    scans = load_digits()
    x, y = (scans.images[:, None] / 16).astype(np.float32), scans.target
    recipe = ravine.Recipe(
        model={"layers": LAYERS},
        data={"batch": 32},
        optimizer={"kind": "adam", "lr": 0.002},
        schedule="cosine",
        stop={"after": f"{item.size(10, 8)}ep"},
    )
    synthetic = drawn(item.size(3000, 2000))
    runs = ravine.train_many(
        [recipe.edit({"seed": s}) for s in seeds], data=synthetic, out=item.out("drawn"), quiet=True
    )
    few = recipe.edit({"data.batch": 10, "stop.after": "150it", "optimizer.lr": 0.001})
    accuracy = {
        "drawn,\ntested\non drawn": [100 * run.result["test_accuracy"] for run in runs],
        "drawn,\ntested\non scans": [],
        f"{10 * FEW} scans": [],
        f"drawn, then\n{10 * FEW} scans": [],
    }
    names = list(accuracy)
    for s, run in enumerate(runs):
        order = np.random.default_rng(s).permutation(len(y))
        part = np.concatenate([order[:900][y[order[:900]] == c][:FEW] for c in range(10)])
        held = order[900:]
        accuracy[names[1]].append(100 * run.evaluate(data=(x[held], y[held]))["accuracy"])
        data = {"train": (x[part], y[part]), "validation": (x[held], y[held])}
        start = {"weights": str(run.directory)}  # the first of them
        for name, edit in ((names[2], {}), (names[3], {"start": start})):
            found = ravine.train(
                few.edit({"seed": s, **edit}),
                data=data,
                out=item.out(f"{len(edit)} {s}"),
                quiet=True,
                doctor=False,
            )
            accuracy[name].append(100 * found.result["val_accuracy"])
    own, other, scratch, _ = (np.array(values) for values in accuracy.values())
    item.claim("trained on drawn digits alone: accuracy on scans, % (chance: 10)", other, above=15)
    item.claim("points lost between drawn and scanned", own - other, above=15)
    item.claim(
        f"{FEW} scans a digit alone minus drawn digits alone, points", scratch - other, above=5
    )

    figure, (left, right) = panels(1, 2, 4.2, 3.3)
    for k, (images, name) in enumerate(((synthetic[0], "drawn"), (x, "scanned"))):
        labels = synthetic[1] if k == 0 else y
        tiles = [
            np.pad(images[np.flatnonzero(labels == c)[0], 0], 1, constant_values=np.nan)
            for c in range(10)
        ]
        sheet = np.concatenate([np.concatenate(tiles[:5], 1), np.concatenate(tiles[5:], 1)])
        left.imshow(sheet, cmap="gray", extent=(0, 50, 24 * (1 - k) + 2, 24 * (1 - k) + 22))
        left.text(-1, 24 * (1 - k) + 12, name, rotation=90, ha="right", va="center")
    left.set(
        xlim=(-4, 50), ylim=(0, 48), xticks=[], yticks=[], title="drawn and scanned, 8 x 8 pixels"
    )
    left.axis("off")
    for i, values in enumerate(accuracy.values()):
        right.plot([i] * len(seeds), values, "o", color=COLOURS[i])
    right.set(
        ylabel="accuracy in %",
        ylim=(0, 102),
        title="trained on …",
        xlim=(-0.5, 3.5),
        xticks=range(4),
    )
    right.set_xticklabels(names, fontsize=8.5)
    return figure
