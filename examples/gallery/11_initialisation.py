"""Initialisation: what keeps a signal alive through many layers.

Claim: Weights that begin at zero or equal stay equal for ever; weights drawn too small let the signal die with depth;
Xavier keeps it with tanh and halves it a layer with ReLU, He keeps it with ReLU; 20 and 50 layers train with He and
ReLU, and with orthogonal weights and tanh best of all.

To see it fail: train 3 layers in place of 50, ``DEEP = 3``: nearly any start will do.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, log_axis, panels

SHALLOW, DEEP, STARTS = 20, 50, 5
ARMS = {
    "small, tanh": ("tanh", {"kind": "normal", "std": 0.01}),
    "Xavier, tanh": ("tanh", {"kind": "glorot_normal"}),
    "orthogonal, tanh": ("tanh", {"kind": "orthogonal"}),
    "Xavier, ReLU": ("relu", {"kind": "glorot_normal"}),
    "He, ReLU": ("relu", {"kind": "he_normal"}),
}


def draw(item):
    recipe = ravine.Recipe(data={"source": "digits", "batch": 64, "preprocess": ["standardize"]})
    still = recipe.edit(
        {"optimizer": {"kind": "sgd", "lr": 1e-12}, "stop.after": "1it"}
    )  # as it begins
    starts = [
        still.edit({"model": _mlp(SHALLOW, *arm, width=128), "seed": s})
        for arm in ARMS.values()
        for s in range(STARTS)
    ]
    runs = ravine.train_many(starts, out=item.out("starts"), quiet=True)
    images = load_digits().images[:256, None]
    variances = np.array([_variances(run, images) for run in runs]).reshape(
        len(ARMS), STARTS, SHALLOW
    )
    last = {name: _hidden(runs[i * STARTS], images)[-1] for i, name in enumerate(ARMS)}
    seen = dict(zip(ARMS, variances, strict=True))  # {arm: [S, layers]}
    a_layer = {
        name: (found[:, SHALLOW - 1] / found[:, 0]) ** (1 / (SHALLOW - 1))
        for name, found in seen.items()
    }
    item.claim("mean square kept a layer: small, tanh", a_layer["small, tanh"], below=0.1)
    item.claim("Xavier, tanh", a_layer["Xavier, tanh"], above=0.8, below=1.05)
    item.claim("Xavier, ReLU", a_layer["Xavier, ReLU"], above=0.35, below=0.65)
    item.claim("He, ReLU", a_layer["He, ReLU"], above=0.75, below=1.25)

    seeds, epochs = item.size(4, 3), item.size(20, 10)
    rates = (0.003, 0.01, 0.03)
    base = recipe.edit(
        {
            "optimizer": "momentum",
            "stop": {"after": f"{epochs}ep", "on_trouble": "report"},
            "clip.norm": 1.0,
        }
    )
    recipes = [
        base.edit({"model": _mlp(depth, *arm), "optimizer.lr": lr, "seed": seed})
        for depth in (SHALLOW, DEEP)
        for arm in ARMS.values()
        for lr in rates
        for seed in range(seeds)
    ]
    equal = {
        name: base.edit({"model": _mlp(1, "tanh", {"kind": "constant", "value": value})})
        for name, value in (("at zero", 0.0), ("equal", 0.1))
    }
    runs = ravine.train_many([*recipes, *equal.values()], out=item.out("training"), quiet=True)
    loss = np.array([np.nan_to_num(run.result["train_loss"], nan=9.9) for run in runs[:-2]])
    loss = loss.reshape(2, len(ARMS), len(rates), seeds).min(
        2
    )  # [depths, arms, S], the best rate of each seed
    names = list(ARMS)
    for name, run in zip(equal, runs[-2:], strict=True):
        weights = next(p for p in run.model.parameters() if p.dim() == 2).detach()
        apart = float((weights - weights[0]).abs().max())
        item.claim(f"largest difference between units that began {name}", apart, below=1e-5)
    item.claim("loss through 20 layers, He, ReLU", loss[0, 4], below=1.5)
    item.claim("loss through 20 layers, orthogonal, tanh", loss[0, 2], below=1.0)
    item.claim("loss through 50 layers, small, tanh (chance: 2.30)", loss[1, 0], above=2.2)
    item.claim(
        "loss through 50 layers, Xavier, ReLU minus He, ReLU", loss[1, 3] - loss[1, 4], above=0.3
    )
    item.claim(
        "loss through 50 layers, orthogonal, tanh",
        loss[1, names.index("orthogonal, tanh")],
        below=1.0,
    )

    figure, (depth, spread, ends) = panels(1, 3, 3.7, 3.4)
    for i, name in enumerate(ARMS):
        style = {"color": COLOURS[i], "label": name}
        depth.plot(np.arange(1, SHALLOW + 1), seen[name].mean(0)[:SHALLOW], ls=DASHES[i], **style)
        ends.plot([SHALLOW, DEEP], loss[:, i].mean(1), marker=MARKERS[i], ls=DASHES[i], **style)
        a = np.log10(np.abs(last[name][last[name] != 0]))
        spread.hist(
            a, bins=90, range=(-17, 1), density=True, histtype="step", ls=DASHES[i], **style
        )
    log_axis(depth, "y")
    spread.set(
        xlabel="log10 |activation|", ylabel="density", title=f"layer {SHALLOW}, before training"
    )
    depth.set(
        xlabel="layer",
        ylabel="mean square of the activations",
        ylim=(1e-12, 30),
        title="before training",
    )
    ends.axhline(np.log(10), color=COLOURS[6], lw=0.8, ls=":")
    ends.text(35, 2.33, "chance", ha="center", color=COLOURS[6])
    ends.set(
        xlabel="layers",
        ylabel=f"training loss after {epochs} epochs",
        xticks=[SHALLOW, DEEP],
        ylim=(0, 2.6),
        title="after training",
    )
    figure.legend(*depth.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def _mlp(depth, activation, weights, width=32):
    init = {"weights": weights, "biases": "zeros"}
    return {"kind": "mlp", "hidden": [width] * depth, "activation": activation, "init": init}


def _hidden(run, images):
    """The activations of each hidden layer."""
    z, found = run.pipeline.transform(images), []
    with torch.no_grad():
        for part in run.model:
            z = part(z)
            if isinstance(part, torch.nn.Tanh | torch.nn.ReLU):
                found.append(z.double().numpy().ravel())
    return found


def _variances(run, images):
    """The mean square of each hidden layer's activations [layers]."""
    return [float((z**2).mean()) for z in _hidden(run, images)]
