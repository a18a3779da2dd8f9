"""Dropout, augmentation against more data, and bagging.

Claim: A network trained with dropout still works when half its units are taken away, one trained without does less; it
needs more steps to the same training loss (texts say twice as many); shifted copies are worth extra samples; a bagged
ensemble has a lower log-loss than its mean member.

To see it fail: ``RATE = 0.0``: both networks are one.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

import ravine
from ravine.data.synthetic import characters
from ravine.gallery.drawing import COLOURS, band, panels

RATE, FEW = 0.5, 200


CONVOLUTIONAL = [
    {"kind": "conv", "channels": 16, "kernel": 3, "padding": "same"},
    "relu",
    {"kind": "conv", "channels": 16, "kernel": 3, "padding": "same"},
    "relu",
    {"kind": "maxpool", "size": 2},
    "flatten",
    {"kind": "dense", "units": 10},
]


def data(samples, seed):
    rows = np.random.default_rng(seed).permutation(1797)
    x, y = load_digits().images[:, None] / 16, load_digits().target
    part, held = rows[:samples], rows[1000:]
    return {
        "train": (x[part].astype(np.float32), y[part]),
        "validation": (x[held].astype(np.float32), y[held]),
    }


def drawn(samples, seed):
    """Drawn digits at random places, the first of so many."""
    part = characters(Path(), samples=2000, size=12, alphabet="digits", noise=0.1, seed=seed).parts[
        "train"
    ]
    x, y = np.asarray(part.x, np.float32) / 255, np.asarray(part.y)
    return {"train": (x[:samples], y[:samples]), "validation": (x[1000:], y[1000:])}


def halved(run, x, y, seed):
    """Accuracy where half the hidden units, drawn at random, are taken away and the others count twice."""
    net = run.copy_model()
    last = [p for p in net.modules() if isinstance(p, torch.nn.Linear)][-1]
    torch.manual_seed(seed)
    kept = (torch.rand(last.in_features) > 0.5).float() * 2
    with torch.no_grad():
        last.weight.mul_(kept)
        return float((net(run.pipeline.transform(x)).argmax(1).numpy() == y).mean())


def draw(item):
    seeds, epochs = item.size(6, 4), item.size(60, 40)
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [128]},
        data={"batch": 20},
        optimizer={"kind": "adam", "lr": 0.002},
        stop={"after": f"{epochs}ep"},
    )
    dropped = recipe.edit({"model.dropout": RATE})
    both = [r.edit({"seed": s}) for r in (recipe, dropped) for s in range(seeds)]
    few = data(FEW, 0)
    runs = ravine.train_many(both, data=few, out=item.out("dropout"), quiet=True)
    x, y = few["validation"]
    robust = np.array([np.mean([halved(run, x, y, k) for k in range(10)]) for run in runs]).reshape(
        2, seeds
    )
    whole = np.array([run.result["val_accuracy"] for run in runs]).reshape(2, seeds)
    lost = 100 * (whole - robust)
    item.claim(
        "points lost with half the units, without minus with dropout", lost[0] - lost[1], above=0.5
    )
    losses = np.array([run.metrics["train_loss"] for run in runs]).reshape(2, seeds, -1)
    target = 0.2
    steps = (losses > target).sum(-1) + 1.0
    item.claim(
        f"epochs to a training loss of {target}, with / without dropout",
        steps[1] / steps[0],
        above=1.2,
    )

    arms = {}
    for seed in range(seeds):
        for name, (samples, more) in {
            "200": (FEW, []),
            "200, shifted": (FEW, [{"kind": "shift", "pixels": 2}]),
            "800": (800, []),
        }.items():
            run = ravine.train(
                recipe.edit(
                    {
                        "model": {"layers": CONVOLUTIONAL},
                        "data.augment": more,
                        "seed": seed,
                        "stop.after": f"{4000 // samples * 2}ep",
                    }
                ),
                data=drawn(samples, seed),
                out=item.out(f"{name} {seed}"),
                quiet=True,
                doctor=False,
            )
            arms.setdefault(name, []).append(100 - 100 * run.result["val_accuracy"])
    arms = {name: np.array(values) for name, values in arms.items()}
    item.claim(
        "validation error, shifted / not shifted, 200 samples",
        arms["200, shifted"] / arms["200"],
        below=0.95,
    )
    bagged = []
    for seed in range(seeds):
        found = ravine.ensemble(
            recipe.edit(
                {
                    "model": "linear",
                    "seed": 100 * seed,
                    "stop.after": "30ep",
                    "data": {"batch": 20, "test": 0.5, "seed": seed},
                }
            ),
            members=10,
            method="bagging",
            data=(few["train"][0].repeat(1, 0), few["train"][1]),
            out=item.out(f"bagging{seed}"),
            quiet=True,
        )
        bagged.append(found)
    gain = np.array([_gain(found) for found in bagged])
    item.claim("log-loss of the bagged ensemble / of its mean member", gain, below=1.0)

    figure, (course, half, errors) = panels(1, 3, 3.6, 3.2)
    for i, name in enumerate(("without", f"dropout {RATE}")):
        band(course, np.arange(1, epochs + 1), losses[i], name, i)
        for k, values in enumerate((whole, robust)):
            half.plot(
                [k + 0.12 * (2 * i - 1)] * seeds,
                100 * values[i],
                "os"[i],
                color=COLOURS[i],
                ms=4,
                label=name if k == 0 else None,
            )
    course.set(
        xlabel="epoch", ylabel="training loss", title=f"{FEW} digits, {seeds} seeds", ylim=(0, 1.5)
    )
    course.legend()
    half.set(
        xticks=[0, 1],
        xticklabels=["all units", "half the units"],
        ylabel="validation accuracy in %",
        title="units taken away",
    )
    half.legend(loc="lower left")
    half.set_xlim(-0.5, 1.5)
    for i, values in enumerate(arms.values()):
        errors.plot([i] * seeds, values, "o", color=COLOURS[i])
    errors.set(
        xticks=range(3),
        xticklabels=["200\nsamples", "200,\nshifted", "800\nsamples"],
        ylabel="validation error in %",
    )
    errors.set(title="drawn digits: augmentation or data", xlim=(-0.5, 2.5))
    return figure


def _gain(found):
    whole, mean = (
        next(row for row in found["table"] if row["who"] == who)
        for who in ("ensemble", "mean member")
    )
    return whole["log_loss"] / mean["log_loss"]
