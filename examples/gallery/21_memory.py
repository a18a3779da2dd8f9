"""Recurrent memory: the adding task by length, for RNN, LSTM and GRU.

Claim: On short sequences all three learn to add the two marked numbers; on long ones LSTM and GRU still do, and the
plain recurrent network stays at the error of always answering 1.

To see it fail: ``LENGTHS = (4, 8)``: short sequences need no gates.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, FAINT, MARKERS, panels

LENGTHS = (5, 15, 40)
KINDS = ("rnn", "lstm", "gru")


def draw(item):
    seeds = item.size(4, 2)
    errors = np.zeros((len(LENGTHS), len(KINDS), seeds))
    for i, length in enumerate(LENGTHS):
        recipe = ravine.Recipe(
            data={"source": {"kind": "adding", "length": length, "samples": 4000}, "batch": 50},
            optimizer={"kind": "adam", "lr": 0.01},
            clip={"norm": 1.0},
            stop={"after": f"{item.size(20, 12)}ep"},
        )
        recipes = [
            recipe.edit({"model": {"kind": kind, "units": 24}, "seed": s})
            for kind in KINDS
            for s in range(seeds)
        ]
        runs = ravine.train_many(recipes, out=item.out(str(length)), quiet=True)
        errors[i] = np.array([run.result["val_loss"] for run in runs]).reshape(len(KINDS), seeds)
    chance = 1 / 6
    item.claim(
        f"error / always answering 1, {LENGTHS[0]} steps, worst kind",
        errors[0].max(0) / chance,
        below=0.5,
    )
    item.claim(f"plain RNN, {LENGTHS[-1]} steps", errors[-1, 0] / chance, above=0.5)
    item.claim(
        f"the better of LSTM and GRU, {LENGTHS[-1]} steps",
        errors[-1, 1:].min(0) / chance,
        below=0.4,
    )

    figure, (axes,) = panels(1, 1, 5.4, 3.5)
    for k, kind in enumerate(KINDS):
        axes.plot(
            LENGTHS,
            errors[:, k].mean(-1),
            color=COLOURS[k],
            ls=DASHES[k],
            marker=MARKERS[k],
            label=kind.upper(),
        )
        axes.fill_between(
            LENGTHS,
            errors[:, k].min(-1),
            errors[:, k].max(-1),
            color=COLOURS[k],
            alpha=0.15,
            linewidth=0,
        )
    axes.axhline(chance, color=FAINT, ls=":")
    axes.text(LENGTHS[-1], chance * 1.03, "always answering 1", ha="right", color=FAINT)
    axes.set(
        xlabel="steps of a sequence",
        ylabel="squared error",
        title=f"adding task, {seeds} seeds",
        xticks=LENGTHS,
        ylim=(0, 0.22),
    )
    axes.legend(loc="upper left", ncols=3)
    return figure
