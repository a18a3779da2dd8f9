"""L1 against L2: which weights become zero.

Claim: An L1 penalty makes weights that do not matter exactly zero, an L2 penalty makes them small and none zero; both
shrink the weights that matter.

To see it fail: take L1 by its gradient, ``STEP = "gradient"``: weights hover about zero and none is zero.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, FAINT, panels

STEP, MATTER, FEATURES = "proximal", 5, 40


def draw(item):
    seeds = range(item.size(8, 5))
    recipe = ravine.Recipe(
        model="linear",
        data={"batch": 40},
        optimizer={"kind": "sgd", "lr": 0.02},
        stop={"after": f"{item.size(100, 50)}ep"},
    )
    arms = {
        "L1": {"kind": "squared", "l1": 0.5, "l1_step": STEP},
        "L2": {"kind": "squared", "l2": 0.2},
    }
    weights = []  # [S, arms, FEATURES]
    for seed in seeds:
        random = np.random.default_rng(seed)
        x = random.normal(size=(400, FEATURES)).astype(np.float32)
        y = (x[:, :MATTER].sum(1) + random.normal(0, 0.5, 400)).astype(np.float32)
        runs = ravine.train_many(
            [recipe.edit({"loss": loss, "seed": seed}) for loss in arms.values()],
            data=(x, y),
            out=item.out(str(seed)),
            quiet=True,
        )
        weights.append([_weights(run) for run in runs])
    weights = np.array(weights)
    zeros = (weights[..., MATTER:] == 0).mean(-1)
    matter = weights[..., :MATTER].mean(-1)
    item.claim("weights that do not matter and are exactly zero, L1", zeros[:, 0], above=0.2)
    item.claim("the same, L2", zeros[:, 1], below=0.01)
    item.claim("mean weight that matters (true: 1), L1", matter[:, 0], above=0.5, below=0.95)
    item.claim("the same, L2", matter[:, 1], above=0.5, below=0.95)

    figure, boxes = panels(1, 2, 4.0, 3.0)
    for i, (box, name) in enumerate(zip(boxes, arms, strict=True)):
        for seed in seeds:
            box.plot(weights[seed, i], "o", color=COLOURS[i], ms=2.5, alpha=0.7)
        box.axhline(1, xmax=MATTER / FEATURES, color=FAINT, ls=DASHES[2], label="true")
        box.axhline(0, xmin=MATTER / FEATURES, color=FAINT, ls=DASHES[2])
        box.set(
            xlabel="weight, the first 5 matter",
            ylabel="its value",
            title=f"{name}: {100 * zeros[:, i].mean():.0f} % of the others are zero",
        )
        box.legend()
    return figure


def _weights(run):
    return next(p for p in run.model.parameters() if p.dim() == 2).detach().numpy().ravel()
