"""Grid against random search, and a search that tightens.

Claim: Where one of two numbers matters, random search tries as many of its values as there are runs, a grid only the
root of that, and so it finds better ones; 25 runs, tightened, and 25 more beat 50 at once.

To see it fail: let both numbers matter alike, ``MINOR = 1.0``: the grid loses nothing then.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, FAINT, panels

MINOR = 0.03  # how much the second number matters
SIDE = 5


def quality(x, y, place):
    return np.exp(-(((x - place[0]) / 0.06) ** 2)) + MINOR * np.exp(-(((y - place[1]) / 0.06) ** 2))


def tightened(random, place, tries=25):
    """What 25 more random points in half the range around the best of 25 find beyond 25 anywhere."""
    first = random.random((tries, 2))
    best = first[quality(*first.T, place).argmax()]
    near = np.clip(best + random.uniform(-0.25, 0.25, (tries, 2)), 0, 1)
    found = [quality(*points.T, place).max() for points in (first, near, random.random((tries, 2)))]
    return max(found[:2]) - max(found[0], found[2])


def draw(item):
    tries = item.size(2000, 500)
    random = np.random.default_rng(0)
    places = random.random((tries, 2))
    line = (np.arange(SIDE) + 0.5) / SIDE
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    drawn = random.random((tries, SIDE * SIDE, 2))
    by_grid = np.array([quality(*grid.T, place).max() for place in places])
    by_random = np.array(
        [quality(*points.T, place).max() for points, place in zip(drawn, places, strict=True)]
    )
    item.claim("best found, random minus grid, 25 tries", by_random - by_grid, above=0.1)
    again = [tightened(random, place) for place in random.random((4000, 2))]
    item.claim("best found, 25, tightened, and 25 minus 50 at once", again, above=0.0)

    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [16]},
        data={"source": "digits", "batch": 64, "preprocess": ["rescale"]},
        optimizer={"kind": "adamw", "lr": 0.001},
        stop={"after": "3ep"},
    )
    vary = ["optimizer.lr=loguniform:1e-5:1", "optimizer.weight_decay=loguniform:1e-5:1"]
    lowest = {}
    for name, options in {"50 at once": (50, 1), "25, tightened, 25": (25, 2)}.items():
        found = [
            ravine.search(
                recipe.edit({"seed": seed}),
                vary,
                members=options[0],
                rounds=options[1],
                finals=1,
                metric="val_loss",
                drop=False,
                out=item.out(f"{name} {seed}"),
                quiet=True,
            )
            for seed in range(5)
        ]
        lowest[name] = [
            min(row["val_loss"] for row in one["table"] if row["val_loss"] is not None)
            for one in found
        ]
    ratio = np.array(lowest["25, tightened, 25"]) / np.array(lowest["50 at once"])
    item.claim("digits: lowest validation loss, tightened / at once", ratio, below=1.2)

    figure, axes = panels(1, 3, 3.5, 3.2)
    x, place = np.linspace(0, 1, 200), (0.37, 0.6)
    for box, points, name, colour in (
        (axes[0], grid, "grid", COLOURS[1]),
        (axes[1], drawn[0], "random", COLOURS[0]),
    ):
        box.plot(x, 1.05 + 0.25 * quality(x, 0, place), color=FAINT)
        box.plot(*points.T, "o", color=colour, ms=4)
        best = quality(*points.T, place).max() / quality(*place, place)
        box.vlines(
            points[:, 0], 1.05, 1.05 + 0.25 * quality(points[:, 0], 0, place), color=colour, lw=0.8
        )
        box.set(
            xlabel="the number that matters",
            ylabel="the other",
            title=f"{name}: {100 * best:.0f} % of the best",
            xlim=(0, 1),
        )
        box.set_yticks([])
    for i, values in enumerate(lowest.values()):
        axes[2].plot([i] * len(values), values, "o", color=COLOURS[i])
    axes[2].set(
        xticks=[0, 1],
        xticklabels=["50 at once", "25, then 25\naround the best"],
        ylabel="lowest validation loss",
    )
    axes[2].set(title="digits: rate and decay", xlim=(-0.5, 1.5))
    return figure
