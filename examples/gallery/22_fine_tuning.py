"""Few labels: fine-tuning from a related task, and training on synthetic examples.

Claim: With three labelled examples a letter, a network that first learnt other letters is better than one from
scratch; trained on drawn digits alone, a network reads scanned ones better than chance but far below one trained on
scans.

To see it fail: give sixty labels a letter, ``LABELS = 60``: training from scratch has caught up.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import ravine
from ravine.data.synthetic import characters
from ravine.gallery.drawing import COLOURS, panels

LABELS = 3  # of each letter


def digits():
    found = load_digits()
    return (found.images[:, None] / 16).astype(np.float32), found.target


def drawn(samples):
    """Drawn digits in the size of the scans."""
    part = characters(Path(), samples=samples, size=28, alphabet="digits").parts["train"]
    half = Image.Resampling.BOX
    images = [Image.fromarray(np.asarray(one[0])).resize((8, 8), half) for one in part.x]
    return np.array(images, np.float32)[:, None] / 255, np.asarray(part.y)


def letters():
    """Two tasks of 13 letters each: A to M, and N to Z from 0."""
    part = characters(Path(), samples=2600, size=12, rotation=20.0, noise=0.15).parts["train"]
    x, y = np.asarray(part.x, np.float32) / 255, np.asarray(part.y)
    return (x[y < 13], y[y < 13]), (x[y >= 13], y[y >= 13] - 13)


def network(outputs):
    convolution = {"kind": "conv", "kernel": 3, "padding": "same"}
    layers = []
    for channels in (16, 32):
        layers += [{**convolution, "channels": channels}, "relu", {"kind": "maxpool", "size": 2}]
    return {
        "layers": [
            *layers,
            "flatten",
            {"kind": "dense", "units": 64},
            "relu",
            {"kind": "dense", "units": outputs},
        ]
    }


def draw(item):
    seeds = item.size(8, 8)
    recipe = ravine.Recipe(
        model=network(13),
        data={"batch": 32},
        optimizer={"kind": "adam", "lr": 0.003},
        stop={"after": f"{item.size(15, 15)}ep"},
    )
    related, (x, y) = letters()
    before = ravine.train(recipe, data=related, out=item.out("before"), quiet=True, doctor=False)
    start = {"weights": str(before.directory), "head": "replace"}
    few = recipe.edit({"data.batch": 13, "stop.after": "40ep"})
    accuracy = {"from scratch": [], "fine-tuned": []}
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        part = np.concatenate(
            [random.permutation(np.flatnonzero(y == c))[:LABELS] for c in range(13)]
        )
        rest = np.setdiff1d(np.arange(len(y)), part)
        data = {"train": (x[part], y[part]), "validation": (x[rest], y[rest])}
        for name, edit in {"from scratch": {}, "fine-tuned": {"start": start}}.items():
            run = ravine.train(
                few.edit({"seed": seed, **edit}),
                data=data,
                out=item.out(f"{name} {seed}"),
                quiet=True,
                doctor=False,
            )
            accuracy[name].append(100 * run.result["val_accuracy"])
    gained = np.array(accuracy["fine-tuned"]) - np.array(accuracy["from scratch"])
    item.claim(f"accuracy gained by fine-tuning, {LABELS} labels a letter, points", gained, above=3)

    x, y = digits()
    whole = recipe.edit({"model": network(10)})
    runs = ravine.train_many(
        [whole.edit({"seed": s}) for s in range(seeds)],
        data=drawn(item.size(4000, 2000)),
        out=item.out("drawn"),
        quiet=True,
    )
    real = ravine.train_many(
        [whole.edit({"seed": s}) for s in range(seeds)],
        data=(x, y),
        out=item.out("scans"),
        quiet=True,
    )
    on_scans = [100 * run.evaluate(data=(x, y))["accuracy"] for run in runs]
    own = [100 * run.result["test_accuracy"] for run in runs]
    scans = [100 * run.result["test_accuracy"] for run in real]
    item.claim("trained on drawn digits: accuracy on scans, %", on_scans, above=12)
    item.claim(
        "points lost between drawn and scanned", np.array(own) - np.array(on_scans), above=10
    )

    figure, (left, right) = panels(1, 2, 4.2, 3.2)
    for i, values in enumerate(accuracy.values()):
        left.plot([i] * seeds, values, "o", color=COLOURS[i])
    left.set(
        xticks=[0, 1],
        xticklabels=accuracy,
        xlim=(-0.5, 1.5),
        ylabel="accuracy in %",
        title=f"letters N to Z, {LABELS} labels each",
    )
    for i, values in enumerate((own, on_scans, scans)):
        right.plot([i] * seeds, values, "o", color=COLOURS[i])
    right.set(
        xticks=[0, 1, 2],
        xticklabels=[
            "drawn,\ntested on drawn",
            "drawn,\ntested on scans",
            "scans,\ntested on scans",
        ],
    )
    right.set(ylabel="accuracy in %", ylim=(0, 102), title="synthetic and real", xlim=(-0.5, 2.5))
    return figure
