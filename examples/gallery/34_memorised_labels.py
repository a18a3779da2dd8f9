"""Random labels, memorised.

Claim: A network with enough units learns 200 labels that were drawn at random, every one, and knows nothing of new
samples; it takes more epochs than for right labels; with few units it cannot.

To see it fail: ``WIDTHS = (2, 4)``: so few units cannot hold 200 labels.
"""

import numpy as np
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, FAINT, MARKERS, band, log_axis, panels

WIDTHS, SAMPLES = (2, 8, 32, 256), 200


def data(wrong):
    random = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    rows = random.permutation(len(y))
    part, held = rows[:SAMPLES], rows[1000:]
    labels = random.integers(0, 10, SAMPLES) if wrong else y[part]
    return {"train": (x[part] / 16, labels), "validation": (x[held] / 16, y[held])}


def draw(item):
    seeds, epochs = range(item.size(6, 4)), item.size(100, 80)
    recipe = ravine.Recipe(
        data={"batch": 20}, optimizer={"kind": "adam", "lr": 0.003}, stop={"after": f"{epochs}ep"}
    )
    learnt, losses, right = {}, {}, []
    for name, wrong in (("right labels", False), ("random labels", True)):
        parts = data(wrong)
        runs = ravine.train_many(
            [
                recipe.edit({"model": {"kind": "mlp", "hidden": [w]}, "seed": s})
                for w in WIDTHS
                for s in seeds
            ],
            data=parts,
            out=item.out(name),
            quiet=True,
        )
        found = [100 * run.evaluate(data=parts["train"])["accuracy"] for run in runs]
        learnt[name] = np.array(found).reshape(len(WIDTHS), -1)
        losses[name] = np.array([run.metrics["train_loss"] for run in runs[-len(seeds) :]])
        right.append([100 * run.result["val_accuracy"] for run in runs[-len(seeds) :]])
    random = learnt["random labels"]
    item.claim(f"random labels learnt by {WIDTHS[-1]} units, %", random[-1], above=98)
    item.claim(f"random labels learnt by {WIDTHS[0]} units, %", random[0], below=60)
    item.claim("accuracy on new samples after random labels, % (chance: 10)", right[1], below=20)
    item.claim("the same after right labels, %", right[0], above=80)
    needed = {name: (values > 0.5).sum(1) + 1.0 for name, values in losses.items()}
    item.claim(
        "epochs to a training loss of 0.5, random / right labels",
        needed["random labels"] / needed["right labels"],
        above=2,
    )

    figure, (course, widths) = panels(1, 2, 4.2, 3.2)
    for i, name in enumerate(learnt):
        band(course, np.arange(1, epochs + 1), losses[name], name, i)
        widths.plot(
            WIDTHS,
            learnt[name].mean(1),
            color=COLOURS[i],
            ls=DASHES[i],
            marker=MARKERS[i],
            label=name,
        )
    course.axhline(np.log(10), color=FAINT, ls=":", label="guessing")
    course.set(
        xlabel="epoch", ylabel="training loss", title=f"{WIDTHS[-1]} units, {SAMPLES} samples"
    )
    course.legend()
    log_axis(widths, "x")
    widths.axhline(10, color=FAINT, ls=":")
    widths.set(
        xlabel="hidden units", ylabel="training labels learnt in %", title="capacity", ylim=(0, 103)
    )
    widths.legend(loc="center right")
    return figure
