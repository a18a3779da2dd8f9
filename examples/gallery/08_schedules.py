"""Learning-rate schedules side by side.

Claim: With the same first rate, every schedule that ends low reaches a lower training loss than the constant rate,
since a constant rate keeps the noise of its steps; a warm restart first raises the loss again.

To see it fail: lower ``LR`` to 0.01: where the constant rate is no longer too high, nothing is gained.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, band, log_axis, panels

LR = 0.2
SCHEDULES = {
    "constant": "constant",
    "step": {"kind": "step", "every": "33%", "factor": 0.1},
    "exponential": {"kind": "exponential", "gamma": 0.8},
    "1/t": {"kind": "inverse_time", "k": 0.02},
    "linear": {"kind": "linear"},
    "cosine": {"kind": "cosine"},
    "warm restarts": {"kind": "warm_restarts", "period": "25%"},
    "one cycle": {"kind": "one_cycle", "cycle_momentum": False},
}


def draw(item):
    seeds, epochs = 8, item.size(24, 16)
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [32]},
        data={
            "source": "digits",
            "batch": 16,
            "preprocess": [{"kind": "standardize", "per": "channel"}],
            "augment": [{"kind": "noise", "std": 3.0}],
        },
        optimizer={"kind": "sgd", "lr": LR},
        stop={"after": f"{epochs}ep", "on_trouble": "report"},
    )
    recipes = [
        recipe.edit({"schedule": s, "seed": seed})
        for s in SCHEDULES.values()
        for seed in range(seeds)
    ]
    runs = ravine.train_many(recipes, out=item.out(), quiet=True)
    losses = np.array([run.metrics["val_loss"] for run in runs]).reshape(
        len(SCHEDULES), seeds, -1
    )  # [schedules, S, epochs]
    train = np.array([run.metrics["train_loss"] for run in runs]).reshape(losses.shape)
    for i, name in enumerate(SCHEDULES):
        if i:
            item.claim(
                f"last training loss, {name} / constant",
                train[i, :, -1] / train[0, :, -1],
                below=0.9,
            )
    cycle = epochs // 4
    restart = train[6, :, cycle] / train[6, :, cycle - 1]
    item.claim("training loss after a restart / before it", restart, above=1.0)

    figure, (rates, course, last) = panels(1, 3, 3.5, 3.3)
    for i, name in enumerate(SCHEDULES):
        lr = runs[i * seeds].metrics["lr"]
        rates.plot(np.arange(1, epochs + 1), lr, color=COLOURS[i], ls=DASHES[i], label=name)
        band(course, np.arange(1, epochs + 1), train[i], name, i)
        last.plot(losses[i, :, -1], [i] * seeds, "o", color=COLOURS[i], ms=4)
    rates.set(xlabel="epoch", ylabel="learning rate", title="the rate")
    log_axis(course, "y")
    course.set(xlabel="epoch", ylabel="training loss", title=f"digits with noise, {seeds} seeds")
    last.set(
        yticks=range(len(SCHEDULES)),
        yticklabels=SCHEDULES,
        xlabel="validation loss at the end",
        title="the end",
    )
    last.invert_yaxis()
    figure.legend(*rates.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
