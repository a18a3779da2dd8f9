"""Depth: the parity of n bits, built and trained.

Claim: A shallow network for the parity of n bits needs 2^(n-1) hidden units, a tree of XORs 3 (n - 1) units, and as
circuits of gates with two inputs the disjunction n 2^(n-1) - 1, the tree 3 (n - 1); built, all are right on every
input. Trained, the shape matters where units are few: of two networks of equally many units the one with one hidden
layer finds the parity more often, since a deep one that can state it is not found by descent.

To see it fail: train on 3 bits, ``BITS = 3``: both find it.
"""

import itertools

import numpy as np
import torch

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, log_axis, panels

BITS = 6
SHAPES = {"one hidden layer": 1, "three hidden layers": 3}
UNITS = (6, 12, 24, 48)


def step(x):
    return (x > 0).double()


def shallow(bits):
    """One threshold unit for each input with an odd number of ones; the output adds them. (answers, units)"""
    n = bits.shape[1]
    odd = torch.tensor(
        [row for row in itertools.product((0.0, 1.0), repeat=n) if sum(row) % 2],
        dtype=torch.float64,
    )
    hidden = step(bits @ (2 * odd - 1).T - odd.sum(1) + 0.5)  # each is 1 on its own input alone
    return step(hidden.sum(1) - 0.5), len(odd)


def deep(bits):
    """A tree of XORs, each of two hidden threshold units and an output unit: x xor y = [x + y > 0.5] - [x + y > 1.5]."""
    values, units = list(bits.T), 0
    while len(values) > 1:
        pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
        units += 3 * sum(len(pair) == 2 for pair in pairs)
        values = [
            step(step(p[0] + p[1] - 0.5) - step(p[0] + p[1] - 1.5) - 0.5) if len(p) == 2 else p[0]
            for p in pairs
        ]
    return values[0], units


def disjunction(bits):
    """OR of an AND for each input with an odd number of ones, of gates with two inputs. (answers, gates)"""
    n, gates, answer = bits.shape[1], 0, None
    for row in itertools.product((0, 1), repeat=n):
        if sum(row) % 2:
            term = bits[:, 0] == row[0]
            for k in range(1, n):
                term, gates = term & (bits[:, k] == row[k]), gates + 1
            answer, gates = (term, gates) if answer is None else (answer | term, gates + 1)
    return answer.double(), gates


def xor_gates(bits):
    """A chain of XORs, each of three gates: x or y, x and y, the first and not the second. (answers, gates)"""
    answer, gates = bits[:, 0] == 1, 0
    for k in range(1, bits.shape[1]):
        other = bits[:, k] == 1
        answer, gates = (answer | other) & ~(answer & other), gates + 3
    return answer.double(), gates


def trained(item, seeds):
    """The part of all 2^n inputs that is answered rightly after training on all of them [shapes, units, S]."""
    bits = np.array(list(itertools.product((0.0, 1.0), repeat=BITS)), np.float32)
    truth = (bits.sum(1) % 2).astype(int)
    again = 25  # an epoch holds each input so often: fewer evaluations
    data = {
        "train": (np.tile(2 * bits - 1, (again, 1)), np.tile(truth, again)),
        "validation": (2 * bits - 1, truth),
    }
    recipe = ravine.Recipe(
        data={"batch": 32},
        optimizer={"kind": "adam", "lr": 0.01},
        schedule="cosine",
        stop={"after": f"{item.size(60, 30)}ep"},
    )
    runs = ravine.train_many(
        [
            recipe.edit(
                {
                    "model": {
                        "kind": "mlp",
                        "hidden": [units // depth] * depth,
                        "activation": "tanh",
                    },
                    "seed": seed,
                }
            )
            for depth in SHAPES.values()
            for units in UNITS
            for seed in seeds
        ],
        data=data,
        out=item.out(),
        quiet=True,
    )
    found = [run.result["val_accuracy"] for run in runs]
    return np.array(found).reshape(len(SHAPES), len(UNITS), -1)


def draw(item):
    sizes, counts, wrong = range(2, item.size(13, 11)), [], 0
    for n in sizes:
        bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)
        truth = bits.sum(1) % 2
        built = [build(bits) for build in (shallow, deep, disjunction, xor_gates)]
        wrong += sum(int((answers != truth).sum()) for answers, _ in built)
        counts.append([count for _, count in built])
    counts = np.array(counts)
    n = np.array(sizes)
    item.claim("wrong answers of the built networks and circuits, all inputs", wrong, below=0.5)
    item.claim(
        "log2 of the shallow network's units against n: slope",
        np.polyfit(list(sizes), np.log2(counts[:, 0]), 1)[0],
        above=0.99,
        below=1.01,
    )
    item.claim(
        "units of the tree less 3 (n - 1), largest",
        float(np.abs(counts[:, 1] - 3 * (np.array(sizes) - 1)).max()),
        below=0.5,
    )
    for k, name, formula in ((2, "disjunction", n * 2 ** (n - 1) - 1), (3, "XORs", 3 * (n - 1))):
        apart = np.abs(counts[:, k] - formula).max()
        item.claim(f"gates of the {name} less the formula, largest", float(apart), below=0.5)
    seeds = range(item.size(12, 10))
    accuracy = 100 * trained(item, seeds)
    item.claim(
        f"right answers, one hidden layer of {UNITS[-1]} units, %", accuracy[0, -1], above=95
    )
    few = (accuracy[0] - accuracy[1]).mean(0)
    item.claim(
        "right answers, one layer minus three of as many units, points, mean over units",
        few,
        above=0,
    )

    figure, axes = panels(1, 2, 4.2, 3.2)
    labels = ("units: one hidden layer", "units: a tree of XORs", "gates: a disjunction")
    for i, label in enumerate(labels):
        axes[0].plot(
            list(sizes),
            counts[:, i],
            color=COLOURS[i],
            ls=DASHES[i],
            marker=MARKERS[i],
            ms=4,
            label=label,
        )
    log_axis(axes[0], "y")
    axes[0].set(xlabel="bits", ylabel="units or gates", title="built by hand, right on every input")
    axes[0].legend()
    for i, name in enumerate(SHAPES):
        axes[1].plot(
            UNITS,
            accuracy[i].mean(-1),
            color=COLOURS[(0, 2)[i]],
            ls=DASHES[i],
            marker=MARKERS[i],
            label=name,
        )
        for k, units in enumerate(UNITS):
            axes[1].plot(
                [units] * len(seeds),
                accuracy[i, k],
                MARKERS[i],
                color=COLOURS[(0, 2)[i]],
                ms=2.5,
                alpha=0.6,
            )
    axes[1].axhline(50, color=COLOURS[6], ls=":", lw=1, label="guessing")
    log_axis(axes[1], "x")
    axes[1].set_xticks(UNITS, [str(u) for u in UNITS])
    axes[1].set(
        xlabel="hidden units in all",
        ylabel="inputs answered rightly in %",
        title=f"trained on all {2**BITS} inputs of {BITS} bits",
        ylim=(20, 103),
    )
    axes[1].legend(loc="lower left")
    return figure
