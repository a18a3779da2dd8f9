"""Loss surfaces: the line from start to end, shortcuts, sharp and flat minima.

Claim: The straight line from a network's start to its end goes downhill. Two pictures of the lectures do not show at
this size: a plain network of 12 layers that has trained as well as one with shortcuts has no higher surface around
it, and minima of large batches are not clearly sharper than those of small ones.

To see it fail: ``DEPTH = 60``: a plain network of so many layers hardly trains, and its surface is another.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, band, panels

DEPTH = 12


def network(shortcut):
    block = {
        "kind": "residual",
        "shortcut": shortcut,
        "layers": [{"kind": "dense", "units": 32}, "tanh"],
    }
    layers = [
        "flatten",
        {"kind": "dense", "units": 32},
        *[block] * DEPTH,
        {"kind": "dense", "units": 10},
    ]
    return {"layers": layers, "init": {"weights": "glorot_normal"}}


def draw(item):
    seeds = range(item.size(5, 3))
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
    options = {"quiet": True, "samples": 300}
    shapes = [
        ravine.landscape(run, points=11, out=item.out(f"plane{i}"), **options)["grids"][0]
        for i, run in enumerate(runs)
    ]
    height = np.array([np.nanmedian(np.array(shape["loss"], float)) for shape in shapes]).reshape(
        2, -1
    )
    item.claim(
        "median loss over the plane, plain / with shortcuts", height[1] / height[0], below=1.2
    )

    base = recipe.edit({"model": {"kind": "mlp", "hidden": [64]}, "schedule": "constant"})
    still = base.edit({"optimizer": {"kind": "sgd", "lr": 1e-12}, "stop.after": "1it"})
    pairs = ravine.train_many(
        [one.edit({"seed": s}) for one in (still, base) for s in seeds],
        out=item.out("line"),
        quiet=True,
    )
    lines = []
    for s in seeds:
        found = ravine.landscape(
            pairs[s],
            pairs[len(seeds) + s],
            kind="between",
            points=21,
            out=item.out(f"line{s}"),
            **options,
        )
        lines.append(np.array(found["grids"][0]["loss"], float).ravel())
    where = np.array(found["grids"][0]["x"], float)
    lines, inside = np.array(lines), (where >= 0) & (where <= 1)
    rises = [np.maximum(0, np.diff(line[inside])).sum() / line[inside].max() for line in lines]
    item.claim("rise on the line from start to end, of its height", rises, below=0.05)

    sizes = {"batch 8": 8, "batch 512": 512}
    sized = [
        base.edit(
            {
                "data.batch": b,
                "seed": s,
                "optimizer": {"kind": "sgd", "lr": 0.1},
                "stop.after": f"{item.size(60, 40) * (1 + 3 * (b > 8))}ep",
            }
        )
        for b in sizes.values()
        for s in seeds
    ]
    found = ravine.train_many(sized, out=item.out("sizes"), quiet=True)
    bowls = [
        np.array(
            ravine.landscape(run, kind="line", points=21, out=item.out(f"bowl{i}"), **options)[
                "grids"
            ][0]["loss"],
            float,
        ).ravel()
        for i, run in enumerate(found)
    ]
    bowls = np.array(bowls).reshape(2, len(seeds), -1)
    bowls = bowls - bowls.min(-1, keepdims=True)
    ends = bowls[..., [0, -1]].mean(-1)
    item.claim(
        "rise of the loss at the filters' own size, batch 512 / batch 8",
        ends[1] / ends[0],
        above=0.2,
        below=5.0,
    )

    figure, axes = panels(1, 4, 3.1, 3.0)
    top = max(
        np.nanmax(np.array(shapes[0]["loss"], float)),
        np.nanmax(np.array(shapes[len(seeds)]["loss"], float)),
    )
    for box, shape, name in (
        (axes[0], shapes[0], "with shortcuts"),
        (axes[1], shapes[len(seeds)], "plain"),
    ):
        levels = np.geomspace(0.05, top, 10)
        box.contourf(
            shape["x"],
            shape["y"],
            np.array(shape["loss"], float).clip(0.05),
            levels,
            cmap="viridis_r",
        )
        box.set(title=f"{name}, {DEPTH} layers", xlabel="direction 1", ylabel="direction 2")
    band(axes[2], where, lines, "loss", 0)
    axes[2].axvspan(0, 1, color=COLOURS[6], alpha=0.1, lw=0)
    axes[2].set(
        xlabel="0: start, 1: end",
        ylabel="loss",
        title="line from start to end",
        xlim=(-0.3, 1.3),
        ylim=(0, 4),
    )
    for i, name in enumerate(sizes):
        band(axes[3], np.linspace(-1, 1, 21), bowls[i], name, i, ls=DASHES[i])
    axes[3].set(
        xlabel="one direction, in filters' sizes",
        ylabel="loss above the minimum",
        title="sharp and flat",
    )
    axes[3].legend()
    return figure
