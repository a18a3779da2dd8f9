"""Batch normalisation, and group, layer and instance norm.

Claim: Three sigmoid layers need fewer epochs with batch norm, and learn at more of the learning rates. At test it takes
its running statistics: those of a batch of 64 are nearly as good, those of two samples far worse. That batch norm loses
to the others when it trains with two samples a batch does not show at this size: in as many epochs every norm ends
lower there, since small batches take more steps.

To see it fail: one hidden layer in place of three, ``DEPTH = 1``: little is left to gain.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, log_axis, panels

RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
DEPTH = 3
BATCHES = (64, 8, 2)
TESTED = ("running", 64, 8, 2)
NORMS = ("batch_norm", "group_norm", "layer_norm", "instance_norm")


def convolutional(norm):
    return {
        "layers": [
            {"kind": "conv", "channels": 8, "kernel": 3, "padding": "same"},
            {"kind": norm, **({"groups": 2} if norm == "group_norm" else {})},
            {"kind": "relu"},
            {"kind": "conv", "channels": 8, "kernel": 3, "padding": "same"},
            {"kind": norm, **({"groups": 2} if norm == "group_norm" else {})},
            {"kind": "relu"},
            {"kind": "maxpool", "size": 2},
            {"kind": "flatten"},
            {"kind": "dense", "units": 10},
        ]
    }


def draw(item):
    seeds, epochs = item.size(10, 5), item.size(12, 8)
    recipe = ravine.Recipe(
        data={"source": "digits", "batch": 64, "preprocess": ["standardize"]},
        optimizer="sgd",
        stop={"after": f"{epochs}ep", "on_trouble": "report"},
    )
    model = {
        "kind": "mlp",
        "hidden": [32] * DEPTH,
        "activation": "sigmoid",
        "init": {"weights": "glorot_normal"},
    }
    recipes = [
        recipe.edit({"model": {**model, "norm": norm}, "optimizer.lr": lr, "seed": seed})
        for norm in ("none", "batch")
        for lr in RATES
        for seed in range(seeds)
    ]
    runs = ravine.train_many(recipes, out=item.out("rates"), quiet=True)
    accuracy = np.array([run.metrics["val_accuracy"] for run in runs]).reshape(
        2, len(RATES), seeds, -1
    )
    last = accuracy[..., -1]
    reached = np.where(accuracy >= 0.9, np.arange(1, epochs + 1), 3 * epochs).min(
        -1
    )  # [2, rates, S]: the first epoch
    first = reached.mean(-1).argmin(-1)
    factor = reached[0, first[0]] / reached[1, first[1]]
    item.claim(
        "log2 of epochs to 90 %, without / with batch norm, each at its best rate",
        np.log2(factor),
        above=0.0,
    )
    works = (last > 0.9 * last.max((0, 1))).sum(1)  # [2, S]: rates close to the best, of each seed
    item.claim(
        "rates of five within 10 % of the best accuracy, with minus without",
        works[1] - works[0],
        above=0.5,
    )

    chosen = np.array(runs, object).reshape(2, len(RATES), seeds)[1, first[1]]
    tested = 100 * np.array(
        [[_accuracy(run, size) for size in TESTED] for run in chosen]
    )  # [S, sizes]
    for k, bound in ((1, {"below": 3}), (-1, {"above": 5})):
        text = f"accuracy lost at test with the statistics of {TESTED[k]} samples, points"
        item.claim(text, tested[:, 0] - tested[:, k], **bound)

    small = ravine.Recipe(
        data={"source": "digits", "validation": 0.75, "preprocess": ["standardize"]},
        optimizer="momentum",
        stop={"after": f"{item.size(5, 4)}ep"},
    )
    by_size = {}
    for batch in BATCHES:
        base = small.edit(
            {"data.batch": batch, "optimizer.lr": 0.02 * batch / 64, "data.last_batch": "drop"}
        )
        arms = [
            base.edit({"model": convolutional(norm), "seed": s})
            for norm in NORMS
            for s in range(seeds)
        ]
        found = ravine.train_many(arms, out=item.out(f"batch{batch}"), quiet=True, test=False)
        by_size[batch] = 100 - 100 * np.array(
            [run.result["val_accuracy"] for run in found]
        ).reshape(len(NORMS), seeds)
    errors = np.array(list(by_size.values()))  # [batches, norms, S]
    for k, norm in enumerate(NORMS):
        text = f"error with 2 samples a batch minus with 64, {norm.replace('_', ' ')}, points"
        item.claim(text, errors[-1, k] - errors[0, k], below=0)
    for batch, rows in zip(BATCHES[::2], errors[::2], strict=True):
        text = f"error of batch norm minus the others, {batch} samples a batch, points"
        item.claim(text, rows[0] - rows[1:].mean(0), below=2)

    figure, (rates, course, test, sizes) = panels(2, 2, 4.3, 3.1)
    for n, name in enumerate(("without", "batch norm")):
        rates.plot(
            RATES,
            100 * last[n].mean(-1),
            color=COLOURS[n],
            marker=MARKERS[n],
            ls=DASHES[n],
            label=name,
        )
        curve = accuracy[n, first[n]].mean(0)
        course.plot(
            np.arange(1, epochs + 1),
            100 * curve,
            color=COLOURS[n],
            ls=DASHES[n],
            label=f"{name}, lr {RATES[first[n]]:g}",
        )
    log_axis(rates, "x")
    rates.set(
        xlabel="learning rate",
        ylabel="validation accuracy in %",
        title=f"three sigmoid layers, {epochs} epochs",
    )
    rates.legend(loc="center left")
    course.set(xlabel="epoch", ylabel="validation accuracy in %", title="each at its best rate")
    course.legend(loc="center right")
    for row in tested:
        test.plot(range(len(TESTED)), row, "-o", color=COLOURS[1], ms=4, lw=0.8)
    test.set(
        xticks=range(len(TESTED)),
        xticklabels=[TESTED[0], *(f"{n} samples" for n in TESTED[1:])],
        xlabel="statistics that batch norm takes at test",
        ylabel="accuracy in %",
        title=f"{seeds} networks",
    )
    for k, norm in enumerate(NORMS):
        sizes.plot(
            BATCHES,
            errors[:, k].mean(-1),
            color=COLOURS[k + 2],
            marker=MARKERS[k],
            ls=DASHES[k],
            label=norm.replace("_", " "),
        )
    log_axis(sizes, "x")
    sizes.set(
        xlabel="samples in a batch",
        ylabel="validation error in %",
        title="as many epochs each, lr by batch",
        xticks=BATCHES,
    )
    sizes.set_xticklabels([str(b) for b in BATCHES])
    sizes.legend()
    return figure


def _accuracy(run, size):
    """Accuracy with the running statistics, or with those of each batch of so many samples."""
    digits, net = load_digits(), run.copy_model()
    order = np.random.default_rng(0).permutation(len(digits.target))[:640]
    x, y = run.pipeline.transform(digits.images[order, None]), digits.target[order]
    net.train(size != "running")
    with torch.no_grad():
        answers = [net(part).argmax(1) for part in x.split(len(x) if size == "running" else size)]
    return float((torch.cat(answers).numpy() == y).mean())
