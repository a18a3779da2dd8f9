"""Lottery tickets: few of the weights, from their own start, train as well.

Claim: A quarter of the weights, those that end largest, reset to their first values, reaches the whole network's
accuracy; the same mask with new weights or a random mask does not reach the ticket's.

To see it fail: prune two rounds alone, ``ROUNDS = 2``: so many weights are left that any mask does.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, log_axis, panels

ROUNDS, RATE = 5, 0.5


def draw(item):
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [100, 50], "init": {"weights": "glorot_normal"}},
        data={"source": "digits", "batch": 60, "preprocess": ["rescale"], "validation": 0.2},
        optimizer={"kind": "adam", "lr": 0.002},
        stop={"after": f"{item.size(15, 8)}ep"},
    )
    found = ravine.lottery(
        recipe,
        rounds=ROUNDS,
        rate=RATE,
        seeds=item.size(8, 6),
        one_shot=False,
        out=item.out(),
        quiet=True,
    )
    by_arm = {}
    for row in found["rows"]:
        by_arm.setdefault(row["arm"], {}).setdefault(round(100 * row["left"], 1), []).append(
            100 * row["test_accuracy"]
        )
    names = list(by_arm)
    dense = next(iter(by_arm["dense"].values()))
    left = sorted(by_arm["winning ticket"])
    few, small = left[0], left[3]
    item.claim(
        f"ticket of {small} % of the weights minus the whole network, points",
        np.mean(by_arm["winning ticket"][small]) - np.array(dense),
        above=-2.0,
    )
    for name in names:
        if name not in ("dense", "winning ticket"):
            item.claim(
                f"ticket minus {name}, {few} % of the weights, points",
                np.array(by_arm["winning ticket"][few]) - np.array(by_arm[name][few]),
                above=0.5,
            )

    figure, (axes,) = panels(1, 1, 5.4, 3.4)
    for i, (name, found) in enumerate(by_arm.items()):
        x = sorted(found)
        mean = np.array([np.mean(found[k]) for k in x])
        axes.plot(x, mean, color=COLOURS[i], ls=DASHES[i], marker=MARKERS[i], label=name)
        axes.fill_between(
            x,
            [min(found[k]) for k in x],
            [max(found[k]) for k in x],
            color=COLOURS[i],
            alpha=0.15,
            linewidth=0,
        )
    log_axis(axes, "x")
    axes.invert_xaxis()
    axes.set(
        xlabel="weights left in %", ylabel="test accuracy in %", title=f"digits, {len(dense)} seeds"
    )
    axes.legend(loc="lower left")
    return figure
