"""Loss surfaces with and without shortcuts.

Claim: The lectures' picture, a rugged surface without shortcuts and a smooth bowl with them, does not show at this
size: a plain network of 12 layers that has trained as well as one with shortcuts has no higher surface around it.

To see it fail: ``DEPTH = 60``: a plain network of so many layers hardly trains, and its surface is another.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, INK, MARKERS, panels

DEPTH = 12
LEVELS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)


def network(shortcut):
    block = {
        "kind": "residual",
        "shortcut": shortcut,
        "layers": [{"kind": "dense", "units": 32}, "tanh"],
    }
    layers = ["flatten", {"kind": "dense", "units": 32}, *[block] * DEPTH]
    return {
        "layers": [*layers, {"kind": "dense", "units": 10}],
        "init": {"weights": "glorot_normal"},
    }


def draw(item):
    seeds = range(item.size(8, 5))
    recipe = ravine.Recipe(
        data={
            "source": "digits",
            "batch": 64,
            "preprocess": [{"kind": "standardize", "per": "channel"}],
        },
        optimizer={"kind": "adam", "lr": 0.003},
        schedule="cosine",
        stop={"after": f"{item.size(40, 25)}ep"},
    )
    arms = {"with shortcuts": network("identity"), "plain": network("none")}
    runs = ravine.train_many(
        [recipe.edit({"model": model, "seed": s}) for model in arms.values() for s in seeds],
        out=item.out("depth"),
        quiet=True,
    )
    trained = [run.result["train_loss"] for run in runs]
    item.claim("training loss of all, largest: each has trained", max(trained), below=0.3)
    shapes = [
        ravine.landscape(run, points=11, samples=300, quiet=True, out=item.out(f"plane{i}"))
        for i, run in enumerate(runs)
    ]
    planes = np.array([shape["grids"][0]["loss"] for shape in shapes], float)
    planes = planes.reshape(2, len(seeds), 11, 11)  # [arms, S, y, x]
    height = np.nanmedian(planes, (2, 3))
    text = "median loss over the plane, plain / with shortcuts"
    item.claim(text, height[1] / height[0], below=1.2)

    figure, axes = panels(1, 3, 3.5, 3.2)
    grid = shapes[0]["grids"][0]
    for box, arm, name, colour in zip(axes, planes, arms, COLOURS, strict=False):
        lines = box.contour(grid["x"], grid["y"], arm[0], LEVELS, colors=colour, linewidths=1)
        box.clabel(lines, LEVELS[3:], fontsize=8.5, fmt="%g", colors=INK)
        box.set(title=f"loss, {name}", xlabel="direction 1", ylabel="direction 2")
        box.set_aspect("equal")
    for i, values in enumerate(height):
        axes[2].plot([i] * len(seeds), values, MARKERS[i], color=COLOURS[i])
    axes[2].set(
        xticks=[0, 1],
        xticklabels=arms,
        xlim=(-0.5, 1.5),
        ylim=(0, None),
        ylabel="median loss over the plane",
        title=f"{DEPTH} layers, {len(seeds)} seeds",
    )
    return figure
