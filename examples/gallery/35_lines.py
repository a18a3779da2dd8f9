"""The line from a run's start to its end, and averages on the way.

Claim: The loss falls all along the straight line from a network's first weights to its last, though the run did not go
that way; at a constant high rate the average of the weights of the last epochs has a lower loss than the last weights.

To see it fail: end with a low rate, ``SCHEDULE = "cosine"``: the last weights are as good as their average.
"""

import numpy as np
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, FAINT, MARKERS, band, panels

SCHEDULE, LR = "constant", 0.3


def noisy():
    """Digits under noise that no network can look through: the gradient keeps its noise to the end."""
    x, y = load_digits(return_X_y=True)
    x = (x - x.mean()) / x.std() + np.random.default_rng(0).normal(0, 1.5, x.shape)
    return {
        "train": (x[:1200].astype(np.float32), y[:1200]),
        "validation": (x[1200:].astype(np.float32), y[1200:]),
    }


def draw(item):
    seeds, epochs = range(item.size(10, 8)), item.size(30, 20)
    options, data = {"quiet": True, "samples": 1000}, noisy()
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [12], "activation": "tanh"},
        data={"batch": 8},
        optimizer={"kind": "sgd", "lr": LR},
        schedule=SCHEDULE,
        stop={"after": f"{epochs}ep"},
    )
    still = recipe.edit({"optimizer.lr": 1e-12, "stop.after": "1it"})
    averaged = recipe.edit({"average.swa": f"{epochs // 2}ep"})
    runs = ravine.train_many(
        [one.edit({"seed": s}) for one in (still, recipe, averaged) for s in seeds],
        data=data,
        out=item.out(),
        quiet=True,
    )
    start, last, mean = (runs[k * len(seeds) : (k + 1) * len(seeds)] for k in range(3))

    def line(one, other, name):
        out = item.out(name)
        found = ravine.landscape(
            one, other, data=data, kind="between", points=25, out=out, **options
        )
        shape = found["grids"][0]
        return np.array(shape["x"], float), np.array(shape["loss"], float).ravel()

    to_end = [line(start[s], last[s], f"end{s}") for s in seeds]
    to_mean = [line(last[s], mean[s], f"mean{s}") for s in seeds]
    where, lines = to_end[0][0], np.array([values for _, values in to_end])
    across = np.array([values for _, values in to_mean])
    inside = lines[:, (where >= 0) & (where <= 1)]
    rises = np.maximum(0, np.diff(inside, axis=1)).sum(1) / inside.max(1)
    item.claim("rise on the line from start to end, of its height", rises, below=0.02)
    near = [np.abs(where - place).argmin() for place in (0.0, 1.0)]
    ratio = across[:, near[1]] / across[:, near[0]]
    item.claim("training loss, average of the second half / last weights", ratio, below=1.0)
    val = np.array([[run.result["val_loss"] for run in part] for part in (last, mean)])
    item.claim("validation loss, the same", val[1] / val[0], below=1.0)

    figure, (course, between) = panels(1, 2, 4.2, 3.2)
    band(course, where, lines, "loss", 0)
    course.axvspan(0, 1, color=COLOURS[6], alpha=0.1, lw=0)
    course.set(
        xlabel="place on the line (0: first weights, 1: last)",
        ylabel="training loss",
        title=f"from start to end, {len(seeds)} seeds",
        xlim=(-0.3, 1.3),
        ylim=(0, 4),
    )
    for s in seeds:
        between.plot(where, across[s], color=COLOURS[1], lw=1)
        between.plot([0, 1], across[s][near], MARKERS[0], color=COLOURS[1], ms=4)
    for place in (0, 1):
        between.axvline(place, color=FAINT, ls=":", lw=1)
    between.set(
        xlabel="place on the line (0: last weights, 1: average)",
        ylabel="training loss",
        title="from the last weights to their average",
        xlim=(-0.5, 1.5),
        xticks=[-0.5, 0, 0.5, 1, 1.5],
        ylim=(0, 2 * across[:, near[0]].max()),
    )
    return figure
