"""Large batches: what makes up for fewer steps.

Claim: In as many epochs a batch 32 times as large learns far less at the small batch's rate; the rate scaled with
warm-up, LARS and LAMB take back most of it; growing the batch does what shrinking the rate does, in fewer steps.

To see it fail: give the scaled rate no warm-up and 4 times the batch, ``LARGE = 2048``: one step an epoch is too few.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, band, log_axis, panels

SMALL, LARGE, LR = 16, 512, 0.02
MOMENTUM = {"kind": "momentum", "lr": LR}
WARM = {"kind": "cosine", "warmup": "20%"}


def draw(item):
    seeds, epochs = item.size(8, 4), item.size(30, 20)
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [64]},
        data={"source": "digits", "batch": SMALL, "preprocess": ["rescale"]},
        optimizer=MOMENTUM,
        schedule="cosine",
        stop={"after": f"{epochs}ep"},
    )
    large = recipe.edit({"data.batch": LARGE})
    scaled = ravine.scaled_lr(LR, LARGE, SMALL)
    milestones = {"kind": "multistep", "milestones": ["50%", "75%"], "factor": 0.25}
    arms = {
        f"batch {SMALL}": recipe,
        f"batch {LARGE}, same rate": large,
        "scaled rate, warm-up": large.edit({"optimizer.lr": scaled, "schedule": WARM}),
        "LARS, warm-up": large.edit({"optimizer": {"kind": "lars", "lr": 8.0}, "schedule": WARM}),
        "LAMB, warm-up": large.edit({"optimizer": {"kind": "lamb", "lr": 0.05}, "schedule": WARM}),
        "rate shrinks": recipe.edit({"schedule": milestones}),
        "batch grows": recipe.edit(
            {"schedule": "constant", "data.grow": {"milestones": ["50%", "75%"], "factor": 4.0}}
        ),
    }
    recipes = [arm.edit({"seed": seed}) for arm in arms.values() for seed in range(seeds)]
    runs = ravine.train_many(recipes, out=item.out(), quiet=True)
    groups = {name: runs[i * seeds : (i + 1) * seeds] for i, name in enumerate(arms)}
    loss = {
        name: np.array([run.metrics["val_loss"] for run in found]) for name, found in groups.items()
    }
    accuracy = {
        name: 100 * np.array([run.result["test_accuracy"] for run in found])
        for name, found in groups.items()
    }
    steps = {name: found[0].result["steps"] for name, found in groups.items()}
    names = list(arms)
    lost = {name: accuracy[names[0]] - accuracy[name] for name in names}
    item.claim(
        "accuracy lost by the large batch at the same rate, points", lost[names[1]], above=1.5
    )
    for name in names[2:5]:
        item.claim(
            f"of that, taken back by: {name}",
            (lost[names[1]] - lost[name]) / lost[names[1]],
            above=0.5,
        )
    item.claim(
        "accuracy, rate shrinks minus batch grows, points",
        lost["batch grows"] - lost["rate shrinks"],
        above=-1.5,
        below=1.5,
    )
    item.claim(
        "steps, batch grows / rate shrinks", steps["batch grows"] / steps["rate shrinks"], below=0.7
    )

    figure, (course, last) = panels(1, 2, 4.9, 3.5)
    for i, name in enumerate(names):
        band(course, np.arange(1, epochs + 1), loss[name], name, i)
        last.plot(accuracy[name], np.full(seeds, i), "o", color=COLOURS[i], ms=4)
    log_axis(course, "y")
    course.set(xlabel="epoch", ylabel="validation loss", title=f"digits, {seeds} seeds")
    last.set(
        yticks=range(len(names)),
        yticklabels=[f"{n} ({steps[n]} steps)" for n in names],
        xlabel="test accuracy in %",
    )
    last.set_title("the end")
    last.invert_yaxis()
    figure.legend(*course.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
