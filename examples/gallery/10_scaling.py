"""Scaling, centring and whitening of the inputs.

Claim: Centring makes the loss of a linear model rounder, scaling rounder still, whitening round: the steps of descent
to the same loss fall with the condition number. PCA and ZCA of images take away the correlation of neighbours.

To see it fail: draw features that are centred, equal in scale and independent (``MIX = np.eye(2)``, ``OFFSET = 0``).
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

import ravine
from ravine.data.preprocessing.preprocess import center, standardize
from ravine.data.preprocessing.whitening import pca_whiten, zca
from ravine.gallery.drawing import COLOURS, MARKERS, log_axis, panels

MIX, OFFSET = np.array([[3.0, 0.0], [0.8, 0.3]]), np.array([4.0, 2.0])
TARGET, MOST = 0.02, 800  # loss, steps
PREPROCESS = {"center": center, "standardize": standardize, "pca_whiten": pca_whiten, "zca": zca}
ARMS = {"raw": [], "centred": ["center"], "scaled": ["standardize"], "whitened": ["pca_whiten"]}


def table(seed, samples=400):
    random = np.random.default_rng(seed)
    x = random.normal(size=(samples, 2)) @ MIX.T + OFFSET
    y = x @ np.linalg.inv(MIX).T @ np.array([1.0, -1.0]) + random.normal(0, 0.1, samples)
    return x.astype(np.float32), (y - y.mean()).astype(np.float32)


def fitted(kinds, x, **fields):
    x = torch.tensor(x)
    for kind in kinds:
        x = PREPROCESS[kind](x, **fields)(x)
    return x.double().numpy()


def draw(item):
    seeds = range(item.size(8, 4))
    rates = np.geomspace(0.01, 0.9, 10)
    steps, condition = np.zeros((len(seeds), 4)), np.zeros((len(seeds), 4))
    for s in seeds:
        x, y = table(s)
        data = {
            "train": (np.tile(x, (20, 1)), np.tile(y, 20)),
            "validation": (x, y),
        }  # 20 steps an epoch
        base = ravine.Recipe(
            model="linear", optimizer="sgd", data={"batch": len(x)}, precision="float64"
        )
        base = base.edit({"stop": {"after": f"{MOST}it", "on_trouble": "report"}})
        recipes = [
            base.edit({"data.preprocess": a, "optimizer.lr": float(r)})
            for a in ARMS.values()
            for r in rates
        ]
        runs = ravine.train_many(recipes, data=data, out=item.out(f"seed{s}"), quiet=True)
        needed = [min([MOST, *np.flatnonzero(run.losses < TARGET)]) + 1 for run in runs]
        steps[s] = np.array(needed).reshape(4, -1).min(1)
        condition[s] = [_condition(fitted(arm, x)) for arm in ARMS.values()]
    names = list(ARMS)
    for i in (1, 2, 3):
        item.claim(
            f"log2 of the steps to the target, {names[i - 1]} / {names[i]}",
            np.log2(steps[:, i - 1] / steps[:, i]),
            above=0.5,
        )
    item.claim("condition number, whitened", condition[:, 3], below=1.1)
    images = load_digits().data.astype(np.float32)
    white = {name: fitted([name], images, epsilon=0.1) for name in ("pca_whiten", "zca")}
    item.claim("correlation of neighbouring pixels, raw", _neighbours(images), above=0.2)
    item.claim("the same after ZCA", abs(_neighbours(white["zca"])), below=0.1)

    figure, axes = panels(2, 4, 2.5, 2.5)
    x, y = table(0)
    for i, (box, (name, arm)) in enumerate(zip(axes[:4], ARMS.items(), strict=True)):
        z = np.c_[fitted(arm, x), np.ones(len(x))]
        best = np.linalg.lstsq(z, y, rcond=None)[0]
        half = 4.0 / np.sqrt(np.linalg.eigvalsh(z[:, :2].T @ z[:, :2] / len(x))[0])
        a = np.linspace(-half, half, 80)
        offsets = np.stack([*np.meshgrid(a, a), np.zeros((80, 80))], -1) @ (z.T @ z / len(x))
        loss = (offsets[..., :2] * np.stack(np.meshgrid(a, a), -1)).sum(-1)
        box.contour(
            a + best[0],
            a + best[1],
            loss,
            np.linspace(0.5, 12, 7),
            colors=COLOURS[i],
            linewidths=0.9,
        )
        box.set(
            title=f"{name}: {steps[:, i].mean():.0f} steps", xlabel="weight 1", ylabel="weight 2"
        )
        box.set_aspect("equal", adjustable="datalim")
    axes[4].loglog(condition, steps, "o", ms=4)
    for i, line in enumerate(axes[4].lines):
        line.set(color=COLOURS[i], marker=MARKERS[i], label=names[i])
    for axis in "xy":
        log_axis(axes[4], axis)
    axes[4].set(
        xlabel="condition number", ylabel="steps to the target", title=f"{len(seeds)} data sets"
    )
    axes[4].legend(handlelength=0.8)
    for box, (name, found) in zip(
        axes[5:],
        {"raw digits": images, "PCA-whitened": white["pca_whiten"], "ZCA": white["zca"]}.items(),
        strict=True,
    ):
        width = found.shape[1]
        tiles = found[:9] if width == 64 else np.pad(found[:9], ((0, 0), (0, 64 - width)))
        sheet = tiles.reshape(3, 3, 8, 8).transpose(0, 2, 1, 3).reshape(24, 24)
        box.imshow(sheet, cmap="gray", vmin=np.quantile(sheet, 0.02), vmax=np.quantile(sheet, 0.98))
        box.set(xticks=[], yticks=[], title=name)
        box.grid(False)
    return figure


def _condition(x):
    values = np.linalg.eigvalsh(np.c_[x, np.ones(len(x))].T @ np.c_[x, np.ones(len(x))])
    return values[-1] / values[0]


def _neighbours(x):
    """Mean correlation of pixels that lie side by side, of those that vary."""
    x = x.reshape(-1, 8, 8)[:, :, 1:7]
    pairs = [(x[:, r, c], x[:, r, c + 1]) for r in range(8) for c in range(5)]
    return float(
        np.mean(
            [np.corrcoef(a, b)[0, 1] for a, b in pairs if a.std() > 0.5 and b.std() > 0.5] or [0]
        )
    )
