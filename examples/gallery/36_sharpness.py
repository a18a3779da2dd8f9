"""Sharp and flat minima: small against large batches.

Claim: Texts say that large batches end in sharper minima. Here, with as many steps and the same rate, that does not
show: neither the largest curvature nor the rise along a random direction at the filters' own size is clearly higher.

To see it fail: ``SIZES = (64, 512)``: the noise of both is small, and so is the difference.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.func import functional_call

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, band, panels

SIZES, LR = (4, 512), 0.1


def curvature(run, x, y, turns=30):
    """The largest eigenvalue of the loss's Hessian over all weights, by power iteration."""
    net = run.copy_model().double()
    inputs, target = run.pipeline.transform(x).double(), torch.as_tensor(y)
    names = dict(net.named_parameters())

    def loss(values):
        return torch.nn.functional.cross_entropy(functional_call(net, values, (inputs,)), target)

    direction = {k: torch.randn_like(v) for k, v in names.items()}
    size = torch.tensor(0.0)
    for _ in range(turns):
        length = sum((v**2).sum() for v in direction.values()).sqrt()
        direction = {k: v / length for k, v in direction.items()}
        values = {k: v.detach() for k, v in names.items()}
        _, direction = torch.func.jvp(torch.func.grad(loss), (values,), (direction,))
        size = sum((v**2).sum() for v in direction.values()).sqrt()
    return float(size)


def draw(item):
    seeds, steps = range(item.size(8, 6)), item.size(2500, 1500)
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [32], "activation": "tanh"},
        data={
            "source": "digits",
            "preprocess": [{"kind": "standardize", "per": "channel"}],
        },
        optimizer={"kind": "sgd", "lr": LR},
        stop={"after": f"{steps}it"},
    )
    runs = ravine.train_many(
        [recipe.edit({"data.batch": size, "seed": s}) for size in SIZES for s in seeds],
        out=item.out("sizes"),
        quiet=True,
    )
    digits = load_digits()
    x, y = digits.images[:500, None].astype(np.float32), digits.target[:500]
    sharp = np.array([curvature(run, x, y) for run in runs]).reshape(2, -1)
    bowls = [
        np.array(
            ravine.landscape(
                run, kind="line", points=21, samples=300, out=item.out(f"bowl{i}"), quiet=True
            )["grids"][0]["loss"],
            float,
        ).ravel()
        for i, run in enumerate(runs)
    ]
    bowls = np.array(bowls).reshape(2, len(seeds), -1)
    bowls = bowls - bowls.min(-1, keepdims=True)
    ends = bowls[..., [0, -1]].mean(-1)
    text = f"batch {SIZES[1]} / batch {SIZES[0]}"
    item.claim(f"largest curvature, {text}", sharp[1] / sharp[0], above=1 / 3, below=3.0)
    item.claim(
        f"rise of the loss at the filters' own size, {text}",
        ends[1] / ends[0],
        above=0.5,
        below=2.0,
    )

    figure, (bowl, points) = panels(1, 2, 4.2, 3.2)
    for i, size in enumerate(SIZES):
        band(bowl, np.linspace(-1, 1, 21), bowls[i], f"batch {size}", i, ls=DASHES[i])
        points.plot([i] * len(seeds), sharp[i], MARKERS[i], color=COLOURS[i])
    bowl.set(
        xlabel="one direction, in filters' sizes",
        ylabel="loss above the minimum",
        title="around the minimum",
        xticks=[-1, -0.5, 0, 0.5, 1],
    )
    bowl.legend()
    points.set(
        xticks=[0, 1],
        xticklabels=[f"batch {size}" for size in SIZES],
        xlim=(-0.5, 1.5),
        ylim=(0, None),
        ylabel="largest eigenvalue of the Hessian",
        title=f"{steps} steps each, {len(seeds)} seeds",
    )
    return figure
