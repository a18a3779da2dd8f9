"""Few labels: fine-tuning against training from scratch, by their number.

Claim: With ten labelled examples a letter, a network that first learnt other letters is better than one from scratch;
thirty, without that start, are worth more than three with it.

To see it fail: ``RELATED = 26``, too few examples of the other letters to learn anything from them.
"""

from pathlib import Path

import numpy as np

import ravine
from ravine.data.synthetic import characters
from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, log_axis, panels

LABELS, RELATED = (1, 3, 10, 30), 2600  # of each letter; of the other letters together
FEW, SOME, MANY = LABELS[1:]
ARMS = ("from scratch", "fine-tuned")


def letters():
    """Two tasks of 13 letters each: A to M, and N to Z from 0."""
    part = characters(Path(), samples=5200, size=12, rotation=20.0, noise=0.15).parts["train"]
    x, y = np.asarray(part.x, np.float32) / 255, np.asarray(part.y)
    related = np.flatnonzero(y < 13)[:RELATED]
    return (x[related], y[related]), (x[y >= 13], y[y >= 13] - 13)


def network():
    convolution = {"kind": "conv", "kernel": 3, "padding": "same"}
    layers = []
    for channels in (16, 32):
        layers += [{**convolution, "channels": channels}, "relu", {"kind": "maxpool", "size": 2}]
    dense = [{"kind": "dense", "units": 64}, "relu", {"kind": "dense", "units": 13}]
    return {"layers": [*layers, "flatten", *dense]}


def draw(item):
    labels, seeds = item.size(LABELS, LABELS[1:]), range(item.size(8, 6))
    recipe = ravine.Recipe(
        model=network(),
        data={"batch": 32},
        optimizer={"kind": "adam", "lr": 0.003},
        stop={"after": "10ep"},
    )
    related, (x, y) = letters()
    before = ravine.train(recipe, data=related, out=item.out("before"), quiet=True, doctor=False)
    starts = ({}, {"start": {"weights": str(before.directory), "head": "replace"}})
    few = recipe.edit({"data.batch": 13, "stop.after": "400it", "schedule": "cosine"})
    accuracy = np.zeros((2, len(labels), len(seeds)))
    for s in seeds:
        mixed = np.random.default_rng(s).permutation(len(y))
        held = mixed[np.isin(mixed, _first(mixed, y, MANY), invert=True)][:600]
        for n, count in enumerate(labels):
            part = _first(mixed, y, count)
            runs = ravine.train_many(
                [few.edit({"seed": s, **edit}) for edit in starts],
                data={"train": (x[part], y[part]), "validation": (x[held], y[held])},
                out=item.out(f"{count} {s}"),
                quiet=True,
            )
            accuracy[:, n, s] = [100 * run.result["val_accuracy"] for run in runs]
    gained = dict(zip(labels, accuracy[1] - accuracy[0], strict=True))
    text = f"accuracy gained by fine-tuning, {SOME} labels a letter, points"
    item.claim(text, gained[SOME], above=0)
    scratch, tuned = dict(zip(labels, accuracy[0], strict=True)), accuracy[1, labels.index(FEW)]
    text = f"{MANY} labels a letter from scratch minus {FEW} fine-tuned, points"
    item.claim(text, scratch[MANY] - tuned, above=1)

    figure, (axes,) = panels(1, 1, 5.2, 3.4)
    for a, name in enumerate(ARMS):
        style = {"color": COLOURS[a], "ls": DASHES[a], "marker": MARKERS[a]}
        axes.plot(labels, accuracy[a].mean(-1), label=name, **style)
        low, high = accuracy[a].min(-1), accuracy[a].max(-1)
        axes.fill_between(labels, low, high, color=COLOURS[a], alpha=0.15, linewidth=0)
    axes.axhline(100 / 13, color=COLOURS[6], ls=":", lw=1)
    axes.text(labels[-1], 9, "chance", ha="right", color=COLOURS[6])
    log_axis(axes, "x")
    axes.set_xticks(labels, [str(n) for n in labels])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labels of each letter", ylabel="accuracy in %", ylim=(0, 102))
    axes.set_title(f"letters N to Z after A to M, {len(seeds)} seeds")
    axes.legend(loc="upper left")
    return figure


def _first(rows, y, count):
    """The first ``count`` of these rows of each class."""
    return np.concatenate([rows[y[rows] == c][:count] for c in range(13)])
