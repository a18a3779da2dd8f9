"""Augmentation against more data.

Claim: With 200 drawn digits, shifted copies lower the validation error clearly; four times the samples lower it about
as much or more.

To see it fail: shift by no pixels, ``PIXELS = 0``: a copy tells nothing new.
"""

from pathlib import Path

import numpy as np

import ravine
from ravine.data.synthetic import characters
from ravine.gallery.drawing import COLOURS, MARKERS, panels

PIXELS, SAMPLES, STEPS = 1, (200, 800), 400
CONVOLUTIONAL = [
    {"kind": "conv", "channels": 16, "kernel": 3, "padding": "same"},
    "relu",
    {"kind": "conv", "channels": 16, "kernel": 3, "padding": "same"},
    "relu",
    {"kind": "maxpool", "size": 2},
    "flatten",
    {"kind": "dense", "units": 10},
]


def drawn(seed):
    """Drawn digits at random places; up to 1000 to train on, 1000 to validate."""
    found = characters(Path(), samples=2000, size=12, alphabet="digits", noise=0.1, seed=seed)
    part = found.parts["train"]
    return np.asarray(part.x, np.float32) / 255, np.asarray(part.y)


def draw(item):
    seeds = range(item.size(10, 8))
    recipe = ravine.Recipe(
        model={"layers": CONVOLUTIONAL},
        data={"batch": 20},
        optimizer={"kind": "adam", "lr": 0.002},
        schedule="cosine",
        stop={"after": f"{STEPS}it"},
    )
    error = np.zeros((2, len(SAMPLES), len(seeds)))
    for s in seeds:
        x, y = drawn(s)
        for k, samples in enumerate(SAMPLES):
            parts = {"train": (x[:samples], y[:samples]), "validation": (x[1000:], y[1000:])}
            for a, pixels in enumerate((0, PIXELS)):
                augment = [{"kind": "shift", "pixels": pixels}] if pixels else []
                run = ravine.train(
                    recipe.edit({"data.augment": augment, "seed": s}),
                    data=parts,
                    out=item.out(f"{samples} {a} {s}"),
                    quiet=True,
                    doctor=False,
                )
                error[a, k, s] = 100 - 100 * run.result["val_accuracy"]
    item.claim(
        "log2 of the validation error of 200 samples, shifted / as they are",
        np.log2(error[1, 0] / error[0, 0]),
        below=0.0,
    )
    item.claim(
        "the same of 200 shifted / of 800 as they are",
        np.log2(error[1, 0] / error[0, 1]),
        above=-0.4,
    )
    item.claim(
        "the same of 800 samples / of 200, both as they are",
        np.log2(error[0, 1] / error[0, 0]),
        below=-0.2,
    )

    figure, (axes,) = panels(1, 1, 5.4, 3.4)
    for a, name in enumerate(("as they are", f"shifted by {PIXELS} pixel at most")):
        axes.plot(
            SAMPLES,
            error[a].mean(-1),
            color=COLOURS[a],
            ls=("-", "--")[a],
            marker=MARKERS[a],
            label=name,
        )
        axes.fill_between(
            SAMPLES, error[a].min(-1), error[a].max(-1), color=COLOURS[a], alpha=0.18, lw=0
        )
    axes.set_xscale("log")
    axes.set(
        xlabel="samples to train on",
        ylabel="validation error in %",
        title=f"drawn digits, as many steps each, {len(seeds)} seeds",
        ylim=(0, None),
    )
    axes.set_xticks(SAMPLES, [str(n) for n in SAMPLES])
    axes.set_xticks([], minor=True)
    axes.legend()
    return figure
