"""Activations while a network trains: saturation, drift, and batch norm.

Claim: Over training sigmoids move to their flat ends. Batch norm keeps the mean input of a unit nearer to zero, as
lectures say; that it also keeps its units from saturating does not show here: spread to unit variance, more of them
reach the ends than in a plain network.

To see it fail: ``LR = 0.01``: in so few epochs nothing moves.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, band, panels

LR, EPOCHS = 1.0, (1, 2, 4, 8, 16)


def hidden(run, images):
    """The inputs of the last sigmoid and its outputs."""
    z = run.pipeline.transform(images)
    with torch.no_grad():
        for part in run.model:
            before, z = z, part(z)
            if isinstance(part, torch.nn.Sigmoid):
                found = before, z
    return found


def draw(item):
    seeds = range(item.size(8, 6))
    images = load_digits().images[:300, None]
    recipe = ravine.Recipe(
        data={
            "source": "digits",
            "batch": 32,
            "preprocess": [{"kind": "standardize", "per": "channel"}],
        },
        optimizer={"kind": "sgd", "lr": LR},
    )
    model = {
        "kind": "mlp",
        "hidden": [32, 32],
        "activation": "sigmoid",
        "init": {"weights": "glorot_normal"},
    }
    arms = ("none", "batch")
    recipes = [  # the same run, ended after more and more epochs
        recipe.edit({"model": {**model, "norm": norm}, "seed": s, "stop.after": f"{epochs}ep"})
        for norm in arms
        for s in seeds
        for epochs in EPOCHS
    ]
    runs = ravine.train_many(recipes, out=item.out(), quiet=True)
    seen = [hidden(run, images) for run in runs]
    flat = np.array([float(((a < 0.05) | (a > 0.95)).double().mean()) for _, a in seen]).reshape(
        2, len(seeds), -1
    )
    level = np.array([float(z.mean(0).abs().mean()) for z, _ in seen]).reshape(2, len(seeds), -1)
    item.claim(
        "saturated activations at the end minus after an epoch, plain",
        flat[0, :, -1] - flat[0, :, 0],
        above=0.02,
    )
    item.claim(
        "saturated at the end, batch norm minus plain", flat[1, :, -1] - flat[0, :, -1], above=0.0
    )
    item.claim(
        "log2 of a unit's mean input at the end, plain / batch norm",
        np.log2(level[0, :, -1] / level[1, :, -1]),
        above=0.0,
    )

    figure, axes = panels(2, 2, 4.0, 2.9)
    for i, name in enumerate(("plain", "batch norm")):
        for k, colour in ((0, 0), (2, 1), (4, 2)):
            a = seen[i * len(seeds) * len(EPOCHS) + k][1].numpy().ravel()
            axes[i].hist(
                a,
                bins=40,
                range=(0, 1),
                density=True,
                histtype="step",
                color=COLOURS[colour],
                ls=DASHES[colour],
                label=f"epoch {EPOCHS[k]}",
            )
        axes[i].set(xlabel="activation", ylabel="density", title=f"last hidden layer, {name}")
        axes[i].legend()
        band(axes[2], EPOCHS, 100 * flat[i], name, i)
        band(axes[3], EPOCHS, level[i], name, i)
    axes[2].set(xlabel="epoch", ylabel="activations in %", title="below 0.05 or above 0.95")
    axes[3].set(
        xlabel="epoch", ylabel="|mean| of a unit's input", title="drift before the activation"
    )
    axes[2].legend()
    return figure
