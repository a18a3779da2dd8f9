"""Overfitting: capacity against data, and early stopping.

Claim: With few and partly wrong labels the validation loss falls, then rises while the training loss falls on; early
stopping keeps the lowest point; over the number of hidden units it is a U too, whose right side more samples flatten.

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
    seeds, epochs = item.size(6, 5), item.size(80, 50)
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
    item.claim("gap of the widest, 800 / 100 samples", apart[800][-1] / apart[100][-1], below=0.8)
    few, lots = gap[100][..., 1], gap[800][..., 1]  # validation losses [widths, S]
    valley = few.mean(1).argmin()
    item.claim(
        "validation loss, 2 units / best width, 100 samples", few[0] / few[valley], above=1.3
    )
    item.claim("the same, 256 units / best width", few[-1] / few[valley], above=1.05)
    item.claim("the same, 256 units, with 800 samples", lots[-1] / lots.min(0), below=1.1)

    figure, (course, widths) = panels(1, 2, 4.4, 3.3)
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
                marker=MARKERS[i],
                ms=4.5,
                mfc=COLOURS[i] if i else "none",
                label=f"{name} (wrong labels), {samples} samples"
                if k == 0
                else f"{name}, {samples} samples",
            )
    log_axis(widths, "x")
    widths.set(xlabel="hidden units", ylabel="loss", title="capacity against data", ylim=(0, 3.5))
    widths.legend(fontsize=8.5)
    return figure
