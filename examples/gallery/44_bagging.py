"""Bagging: an ensemble of networks, each on samples drawn with replacement.

Claim: A bagged ensemble has a lower log-loss than its mean member, and the more members it has the lower, most of it by
the first few.

To see it fail: one member, ``MEMBERS = (1,)``: it is its own mean.
"""

import numpy as np
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, FAINT, panels

MEMBERS, FEW = (1, 2, 4, 8, 16), 200


def draw(item):
    x, y = load_digits(return_X_y=True)
    seeds, most = range(item.size(6, 5)), MEMBERS[-1]
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [32]},
        data={"batch": 20, "preprocess": ["rescale"], "bootstrap": True},
        optimizer={"kind": "adam", "lr": 0.005},
        stop={"after": f"{item.size(30, 20)}ep"},
    )
    losses = np.zeros((len(seeds), len(MEMBERS)))
    alone = np.zeros(len(seeds))
    for s in seeds:
        rows = np.random.default_rng(s).permutation(len(y))
        part, held = rows[:FEW], rows[FEW:]
        runs = ravine.train_many(
            [recipe.edit({"seed": 100 * s + k}) for k in range(most)],
            data={"train": (x[part], y[part]), "validation": (x[held], y[held])},
            out=item.out(str(s)),
            quiet=True,
        )
        p = np.array([run.predict_proba(x[held])[range(len(held)), y[held]] for run in runs])
        alone[s] = -np.log(p.clip(1e-12)).mean()
        for k, members in enumerate(MEMBERS):  # all groups of this size, one after the other
            groups = p.reshape(-1, members, p.shape[1]).mean(1)
            losses[s, k] = -np.log(groups.clip(1e-12)).mean()
    item.claim(
        f"log-loss of {most} members together / of the mean member",
        losses[:, -1] / alone,
        below=0.95,
    )
    item.claim(
        "part of that gain that 4 members have",
        (alone - losses[:, 2]) / (alone - losses[:, -1]),
        above=0.6,
        below=1.0,
    )

    figure, (axes,) = panels(1, 1, 5.2, 3.3)
    for s in seeds:
        label = {"label": "ensemble, one split"} if s == 0 else {}
        axes.plot(MEMBERS, losses[s], "-o", color=COLOURS[0], ms=3, lw=0.8, alpha=0.6, **label)
    axes.plot(MEMBERS, losses.mean(0), color=COLOURS[1], lw=2.5, ls=DASHES[0], label="their mean")
    axes.axhline(alone.mean(), color=FAINT, ls=":", label="mean member")
    axes.set_xscale("log")
    axes.set(
        xlabel="members",
        ylabel="log-loss on held-out digits in nats",
        title=f"networks on {FEW} digits drawn with replacement",
        ylim=(0, None),
    )
    axes.set_xticks(MEMBERS, [str(n) for n in MEMBERS])
    axes.set_xticks([], minor=True)
    axes.legend(loc="lower left")
    return figure
