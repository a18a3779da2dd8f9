"""Surrogate losses, and decisions that know what errors cost.

Claim: Hinge, logistic (base 2) and squared losses lie above the 0/1 loss, so making them small makes errors few; the
decision that is cheapest under the posterior costs less than the most probable class where errors cost unlike amounts.

To see it fail: let every error cost the same (``COSTS`` of ones off the diagonal): both decisions are one.
"""

import numpy as np
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, INK, panels

COSTS = np.ones((10, 10)) - np.eye(10)  # of answering the column where the row is true
COSTS[8, :8] = COSTS[8, 9] = 20.0  # an eight that is missed


def draw(item):
    margin = np.linspace(-2, 2.5, 400)
    wrong = (margin <= 0) * 1.0
    losses = {
        "hinge: max(0, 1 - m)": np.maximum(0, 1 - margin),
        "logistic: log2(1 + exp(-m))": np.log2(1 + np.exp(-margin)),
        "squared: (1 - m)²": (1 - margin) ** 2,
        "exponential: exp(-m)": np.exp(-margin),
    }
    for name, values in losses.items():
        item.claim(
            f"least distance above the 0/1 loss, {name.split(':')[0]}",
            float((values - wrong).min()),
            above=-1e-12,
        )
    item.claim(
        "the perceptron's max(0, -m): it does not lie above",
        float((np.maximum(0, -margin) - wrong).min()),
        below=-0.9,
    )

    x, y = load_digits(return_X_y=True)
    x = x + np.random.default_rng(0).normal(0, 6, x.shape)  # noise: some decisions are hard
    recipe = ravine.Recipe(
        model="softmax",
        data={"batch": 32, "preprocess": ["standardize"]},
        optimizer={"kind": "adam", "lr": 0.005},
        stop={"after": f"{item.size(30, 15)}ep"},
    )
    cost = {"most probable": [], "cheapest": []}
    for seed in range(item.size(10, 6)):
        rows = np.random.default_rng(seed).permutation(len(y))
        part, held = rows[:1200], rows[1200:]
        run = ravine.train(
            recipe, data=(x[part], y[part]), out=item.out(str(seed)), quiet=True, doctor=False
        )
        posterior = run.predict_proba(x[held])  # [N, 10]
        for name, answer in (
            ("most probable", posterior.argmax(1)),
            ("cheapest", (posterior @ COSTS).argmin(1)),
        ):
            cost[name].append(COSTS[y[held], answer].mean())
    ratio = np.array(cost["cheapest"]) / np.array(cost["most probable"])
    item.claim("cost of the cheapest decision / of the most probable class", ratio, below=0.9)

    figure, (axes, right) = panels(1, 2, 4.4, 3.3)
    axes.plot(margin, wrong, color=INK, lw=2, label="0/1 loss")
    for i, (name, values) in enumerate(losses.items()):
        axes.plot(margin, values, color=COLOURS[i], ls=DASHES[i % 4], label=name)
    axes.set(
        xlabel="margin m = y f(x)", ylabel="loss", ylim=(-0.1, 4.5), title="losses of one sample"
    )
    axes.legend(fontsize=8)
    for pair in zip(*cost.values(), strict=True):
        right.plot([0, 1], pair, "-o", color=COLOURS[0], ms=4, lw=0.8)
    right.set(
        xticks=[0, 1],
        xticklabels=["most probable\nclass", "cheapest\ndecision"],
        ylabel="mean cost of an answer",
    )
    right.set(title="an eight that is missed costs 20", xlim=(-0.4, 1.4), ylim=(0, None))
    return figure
