"""Dropout: units that do without one another, and what it costs.

Claim: A network trained with dropout loses less when half its units are taken away, and its hidden units agree less
with one another (co-adaptation); it needs about twice the epochs to the same training loss, as texts say.

To see it fail: ``RATE = 0.0``: both networks are one.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, band, panels

RATE, FEW, TARGET = 0.5, 200, 0.2


def data(samples, seed):
    rows = np.random.default_rng(seed).permutation(1797)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    part, held = rows[:samples], rows[1000:]
    return {"train": (x[part], y[part]), "validation": (x[held], y[held])}


def halved(run, x, y, seed):
    """Accuracy where half the hidden units, drawn at random, are taken away and the others count twice."""
    net = run.copy_model()
    last = [p for p in net.modules() if isinstance(p, torch.nn.Linear)][-1]
    torch.manual_seed(seed)
    kept = (torch.rand(last.in_features) > 0.5).float() * 2
    with torch.no_grad():
        last.weight.mul_(kept)
        return float((net(run.pipeline.transform(x)).argmax(1).numpy() == y).mean())


def agreement(run, x):
    """The mean absolute correlation of two hidden units over the samples."""
    z = run.pipeline.transform(x)
    with torch.no_grad():
        for part in run.model:
            z = part(z)
            if isinstance(part, torch.nn.ReLU):
                found = z
    found = found[:, found.std(0) > 1e-3].T
    values = torch.corrcoef(found).abs()
    return float((values.sum() - len(values)) / (len(values) * (len(values) - 1)))


def draw(item):
    seeds, epochs = 8, item.size(60, 40)
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [128]},
        data={"batch": 20},
        optimizer={"kind": "adam", "lr": 0.002},
        stop={"after": f"{epochs}ep"},
    )
    dropped = recipe.edit({"model.dropout": RATE})
    both = [r.edit({"seed": s}) for r in (recipe, dropped) for s in range(seeds)]
    few = data(FEW, 0)
    runs = ravine.train_many(both, data=few, out=item.out(), quiet=True)
    x, y = few["validation"]
    robust = np.array([np.mean([halved(run, x, y, k) for k in range(10)]) for run in runs])
    robust = 100 * robust.reshape(2, seeds)
    whole = 100 * np.array([run.result["val_accuracy"] for run in runs]).reshape(2, seeds)
    lost = whole - robust
    agree = np.array([agreement(run, x) for run in runs]).reshape(2, seeds)
    losses = np.array([run.metrics["train_loss"] for run in runs]).reshape(2, seeds, -1)
    needed = (losses > TARGET).sum(-1) + 1.0
    item.claim(
        "points lost with half the units, without minus with dropout", lost[0] - lost[1], above=1
    )
    item.claim(
        "mean |correlation| of two hidden units, with / without dropout",
        agree[1] / agree[0],
        below=1.0,
    )
    item.claim(
        f"epochs to a training loss of {TARGET}, with / without dropout",
        needed[1] / needed[0],
        above=1.5,
        below=2.7,
    )

    figure, (course, half, units) = panels(1, 3, 3.5, 3.2)
    for i, name in enumerate(("without", f"dropout {RATE}")):
        band(course, np.arange(1, epochs + 1), losses[i], name, i)
        for k, values in enumerate((whole, robust)):
            label = {"label": name} if k == 0 else {}
            place = k + 0.12 * (2 * i - 1)
            half.plot([place] * seeds, values[i], "os"[i], color=COLOURS[i], ms=4, **label)
        units.plot([i] * seeds, agree[i], "os"[i], color=COLOURS[i], ms=4)
    course.axhline(TARGET, color=COLOURS[6], ls=":", lw=1)
    course.set(
        xlabel="epoch", ylabel="training loss", title=f"{FEW} digits, {seeds} seeds", ylim=(0, 1.5)
    )
    course.legend()
    half.set(
        xticks=[0, 1],
        xticklabels=["all units", "half the units"],
        ylabel="validation accuracy in %",
        title="units taken away",
        xlim=(-0.5, 1.5),
    )
    half.legend(loc="lower left")
    units.set(
        xticks=[0, 1],
        xticklabels=["without", f"dropout {RATE}"],
        ylabel="mean |correlation| of two units",
        title="hidden units",
        xlim=(-0.5, 1.5),
    )
    return figure
