"""Decisions that know what errors cost.

Claim: Where errors cost unlike amounts, the answer of least expected cost under a network's probabilities costs less
than its most probable class, though it makes more errors.

To see it fail: let every error cost the same, ``MISSED = 1.0``: both answers are one.
"""

import numpy as np
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, panels

MISSED = 20.0  # the cost of an eight that is missed; any other error costs 1
COSTS = np.ones((10, 10)) - np.eye(10)  # of answering the column where the row is true
COSTS[8] *= MISSED


def draw(item):
    x, y = load_digits(return_X_y=True)
    x = x + np.random.default_rng(0).normal(0, 6, x.shape)  # noise: some decisions are hard
    costs = {"kind": "mean_cost", "costs": COSTS.tolist()}
    recipe = ravine.Recipe(
        model="softmax",
        data={"batch": 32, "preprocess": ["standardize"]},
        optimizer={"kind": "adam", "lr": 0.005},
        stop={"after": f"{item.size(30, 15)}ep"},
        metrics=[costs],
    )
    cost, errors, metric = [], [], []
    for seed in range(item.size(10, 6)):
        rows = np.random.default_rng(seed).permutation(len(y))
        part, held = rows[:1200], rows[1200:]
        run = ravine.train(
            recipe, data=(x[part], y[part]), out=item.out(str(seed)), quiet=True, doctor=False
        )
        answers = [run.predict(x[held]), run.predict(x[held], costs=COSTS)]
        cost.append([COSTS[y[held], a].mean() for a in answers])
        errors.append([100 * (a != y[held]).mean() for a in answers])
        metric.append(run.evaluate(data=(x[held], y[held]))["mean_cost"] - cost[-1][1])
    cost, errors = np.array(cost), np.array(errors)  # [S, 2]
    item.claim(
        "cost of the cheapest answer / of the most probable class",
        cost[:, 1] / cost[:, 0],
        below=0.8,
    )
    item.claim(
        "errors of the cheapest answer minus those of the other, points",
        errors[:, 1] - errors[:, 0],
        above=0,
    )
    item.claim(
        "metric mean_cost less the cost of these answers", float(np.abs(metric).max()), below=1e-9
    )

    figure, axes = panels(1, 2, 3.6, 3.2)
    for i, (box, values, label) in enumerate(
        zip(axes, (cost, errors), ("mean cost of an answer", "errors in %"), strict=True)
    ):
        for pair in values:
            box.plot([0, 1], pair, "-o", color=COLOURS[i], ms=4, lw=0.8)
        box.set(
            xticks=[0, 1],
            xticklabels=["most probable\nclass", "cheapest\nanswer"],
            ylabel=label,
            xlim=(-0.4, 1.4),
            ylim=(0, None),
        )
    axes[0].set_title(f"an eight that is missed costs {MISSED:.0f}")
    axes[1].set_title(f"{len(cost)} splits of noisy digits")
    return figure
