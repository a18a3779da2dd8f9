"""PCA and ZCA of images.

Claim: Half of the principal components of the digits hold over 95 % of their variance; whitening by PCA and by ZCA both
take away every correlation, and of the two ZCA stays closer to the image, so that it can still be read. On components a
convolutional network makes more errors than on the images; on ZCA's images too, so that lost neighbours are not the
only reason.

To see it fail: whiten with a large epsilon, ``EPSILON = 1000.0``: correlations stay.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

import ravine
from ravine.data.preprocessing.preprocess import center
from ravine.data.preprocessing.whitening import pca, pca_whiten, zca
from ravine.gallery.drawing import COLOURS, FAINT, MARKERS, panels

EPSILON = 0.1
LAYERS = [
    {"kind": "conv", "channels": 16, "kernel": 3, "padding": "same"},
    "relu",
    {"kind": "maxpool", "size": 2},
    {"kind": "conv", "channels": 16, "kernel": 3, "padding": "same"},
    "relu",
    {"kind": "maxpool", "size": 2},
    "flatten",
    {"kind": "dense", "units": 10},
]


def correlation(x):
    """The mean absolute correlation of two features, of those that vary."""
    x = x[:, x.std(0) > 0.1]
    values = np.abs(np.corrcoef(x.T))
    return float((values.sum() - len(values)) / (len(values) * (len(values) - 1)))


def likeness(x, other):
    """The mean correlation of an image with its changed self."""
    x, other = (part - part.mean(0) for part in (x, other))
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(x, other, strict=True)])


def draw(item):
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images)
    ways = {"PCA": pca_whiten(x, epsilon=EPSILON), "ZCA": zca(x, epsilon=EPSILON)}
    white = {name: way(x).numpy() for name, way in ways.items()}
    parts = (images - images.mean(0)) @ np.linalg.svd(images - images.mean(0))[2].T
    held = np.cumsum(parts.var(0)) / parts.var(0).sum()
    item.claim("part of the variance in the first 32 of 64 components", float(held[31]), above=0.95)
    item.claim("mean |correlation| of two pixels", correlation(images), above=0.1)
    for name, found in white.items():
        item.claim(f"the same, whitened by {name}", correlation(found), below=0.01)
    close = {name: likeness(images, found) for name, found in white.items()}
    item.claim(
        "correlation of an image with its whitened self, ZCA minus PCA",
        close["ZCA"] - close["PCA"],
        above=0.2,
    )

    seeds = range(item.size(6, 4))
    recipe = ravine.Recipe(
        model={"layers": LAYERS},
        data={"batch": 32},
        optimizer={"kind": "adam", "lr": 0.005},
        schedule="cosine",
        stop={"after": f"{item.size(12, 10)}ep"},
    )
    arms = {"centred": center(x, per="global")(x), "ZCA": ways["ZCA"](x), "PCA": pca(x)(x)}
    error = {}
    for name, found in arms.items():
        z = found.float().numpy()
        z = (z / z.std()).reshape(-1, 1, 8, 8)
        split = {"train": (z[:300], labels[:300]), "validation": (z[300:], labels[300:])}
        runs = ravine.train_many(
            [recipe.edit({"seed": s}) for s in seeds], data=split, out=item.out(name), quiet=True
        )
        error[name] = np.array([100 - 100 * run.result["val_accuracy"] for run in runs])
    item.claim(
        "error of a convolutional network, on components minus on images, points",
        error["PCA"] - error["centred"],
        above=2,
    )

    figure, axes = panels(2, 3, 3.0, 2.8)
    axes[0].plot(np.arange(1, 65), 100 * held, color=COLOURS[0])
    axes[0].axvline(32, color=FAINT, ls=":", lw=1)
    axes[0].set(xlabel="components", ylabel="variance held in %", title="the digits", ylim=(0, 103))
    shown = {"images": images, "whitened by PCA": white["PCA"], "whitened by ZCA": white["ZCA"]}
    for box, (name, found) in zip(axes[1:4], shown.items(), strict=True):
        tiles = np.pad(found[:9], ((0, 0), (0, 64 - found.shape[1]))).reshape(3, 3, 8, 8)
        tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        sheet = tiles.transpose(0, 2, 1, 3).reshape(30, 30)
        low, high = np.nanquantile(sheet, (0.02, 0.98))
        box.imshow(sheet, cmap="gray", vmin=low, vmax=high)
        box.set_title(name)
        box.set_axis_off()
    for i, values in enumerate(error.values()):
        axes[4].plot([i] * len(seeds), values, MARKERS[i], color=COLOURS[i], ms=4)
    axes[4].set(
        xticks=range(3),
        xticklabels=["images", "ZCA", "PCA"],
        ylabel="validation error in %",
        title="a convolutional network",
        xlim=(-0.5, 2.5),
        ylim=(0, None),
    )
    axes[5].remove()
    return figure
