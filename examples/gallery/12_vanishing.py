"""Vanishing gradients: how much the first layers get to learn.

Claim: The gradient of the first of 15 layers lies five orders below the last one's with sigmoids, and within two with
tanh, ReLU, residual blocks or normalisation; the delta recursion by hand gives autograd's gradient; sigmoids need
several times the steps of ReLU, though not the ten times that texts say.

To see it fail: ``DEPTH = 2``: through two layers nothing vanishes.
"""

import numpy as np
import torch
from torch import nn

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, log_axis, panels

DEPTH, WIDTH, TARGET = 15, 64, 0.3


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def dense():
    layer = nn.Linear(WIDTH, WIDTH)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


ARMS = {
    "sigmoid": lambda: nn.Sequential(dense(), nn.Sigmoid()),
    "tanh": lambda: nn.Sequential(dense(), nn.Tanh()),
    "ReLU": lambda: nn.Sequential(dense(), nn.ReLU()),
    "sigmoid, residual": lambda: Residual(nn.Sequential(dense(), nn.Sigmoid())),
    "sigmoid, normalised": lambda: nn.Sequential(dense(), nn.BatchNorm1d(WIDTH), nn.Sigmoid()),
}


def gradients(arm, seed):
    """The gradient's size at the weights of each layer [DEPTH], for a random batch of 10 classes."""
    torch.manual_seed(seed)
    blocks = nn.Sequential(*[arm() for _ in range(DEPTH)])
    net = nn.Sequential(blocks, nn.Linear(WIDTH, 10))
    x, y = torch.randn(128, WIDTH), torch.randint(0, 10, (128,))
    nn.functional.cross_entropy(net(x), y).backward()
    return [
        float(part.weight.grad.norm()) for part in blocks.modules() if isinstance(part, nn.Linear)
    ]


def recursion_error(seed):
    """The largest difference between autograd and d_l = h'(a_l) * (d_{l+1} W_{l+1}), dW_l = d_l^T z_{l-1}."""
    torch.manual_seed(seed)
    weights = [torch.randn(8, 8, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    z, y = [torch.randn(5, 8, dtype=torch.float64)], torch.randn(5, 8, dtype=torch.float64)
    for w in weights:
        z.append(torch.tanh(z[-1] @ w.T))
    ((z[-1] - y) ** 2).sum().backward()
    delta, worst = 2 * (z[-1] - y), 0.0
    for layer in reversed(range(4)):
        delta = delta * (1 - z[layer + 1] ** 2)
        worst = max(worst, float((delta.T @ z[layer] - weights[layer].grad).abs().max()))
        delta = delta @ weights[layer]
    return worst


def chain(seed):
    """Nielsen's chain of four neurons: dC/db1 = s'(z1) w2 s'(z2) w3 s'(z3) w4 s'(z4) dC/da4, against autograd."""
    torch.manual_seed(seed)
    w, b = (
        torch.randn(4, dtype=torch.float64),
        torch.zeros(4, dtype=torch.float64, requires_grad=True),
    )
    a, product = torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    for k in range(4):
        a = torch.sigmoid(w[k] * a + b[k])
        product = product * a.detach() * (1 - a.detach()) * (w[k] if k else 1)
    a.backward()
    return float(product), float(b.grad[0])


def draw(item):
    seeds = range(item.size(10, 5))
    found = {name: np.array([gradients(arm, seed) for seed in seeds]) for name, arm in ARMS.items()}
    ratio = {name: np.log10(values[:, 0] / values[:, -1]) for name, values in found.items()}
    item.claim("log10 of the gradient, first / last layer: sigmoid", ratio["sigmoid"], below=-5)
    for name in ("tanh", "ReLU", "sigmoid, residual", "sigmoid, normalised"):
        item.claim(name, ratio[name], above=-2)
    item.claim(
        "delta recursion against autograd, largest difference",
        max(recursion_error(s) for s in seeds),
        below=1e-10,
    )
    chains = np.array([chain(seed) for seed in seeds])
    item.claim(
        "chain of four neurons against autograd",
        float(np.abs(chains[:, 0] - chains[:, 1]).max()),
        below=1e-14,
    )
    item.claim(
        "size of dC/db1 through the chain (bound without weights: 1/256)",
        np.abs(chains[:, 1]),
        below=0.05,
    )

    recipe = ravine.Recipe(
        data={
            "source": "digits",
            "batch": 64,
            "preprocess": [{"kind": "standardize", "per": "channel"}],
        },
        optimizer="sgd",
        stop={"after": f"{item.size(40, 25)}ep", "on_trouble": "report"},
    )
    rates, arms = (0.03, 0.1, 0.3, 1.0), ("sigmoid", "tanh", "relu")
    model = {"kind": "mlp", "hidden": [32, 32, 32], "init": {"weights": "glorot_normal"}}
    runs = ravine.train_many(
        [
            recipe.edit({"model": {**model, "activation": arm}, "optimizer.lr": lr, "seed": seed})
            for arm in arms
            for lr in rates
            for seed in seeds
        ],
        out=item.out(),
        quiet=True,
    )
    losses = np.array([run.losses for run in runs])
    smooth = np.lib.stride_tricks.sliding_window_view(losses, 10, axis=1).mean(-1)
    steps = np.where(smooth < TARGET, np.arange(smooth.shape[1]), smooth.shape[1]).min(1) + 10
    steps = steps.reshape(3, len(rates), len(seeds))
    best = steps.mean(2).argmin(1)
    steps = np.array([steps[i, best[i]] for i in range(3)])  # [arms, S]
    item.claim(
        f"steps to a loss of {TARGET}, sigmoid / ReLU, each at its best rate",
        steps[0] / steps[2],
        above=2,
        below=10,
    )

    figure, (depth, race) = panels(1, 2, 4.4, 3.4)
    for i, (name, values) in enumerate(found.items()):
        depth.plot(
            np.arange(1, DEPTH + 1), values.mean(0), color=COLOURS[i], ls=DASHES[i], label=name
        )
    log_axis(depth, "y")
    depth.set(xlabel="layer", ylabel="norm of the weights' gradient")
    depth.legend(loc="lower right", ncols=1)
    for i in range(3):
        race.plot(steps[i], [i] * len(seeds), "o", color=COLOURS[i])
    labels = [
        f"{name}, lr {rates[b]:g}"
        for name, b in zip(("sigmoid", "tanh", "ReLU"), best, strict=True)
    ]
    race.set(
        yticks=range(3),
        yticklabels=labels,
        xlabel=f"steps to a training loss of {TARGET}",
        title="digits, three hidden layers",
    )
    log_axis(race, "x")
    depth.set_title(f"{DEPTH} layers before training")
    race.set_ylim(2.5, -0.5)
    return figure
