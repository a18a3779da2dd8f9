"""Overfitting: capacity, data, early stopping, memorised labels.

Claim: With few and partly wrong labels the validation loss falls, then rises while the training loss falls on; early
stopping keeps the lowest point; more samples or less capacity close the gap; a network large enough memorises labels
that are random.

To see it fail: give right labels, ``WRONG = 0.0``, and ten times the samples: the U is gone.
"""

import numpy as np
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, band, log_axis, panels

WRONG = 0.3  # the part of the training labels that is drawn at random
WIDTHS, SAMPLES = (2, 4, 8, 16, 64, 256), (100, 800)


def data(samples, wrong=WRONG, seed=0):
    random = np.random.default_rng(seed)
    x, y = load_digits(return_X_y=True)
    rows = random.permutation(len(y))
    part, held = rows[:samples], rows[1000:]
    labels = np.where(random.random(samples) < wrong, random.integers(0, 10, samples), y[part])
    return {"train": (x[part] / 16, labels), "validation": (x[held] / 16, y[held])}


def draw(item):
    seeds, epochs = item.size(6, 4), item.size(80, 50)
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [128]},
        data={"batch": 20},
        optimizer={"kind": "adam", "lr": 0.003},
        stop={"after": f"{epochs}ep"},
    )
    stopped = recipe.edit({"stop.patience": "5ep"})
    both = [r.edit({"seed": s}) for r in (recipe, stopped) for s in range(seeds)]
    runs = ravine.train_many(both, data=data(200), out=item.out("course"), quiet=True)
    curves = {
        k: np.array([run.metrics[f"{k}_loss"] for run in runs[:seeds]]) for k in ("train", "val")
    }
    lowest = curves["val"].min(1)
    early = np.array([run.result["val_loss"] for run in runs[seeds:]])
    item.claim("validation loss, last / lowest", curves["val"][:, -1] / lowest, above=1.15)
    item.claim("validation loss, stopped early / lowest", early / lowest, below=1.1)

    gap = {}
    for samples in SAMPLES:
        arms = [
            recipe.edit(
                {
                    "model.hidden": [w],
                    "seed": s,
                    "stop.after": f"{epochs * 100 // samples + 5}ep",
                    "data.batch": 20,
                }
            )
            for w in WIDTHS
            for s in range(seeds)
        ]
        found = ravine.train_many(
            arms, data=data(samples), out=item.out(f"widths{samples}"), quiet=True
        )
        loss = np.array([[run.result["train_loss"], run.result["val_loss"]] for run in found])
        gap[samples] = loss.reshape(len(WIDTHS), seeds, 2)
    apart = {n: found[..., 1] - found[..., 0] for n, found in gap.items()}
    item.claim(
        "gap of the widest / of 4 units, 100 samples", apart[100][-1] / apart[100][1], above=1.2
    )
    item.claim("gap of the widest, 800 / 100 samples", apart[800][-1] / apart[100][-1], below=0.8)
    memory = [
        recipe.edit(
            {"seed": s, "model.hidden": [256], "stop.after": "60ep", "metrics": ["accuracy"]}
        )
        for s in range(seeds)
    ]
    random_labels = data(200, 1.0)
    runs = ravine.train_many(memory, data=random_labels, out=item.out("memory"), quiet=True)
    learnt = [run.evaluate(data=random_labels["train"])["accuracy"] for run in runs]
    item.claim("random labels learnt, part of them", learnt, above=0.95)
    item.claim(
        "validation accuracy with them", [run.result["val_accuracy"] for run in runs], below=0.25
    )

    figure, (course, widths, memorised) = panels(1, 3, 3.7, 3.2)
    for i, (name, values) in enumerate(curves.items()):
        band(
            course,
            np.arange(1, epochs + 1),
            values,
            {"train": "training", "val": "validation"}[name],
            i,
        )
    course.plot(curves["val"].argmin(1) + 1, lowest, "v", color=COLOURS[2], label="lowest", ms=5)
    course.set(
        xlabel="epoch", ylabel="loss", title=f"200 samples, {100 * WRONG:.0f} % labels at random"
    )
    course.legend()
    for i, (samples, found) in enumerate(gap.items()):
        for k, name in enumerate(("training", "validation")):
            widths.plot(
                WIDTHS,
                found[:, :, k].mean(1),
                color=COLOURS[i],
                ls=DASHES[1 - k],
                marker=MARKERS[k],
                ms=4,
                label=f"{name}, {samples} samples",
            )
    log_axis(widths, "x", WIDTHS)
    widths.set(xlabel="hidden units", ylabel="loss", title="capacity against data", ylim=(0, 5))
    widths.legend(fontsize=7.5)
    for run in runs:
        memorised.plot(
            np.arange(1, len(run.metrics) + 1), run.metrics["train_loss"], color=COLOURS[0], lw=1
        )
    memorised.axhline(np.log(10), color=COLOURS[6], ls=":")
    memorised.text(60, 2.35, "guessing", ha="right", color=COLOURS[6])
    memorised.set(
        xlabel="epoch", ylabel="training loss", title="200 random labels, memorised", ylim=(0, 2.7)
    )
    return figure
